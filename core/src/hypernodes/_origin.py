"""Whose code a module is: Python's, an installed distribution's of some version, or the user's own."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Origin", "origin_of", "origin_of_module"]


class Origin(NamedTuple):
    """`kind` is "python", "package" or "user"; a package has the name and version of its distribution."""

    kind: str
    name: str = ""
    version: str = ""


USER = Origin("user")
PYTHON = Origin("python")


def origin_of(module: str, scope: Mapping[str, Any] | None = None) -> Origin:
    """Whose the module of this name is. `scope` are its globals, where the module itself may not be loaded here."""
    found = sys.modules.get(module)
    names = vars(found) if found is not None else scope or {}
    file = names.get("__file__")
    return _origin(module, file if isinstance(file, str) else None, found is not None)


def origin_of_module(module: str) -> Origin | None:
    """Whose a module is that need not be loaded; None where there is none of that name."""
    if module in sys.modules:
        return origin_of(module)
    import importlib.util

    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)  # the top package alone: finding below it would import it
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    file = spec.origin
    if file is None and spec.submodule_search_locations:
        file = os.path.join(next(iter(spec.submodule_search_locations)), "__init__.py")
    return _origin(module, None if file in ("built-in", "frozen") else file, True)


@functools.lru_cache(maxsize=4096)
def _origin(module: str, file: str | None, loaded: bool) -> Origin:
    top = module.partition(".")[0]
    if top == "hypernodes":
        from hypernodes._version import __version__

        return Origin("package", "hypernodes", __version__)
    if file is None:
        return PYTHON if loaded and top in sys.stdlib_module_names else USER
    folders = os.path.normpath(file).split(os.sep)
    if "site-packages" in folders or "dist-packages" in folders:
        found = _distribution(top)
        return USER if found is None else Origin("package", *found)
    if top in sys.stdlib_module_names and any(_below(file, folder) for folder in _python_folders()):
        return PYTHON
    return USER


def _below(file: str, folder: str) -> bool:
    return os.path.realpath(file).startswith(folder + os.sep)


@functools.cache
def _python_folders() -> tuple[str, ...]:
    import sysconfig

    return tuple({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})


@functools.cache
def _distribution(top: str) -> tuple[str, str] | None:
    """Name and version of what installed this top-level module; None where nothing says it did."""
    from importlib import metadata

    try:
        likely = metadata.distribution(top)
    except (metadata.PackageNotFoundError, ValueError):
        pass
    else:
        # Reading all metadata takes 100 ms, one record 1 ms; most packages bear the name of their distribution.
        record = likely.read_text("RECORD") or ""
        if f"\n{top}/" in f"\n{record}" or f"\n{top}.py," in f"\n{record}":
            return _named(likely)
    owners = sorted(metadata.packages_distributions().get(top, ()))
    if not owners:
        return None
    found = [_named(metadata.distribution(owner)) for owner in owners]
    return "+".join(name for name, _ in found), "+".join(version for _, version in found)


def _named(distribution: Any) -> tuple[str, str]:
    return str(distribution.metadata["Name"]), str(distribution.version)
