"""Images: the default one, one from a uv project, and what every image gets: hypernodes and the user's own packages.

Both come as source files that are mounted when a container starts, so an image needs neither, both sides have the same
version, and a changed function builds no image anew. hypernodes needs `pluggy` and `cloudpickle`, which are pure
Python: they are mounted too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import modal

logger = logging.getLogger("hypernodes")

ALWAYS = ("hypernodes", "hypernodes_modal", "cloudpickle", "pluggy")
GROUP = "hypernodes"

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


def built(recipe: Recipe, plugins: Plugins, packages: Iterable[str]) -> modal.Image:
    """The image of a recipe with everything mounted that a container needs."""
    if recipe is None:
        image = default_image(*plugins.requirements)
    elif isinstance(recipe, str):
        image = modal.Image.from_id(recipe)
    elif isinstance(recipe, modal.Image):
        image = recipe
    else:
        image = recipe()
        if not isinstance(image, modal.Image):
            raise TypeError(f"ModalBackend: image= is a function that returned {image!r}, which is no modal.Image")
    image = image.add_local_python_source(*dict.fromkeys([*ALWAYS, *plugins.packages, *packages]))
    for file in plugins.metadata:
        image = image.add_local_file(file, f"{PATH}/{file.parent.name}/{file.name}")
    return image


class Plugins(NamedTuple):
    """Installed plugins of hypernodes that a container has: packages, what tells its Python of them, what they need."""

    packages: tuple[str, ...]
    metadata: tuple[Path, ...]
    requirements: tuple[str, ...]


def plugins_for(engine_package: str) -> Plugins:
    """The plugins that have something to do in a container.

    Those are the one with the engine, those that restore there what they sent along, such as the ids of traces, and
    those that need nothing.
    """
    packages, metadata, requirements = set[str](), set[Path](), set[str]()
    for point in importlib.metadata.entry_points(group=GROUP):
        package, dist = point.module.partition(".")[0], point.dist
        if dist is None or importlib.util.find_spec(package) is None:
            continue
        needed = () if package in ALWAYS else requirements_of(dist)
        if needed and package != engine_package and not _works_over_there(point):
            continue
        packages.add(package)
        requirements.update(needed)
        for file in dist.files or ():
            if file.parent.name.endswith(".dist-info") and file.name in ("METADATA", "entry_points.txt"):
                metadata.add(Path(str(file.locate())))
    return Plugins(tuple(sorted(packages)), tuple(sorted(metadata)), tuple(sorted(requirements)))


def requirements_of(dist: importlib.metadata.Distribution) -> tuple[str, ...]:
    """What a plugin needs besides hypernodes, in the versions that are installed here."""
    found = []
    for requirement in dist.requires or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()
        if "extra ==" in requirement or name.startswith("hypernodes") or name in ALWAYS:
            continue
        try:
            found.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement for another system than this
    return tuple(found)


def _works_over_there(point: importlib.metadata.EntryPoint) -> bool:
    """Whether a plugin restores in a container what it sent along. Its manifest is light."""
    try:
        return "extract" in vars(importlib.import_module(point.module))
    except Exception as error:  # a broken plugin is named by hypernodes when it is asked for
        logger.debug("plugin '%s' is left out of images: %s", point.name, error)
        return False


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
