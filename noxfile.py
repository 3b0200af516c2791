# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]>=2025.11"]
# ///
"""Every check of the repository.

    python3 noxfile.py              the default sessions; needs nothing but Python
    python3 noxfile.py -l           what there is
    python3 noxfile.py -s types     one of them; arguments after `--` go to the tool

First-party packages are installed by path or from wheels built here, never by name alone: the name `hypernodes` on the
public registry belongs to an unrelated project up to 0.4.8. `guard` holds that in every session.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"

if sys.version_info < (3, 11):  # noqa: UP036 - started by whatever `python3` is, before anything checks
    sys.exit(f"hypernodes needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")


def come_back_with_nox() -> int:
    """Run this file again with nox from an environment of its own, made at the first call."""
    import venv

    home = ROOT / ".nox" / f".runner-{sys.version_info.major}.{sys.version_info.minor}"
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    if not any(scripts.glob("nox*")):
        venv.create(home, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, "-c", CONSTRAINTS, "nox[uv]"], check=True)
    return subprocess.run([python, __file__, *sys.argv[1:]]).returncode


try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.exit(come_back_with_nox())

# A version manager such as pyenv hides the interpreters that are not selected: show nox where they lie.
if (versions := Path(sys.base_prefix).parent).name == "versions":
    os.environ["PATH"] += "".join(os.pathsep + str(path) for path in sorted(versions.glob("3.1[1-9]*/bin")))

os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # trust what the machine trusts, as pip does
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

CI = bool(os.environ.get("CI"))
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER_PYTHONS = [version for version in ("3.11", "3.12", "3.13") if version != THIS_PYTHON]


def project(folder: Path) -> dict[str, object]:
    """The `[project]` table of the package in this folder."""
    return nox.project.load_toml(folder / "pyproject.toml")["project"]  # type: ignore[no-any-return]


PLUGINS = {str(project(file.parent)["name"]): file.parent for file in sorted(ROOT.glob("plugins/*/pyproject.toml"))}
CORE = {str(project(ROOT / "core")["name"]): ROOT / "core"}
BUNDLE = {str(project(ROOT)["name"]): ROOT}
EVERYTHING = CORE | PLUGINS | BUNDLE
WANTED = " ".join(project(ROOT)["dependencies"])  # type: ignore[call-overload]
BUNDLED = {name: folder for name, folder in PLUGINS.items() if name in WANTED}
VERSION = str(project(ROOT)["version"])
CLUSTERS = ("coiled-dask", "daft", "modal", "ray")
"""Plugin folders whose tests start something that all of them share."""

nox.needs_version = ">=2025.11"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = CI
nox.options.sessions = ["core", "all_plugins", "wheels", "acme"]
if CI:
    # Often only the end of a log is kept: let it be the failures of the session that failed.
    nox.options.stop_on_first_error = True
    nox.options.sessions += ["lint", "types", "matrix", "lowest"]


def group(name: str) -> list[str]:
    """The requirements of one of the root's dependency groups."""
    return list(nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), name))


def install(session: nox.Session, dists: dict[str, Path], *more: str, locked: bool = True) -> None:
    """Install these first-party packages from this checkout, editable, and check that they are what was installed."""
    paths = [arg for folder in dists.values() for arg in ("-e", str(folder))]
    session.install(*(["-c", str(CONSTRAINTS)] if locked else []), *paths, *more)
    guard(session, dists)


GUARD = """
import importlib.metadata as metadata, json, pathlib, sys
version, root, *expected = sys.argv[1:]
found = {d.name: d for d in metadata.distributions() if d.name == "hypernodes" or d.name.startswith("hypernodes-")}
if sorted(found) != sorted(expected):
    sys.exit(f"expected {sorted(expected)} in this environment, found {sorted(found)}")
for name, dist in found.items():
    origin = json.loads(dist.read_text("direct_url.json") or "{}").get("url", "a package registry")
    if dist.version != version or not origin.startswith(pathlib.Path(root).as_uri()):
        sys.exit(f"{name} {dist.version} came from {origin}, not version {version} from this checkout")
import hypernodes
if not any(pathlib.Path(hypernodes.__file__).is_relative_to(home) for home in (root, sys.prefix)):
    sys.exit(f"hypernodes was imported from {hypernodes.__file__}")
"""


