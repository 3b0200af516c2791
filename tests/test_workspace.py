"""What must stay true across all packages: versions, names, where they come from, what a plugin may import."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hypernodes

ROOT = Path(__file__).resolve().parent.parent


def load(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


PLUGIN_FOLDERS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))
FOLDERS = [ROOT, ROOT / "core", *PLUGIN_FOLDERS]
ROOT_FILE = load(ROOT)
PROJECTS: dict[str, dict[str, Any]] = {load(folder)["project"]["name"]: load(folder)["project"] for folder in FOLDERS}
VERSION: str = ROOT_FILE["project"]["version"]


def requirements(project: dict[str, Any]) -> list[Requirement]:
    """Everything a package asks for, its extras included."""
    extras = project.get("optional-dependencies", {}).values()
    return [Requirement(line) for lines in (project.get("dependencies", []), *extras) for line in lines]


def is_ours(name: str) -> bool:
    return canonicalize_name(name) == "hypernodes" or canonicalize_name(name).startswith("hypernodes-")


# --- versions and names ---


@pytest.mark.parametrize("name", PROJECTS)
def test_all_packages_bear_one_final_version(name: str) -> None:
    version = PROJECTS[name]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{name} {version}: only a final X.Y.Z keeps installers off 0.4.8"
    assert tuple(map(int, version.split("."))) >= (0, 5, 0), f"{name} {version}: up to 0.4.8 is another project's"
    assert version == VERSION, f"{name} is {version}, the bundle is {VERSION}"


@pytest.mark.parametrize("name", PROJECTS)
def test_packages_ask_for_each_other_within_one_minor_version(name: str) -> None:
    major, minor, _ = map(int, VERSION.split("."))
    for requirement in filter(lambda wanted: is_ours(wanted.name), requirements(PROJECTS[name])):
        if requirement.extras and requirement.name == name:
            continue  # the bundle's `all` names its own extras
        bounds = {str(bound) for bound in requirement.specifier}
        assert bounds == {f">={major}.{minor}", f"<{major}.{minor + 1}"}, f"{name} asks for {requirement}"


def test_plugins_depend_on_the_core_and_on_no_other_package_of_ours() -> None:
    for name, project in PROJECTS.items():
        ours = {canonicalize_name(wanted.name) for wanted in requirements(project) if is_ours(wanted.name)}
        if name == "hypernodes-core":
            assert ours == set()
        elif name != "hypernodes":
            assert ours == {"hypernodes-core"}, f"{name} depends on {sorted(ours)}"


@pytest.mark.parametrize("name", PROJECTS)
def test_packages_support_the_same_pythons(name: str) -> None:
    assert PROJECTS[name]["requires-python"] == ROOT_FILE["project"]["requires-python"]
    named = {line.rpartition(" ")[2] for line in PROJECTS[name]["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert named == {"3.11", "3.12", "3.13"}


def test_the_bundle_brings_the_core_the_local_plugins_progress_and_pictures() -> None:
    wanted = {Requirement(line).name for line in ROOT_FILE["project"]["dependencies"]}
    local = {"hypernodes-local-threaded", "hypernodes-local-multiprocess"}
    assert wanted == {"hypernodes-core", *local, "hypernodes-progress", "hypernodes-visualize"}


def test_each_extra_of_the_bundle_brings_its_plugin() -> None:
    extras = ROOT_FILE["project"]["optional-dependencies"]
    plugins = {name: [Requirement(line).name for line in lines] for name, lines in extras.items() if name != "all"}
    expected = {name: [f"hypernodes-{name}"] for name in ("daft", "modal", "coiled", "ray")}
    expected |= {name: [f"hypernodes-{name}"] for name in ("fsspec", "progress", "visualize")}
    expected["telemetry"] = ["hypernodes-opentelemetry"]
    assert plugins == expected
    [everything] = map(Requirement, extras["all"])
    assert (everything.name, everything.extras) == ("hypernodes", set(plugins))


def test_every_plugin_is_reached_by_the_bundle() -> None:
    reached = {wanted.name for wanted in requirements(ROOT_FILE["project"])}
    assert {name for name in PROJECTS if name not in ("hypernodes", "hypernodes-core")} <= reached


def test_uv_takes_every_package_from_the_workspace() -> None:
    assert set(ROOT_FILE["tool"]["uv"]["sources"]) == set(PROJECTS), "give each package a line in [tool.uv.sources]"


def test_uv_leaves_out_exactly_the_plugins_that_are_planned() -> None:
    planned = {Requirement(line).name for line in ROOT_FILE["tool"]["uv"].get("override-dependencies", [])}
    asked = {wanted.name for wanted in requirements(ROOT_FILE["project"])}
    assert planned == asked - set(PROJECTS), "a plugin in the workspace needs no override, a planned one does"


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS, ids=lambda folder: folder.name)
def test_a_plugin_registers_a_light_manifest(folder: Path) -> None:
    project = load(folder)["project"]
    package = project["name"].replace("-", "_")
    assert list(project["entry-points"]["hypernodes"].values()) == [f"{package}._plugin"]
    assert (folder / "src" / package / "py.typed").exists()
    assert (folder / "README.md").exists()


# --- where things come from ---


def test_hypernodes_is_this_checkout_and_never_the_registrys_namesake() -> None:
    assert hypernodes.__file__ is not None
    assert Path(hypernodes.__file__).is_relative_to(ROOT / "core" / "src")


def test_installed_packages_come_from_this_checkout_at_its_version() -> None:
    installed = {dist.name: dist for dist in importlib.metadata.distributions() if is_ours(dist.name)}
    assert "hypernodes-core" in installed
    for name, dist in installed.items():
        origin = json.loads(dist.read_text("direct_url.json") or "{}").get("url", "a registry")
        assert dist.version == VERSION, f"{name} {dist.version} is installed, the checkout is {VERSION}"
        assert origin.startswith(ROOT.as_uri()), f"{name} came from {origin}"


def tracked() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return []
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return listing.stdout.splitlines()


def test_no_lock_file_with_addresses_is_tracked() -> None:
    assert [name for name in tracked() if Path(name).name in {"uv.lock", "pylock.toml"}] == []


def test_constraints_hold_names_versions_and_markers_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        requirement = Requirement(line)
        assert requirement.url is None, line
        assert re.fullmatch(r"==[\w.+!]+", str(requirement.specifier)), line
        assert not is_ours(requirement.name), f"{line}: our own packages are installed by path"
    names = [Requirement(line).name for line in lines]
    assert names == sorted(names), "constraints.txt is written by `python3 noxfile.py -s lock`"


def test_every_third_party_requirement_is_constrained() -> None:
    groups = ROOT_FILE["dependency-groups"].values()
    wanted = {Requirement(line).name for lines in groups for line in lines if isinstance(line, str)}
    wanted |= {requirement.name for project in PROJECTS.values() for requirement in requirements(project)}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in lines}
    missing = {name for name in map(canonicalize_name, wanted) if not is_ours(name)} - pinned
    assert not missing, f"{sorted(missing)}: run `python3 noxfile.py -s lock`"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name if folder != ROOT else "bundle")
def test_no_package_names_an_index_or_a_file_elsewhere(folder: Path) -> None:
    contents = load(folder)
    assert all(requirement.url is None for requirement in requirements(contents["project"]))
    uv = contents.get("tool", {}).get("uv", {})
    assert uv.keys().isdisjoint({"index", "index-url", "extra-index-url", "find-links", "default-index"})
    assert all(source == {"workspace": True} for source in uv.get("sources", {}).values())


@pytest.mark.parametrize("folder", FOLDERS[1:], ids=lambda folder: folder.name)
def test_the_settings_of_the_tools_stand_in_the_root_alone(folder: Path) -> None:
    own = {"pytest", "ruff", "mypy"} & load(folder).get("tool", {}).keys()
    assert not own, (
        f"{folder.name}/pyproject.toml sets {sorted(own)}: started in that folder, tests would run differently"
    )


# --- the commands ---


def test_ci_runs_the_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Run the tests\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", section, flags=re.DOTALL)
    assert blocks, "README.md, section 'Run the tests', shows no command"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert blocks[0].strip() == script[-1]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100, ".ci/run is not executable"


def test_readme_installs_our_packages_by_path() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"pip install ([^\n`]*)", readme):
        first_party = re.findall(r"(?<![\w/.-])hypernodes[\w-]*(?:\[[\w,]*\])?", command)
        assert not first_party, f"`pip install {command}` would fetch {first_party} from a registry"


# --- what a plugin may import ---


def plugin_modules() -> list[Path]:
    return sorted(file for folder in PLUGIN_FOLDERS for file in (folder / "src").rglob("*.py"))


def first_party_imports(file: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line, module and names of each absolute import of a package of ours."""
    for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(found, ast.Import):
            imported = [(alias.name, []) for alias in found.names]
        elif isinstance(found, ast.ImportFrom) and found.level == 0 and found.module:
            imported = [(found.module, [alias.name for alias in found.names])]
        else:
            continue
        for module, names in imported:
            if module.split(".")[0].startswith("hypernodes"):
                yield found.lineno, module, names


@pytest.mark.parametrize("file", plugin_modules(), ids=lambda file: str(file.relative_to(ROOT / "plugins")))
def test_a_plugin_imports_only_public_names_of_the_core(file: Path) -> None:
    own = file.relative_to(ROOT / "plugins").parts[2]
    for line, module, names in first_party_imports(file):
        if module.split(".")[0] == own:
            continue
        allowed = module in {"hypernodes", "hypernodes.plugin"} or module.startswith("hypernodes.testing")
        wrong = [name for name in names if name.startswith("_")] if allowed else [module]
        assert not wrong, (
            f"{file.relative_to(ROOT)}:{line} imports {', '.join(wrong)}; "
            "a plugin imports hypernodes.plugin and public names of hypernodes"
        )
