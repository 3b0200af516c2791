"""Images: the default one, one from a uv project, and what every image gets: hypernodes and the user's own packages.

Both come as source files that are mounted when a container starts, so an image needs neither, both sides have the same
version, and a changed function builds no image anew. hypernodes needs `pluggy` and `cloudpickle`, which are pure
Python: they are mounted too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import modal

ALWAYS = ("hypernodes", "hypernodes_modal", "cloudpickle", "pluggy")
GROUP = "hypernodes"
HEAVY = frozenset({"hypernodes-daft", "hypernodes-coiled", "hypernodes-ray", "hypernodes-modal"})
"""Plugins whose libraries an image has only where their engine is used."""

PATH = "/root"
"""Where containers look for modules."""

Recipe = modal.Image | Callable[[], modal.Image] | str | None


def this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def default_image(*packages: str, python: str | None = None) -> modal.Image:
    """Debian with this Python's minor version, and these packages: the image of a backend that names none."""
    image = modal.Image.debian_slim(python_version=python or this_python())
    return image.uv_pip_install(*packages) if packages else image


def uv_image(
    project: str | Path = ".",
    *,
    groups: Sequence[str] = (),
    extras: Sequence[str] = (),
    python: str | None = None,
    base: modal.Image | None = None,
) -> modal.Image:
    """An image with the locked dependencies of a uv project, and the project's own packages as mounted source.

    `project` is the folder of `pyproject.toml` and `uv.lock`; packages are looked for there and in its `src`. `base` is
    what it begins with, Debian with this Python if left out. Raises `FileNotFoundError` or `ValueError` with a
    sentence for a folder that is no project, or that has no lock file.
    """
    folder = Path(project).resolve()
    if not (folder / "pyproject.toml").is_file():
        raise FileNotFoundError(f"uv_image: '{folder}' holds no pyproject.toml; give the folder of a uv project")
    if not (folder / "uv.lock").is_file():
        raise FileNotFoundError(
            f"uv_image: '{folder}' holds no uv.lock; run `uv lock` there, so that the image has the versions you have"
        )
    if re.search(r"^\[tool\.uv\.workspace", (folder / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE):
        raise ValueError(
            f"uv_image: '{folder}' is a uv workspace, which Modal cannot sync; write its requirements with "
            "`uv export --no-emit-workspace -o requirements.txt`, and build "
            "modal.Image.debian_slim().uv_pip_install(requirements=['requirements.txt'])"
        )
    image = default_image(python=python) if base is None else base
    image = image.uv_sync(str(folder), groups=list(groups), extras=list(extras))
    for package in packages_in(folder):
        image = image.add_local_dir(package, f"{PATH}/{package.name}", ignore=["**/__pycache__", "**/*.pyc"])
    return image


def packages_in(folder: Path) -> list[Path]:
    """The import packages that a project's folder holds, there or in its `src`."""
    found: dict[str, Path] = {}
    for place in (folder / "src", folder):
        for file in sorted(place.glob("*/__init__.py")):
            if file.parent.name.isidentifier() and file.parent.name != "tests":
                found.setdefault(file.parent.name, file.parent)
    return list(found.values())


def built(recipe: Recipe, requirements: Iterable[str], packages: Iterable[str]) -> modal.Image:
    """The image of a recipe with everything mounted that a container needs."""
    if recipe is None:
        image = default_image(*requirements)
    elif isinstance(recipe, str):
        image = modal.Image.from_id(recipe)
    elif isinstance(recipe, modal.Image):
        image = recipe
    else:
        image = recipe()
        if not isinstance(image, modal.Image):
            raise TypeError(f"ModalBackend: image= is a function that returned {image!r}, which is no modal.Image")
    image = image.add_local_python_source(*dict.fromkeys([*ALWAYS, *plugin_packages(), *packages]))
    for file in metadata_files():
        image = image.add_local_file(file, f"{PATH}/{file.parent.name}/{file.name}")
    return image


def plugin_packages() -> list[str]:
    """The packages of installed plugins, so that their names and hooks are known in a container."""
    points = importlib.metadata.entry_points(group=GROUP)
    names = {point.module.partition(".")[0] for point in points}
    return sorted(name for name in names if importlib.util.find_spec(name) is not None)


def metadata_files() -> list[Path]:
    """What tells a container's Python of the plugins: plugins are found by what is installed."""
    files = []
    for point in importlib.metadata.entry_points(group=GROUP):
        dist = point.dist
        for file in (dist.files or []) if dist is not None else []:
            if file.parent.name.endswith(".dist-info") and file.name in ("METADATA", "entry_points.txt"):
                files.append(Path(str(file.locate())))
    return sorted(set(files))


def requirements_of(engine_package: str) -> tuple[str, ...]:
    """What the plugins need of the default image, in the versions installed here.

    Heavy libraries only where the engine of that package is used.
    """
    found: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        dist = point.dist
        if dist is None or (dist.name in HEAVY and point.module.partition(".")[0] != engine_package):
            continue
        for requirement in dist.requires or []:
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()
            if "extra ==" in requirement or name.startswith("hypernodes") or name in ("modal", "pluggy", "cloudpickle"):
                continue
            try:
                found[name] = f"{name}=={importlib.metadata.version(name)}"
            except importlib.metadata.PackageNotFoundError:
                continue  # a requirement for another system than this
    return tuple(sorted(found.values()))


def local_packages() -> tuple[str, ...]:
    """Top-level packages and modules that this program imported from the user's own folders.

    Neither the standard library, nor what is installed, nor `__main__`, whose functions travel by value.
    """
    installed = [Path(path).resolve() for path in {*sysconfig.get_paths().values()} if path]
    installed = [path for path in installed if path.name in ("site-packages", "dist-packages") or "python" in path.name]
    found = []
    for name, module in list(sys.modules.items()):
        if "." in name or name.startswith("_") or name in ALWAYS:
            continue
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or getattr(module, "__spec__", None) is None:
            continue
        path = Path(file).resolve()
        if any(path.is_relative_to(place) for place in installed) or _is_installed(path):
            continue
        if _found_by_name(name, path):
            found.append(name)
    return tuple(sorted(found))


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _found_by_name(name: str, path: Path) -> bool:
    """Whether a container that has the file in its path would find it under this name."""
    expected = path.parent.name if path.name == "__init__.py" else path.stem
    return name == expected


def imported_from(value: Any) -> str:
    """The top-level package of a value's class."""
    return type(value).__module__.partition(".")[0]