def guard(session: nox.Session, expected: dict[str, Path]) -> None:
    """The first-party packages in the environment are exactly these, and each came from this checkout."""
    session.run("python", "-c", GUARD, VERSION, str(ROOT), *expected, silent=True, log=False)


@functools.cache
def browser() -> None:
    """In CI, try once to install what the tests of pictures look with; without it they skip and say so."""
    found = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if not CI or found or not shutil.which("apt-get") or os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        return
    commands = "apt-get update && apt-get install -y --no-install-recommends chromium graphviz"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with subprocess.Popen(["sh", "-c", commands], env=environment, start_new_session=True, **quiet) as running:
        try:
            failed = running.wait(300) != 0
        except subprocess.TimeoutExpired:
            failed = True
            os.killpg(running.pid, signal.SIGKILL)
    if failed:
        print("no browser could be installed: the tests that need one skip", file=sys.stderr)


def pytest(session: nox.Session, *paths: str, quick: bool = False) -> None:
    """Run the tests in these paths, or all; in CI with short tracebacks, so that a log's end holds many.

    Two processes share them. Plugins whose tests start a cluster come after the rest, each in one process of its own:
    so there is one cluster at a time, and one for all its tests. `quick` leaves the slow ones out.
    """
    short = ["--tb=short"] if CI else []
    options = [*short, "-m", "not (slow or long)" if quick else "not long"]
    if session.posargs:  # somebody looks for something
        session.run("pytest", *short, *paths, *session.posargs)
        return
    alone = [] if paths else [folder for folder in PLUGINS.values() if folder.name in CLUSTERS]
    if not paths:
        browser()
        shared = [folder for folder in PLUGINS.values() if folder not in alone]
        paths = ("core/tests", "tests", *(str(folder.relative_to(ROOT) / "tests") for folder in shared))
    session.run("pytest", "-n", "2", "--dist", "worksteal", *options, *paths)
    for folder in alone:
        session.run("pytest", *options, str(folder.relative_to(ROOT) / "tests"))


@nox.session
def core(session: nox.Session) -> None:
    """The core's own tests, with no plugin installed; in CI the quick ones, as `all_plugins` has them all."""
    install(session, CORE, *group("test"))
    pytest(session, "core/tests", quick=CI)


@nox.session
def all_plugins(session: nox.Session) -> None:
    """Everything together, every test."""
    install(session, EVERYTHING, *group("test"))
    pytest(session)


@nox.session(python=OTHER_PYTHONS)
def matrix(session: nox.Session) -> None:
    """Everything together on the other Pythons, every test; in CI the quick ones, and between first and last core's."""
    install(session, EVERYTHING, *group("test"))
    between = CI and session.python != OTHER_PYTHONS[-1]
    pytest(session, *(["core/tests"] if between else []), quick=CI)


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Every test with the oldest dependencies that the packages declare, in CI the quick ones."""
    install(session, EVERYTHING, "--resolution=lowest-direct", *group("test"), locked=False)
    pytest(session, quick=CI)


@nox.session(venv_backend="uv")
@nox.parametrize("client", ["oldest", "newest"], ids=["oldest", "newest"])
def coiled_client(session: nox.Session, client: str) -> None:
    """The tests of CoiledBackend with the oldest client of Coiled's that it takes, or with the newest there is."""
    with_client(session, client, "plugins/coiled-dask/tests/cloud")


@nox.session(venv_backend="uv")
@nox.parametrize("client", ["oldest", "newest"], ids=["oldest", "newest"])
def modal_client(session: nox.Session, client: str) -> None:
    """The tests of ModalBackend and LocalModal with the oldest client of Modal's that they take, or with the newest."""
    with_client(session, client, "plugins/modal/tests")


def with_client(session: nox.Session, client: str, tests: str) -> None:
    """Run these tests with everything as old as it may be, or as new as there is."""
    lowest = ["--resolution=lowest-direct"] if client == "oldest" else ["--upgrade"]
    install(session, EVERYTHING, *lowest, *group("test"), locked=False)
    session.run("pytest", tests, *session.posargs)


@nox.session(venv_backend="uv")
def wheels(session: nox.Session) -> None:
    """Build all wheels, install them with uv and with pip, run a pipeline on every engine that came along."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for folder in EVERYTHING.values():
        session.run("uv", "build", "-q", "--wheel", "--no-sources", "-o", str(dist), str(folder), external=True)
    built = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in sorted(dist.glob("*.whl"))}
    if set(built) != set(EVERYTHING):
        session.error(f"expected wheels of {sorted(EVERYTHING)}, built {sorted(built)}")

    # `name @ file://` is the one form with which uv neither asks the registry for these names nor takes a stale wheel.
    urls = {name: f"{name} @ {wheel.as_uri()}" for name, wheel in built.items()}
    ours = dist / "ours.txt"
    ours.write_text("\n".join([*urls.values(), ""]), encoding="utf-8")
    smoke = str(ROOT / "tests" / "smoke_installed.py")
    locked = ["-c", str(CONSTRAINTS), "-c", str(ours)]

    session.install("--reinstall", *locked, *EVERYTHING)
    guard(session, EVERYTHING)
    session.run("python", "-I", smoke)

    # what most people type: pip alone, an empty environment, the bundle and what it depends on
    plain = dist.parent / "plain"
    session.run("python", "-m", "venv", "--clear", str(plain))
    python = str(plain / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    bundle = CORE | BUNDLED | BUNDLE
    wanted = [urls[name] for name in bundle]
    session.run(python, "-m", "pip", "install", "-q", "-c", str(CONSTRAINTS), *wanted, external=True)
    session.run(python, "-c", GUARD, VERSION, str(ROOT), *bundle, external=True, silent=True, log=False)
    session.run(python, "-I", smoke, external=True)


@nox.session
def long(session: nox.Session) -> None:
    """What harms clusters or starts many, a quarter of an hour: for whoever changes a plugin that has such tests."""
    install(session, EVERYTHING, *group("test"))
    plugins = [folder for folder in PLUGINS.values() if folder.name in ("coiled-dask", "ray")]
    for tests in (ROOT / "tests", *(folder / "tests" for folder in plugins)):
        session.run("pytest", "-m", "long", str(tests.relative_to(ROOT)), *session.posargs)


@nox.session
def acme(session: nox.Session) -> None:
    """The third-party engine of the examples: its own package, its own tests, on core alone."""
    folder = ROOT / "examples" / "acme-engine"
    if not (folder / "pyproject.toml").exists():
        session.error("examples/acme-engine has no pyproject.toml: the example engine is missing from this checkout")
    install(session, CORE, "-e", str(folder), *group("test"))
    pytest(session, str(folder / "tests"))


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install("-c", str(CONSTRAINTS), *group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over the core and each plugin."""
    install(session, EVERYTHING, *group("types"))
    sources = [str((folder / "src").relative_to(ROOT)) for folder in (CORE | PLUGINS).values()]
    session.run("mypy", *session.posargs, *sources)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, all or those named after `--`; they print, they never gate."""
    install(session, EVERYTHING, *group("bench"))
    for script in session.posargs or sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("benchmarks/bench_*.py")):
        session.run("python", script)


@nox.session
def example(session: nox.Session) -> None:
    """The search example; the question may follow `--`."""
    folder = ROOT / "examples" / "search"
    requirements = ["-r", str(folder / "requirements.txt")] if (folder / "requirements.txt").exists() else []
    install(session, CORE | BUNDLED | BUNDLE, *requirements)
    session.run("python", str(folder / "search.py"), *(session.posargs or ["how do I parse dates"]))


@nox.session(venv_backend="uv")
def lock(session: nox.Session) -> None:
    """Write constraints.txt: versions and markers, no address. `-- --upgrade` takes the newest."""
    what = ["--all-packages", "--all-extras", "--all-groups", "--no-emit-workspace"]
    form = ["--no-hashes", "--no-annotate", "--no-header"]
    session.run("uv", "export", "-q", *session.posargs, *what, *form, "-o", str(CONSTRAINTS), external=True)


if __name__ == "__main__":
    nox.main()
