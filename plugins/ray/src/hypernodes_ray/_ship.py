"""The user's own modules: sent by value to clusters that cannot see this machine's folders."""

from __future__ import annotations

import sys
import sysconfig
from types import ModuleType

from hypernodes_ray._connection import Wanted

__all__ = ["Shipped"]


class Shipped:
    """While it is open, functions and classes of the user's own modules are pickled by value.

    Those are modules that lie neither in Python's own folders nor where packages are installed. It is done for clusters
    that are reached by an address, unless a `runtime_env` brings folders or modules along.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._registered: list[ModuleType] = []
        env = wanted.runtime_env or {}
        if wanted.address is not None and not {"working_dir", "py_modules"} & env.keys():
            self._register()

    def _register(self) -> None:
        from cloudpickle import list_registry_pickle_by_value, register_pickle_by_value

        known = set(list_registry_pickle_by_value())
        roots = {name.partition(".")[0] for name, module in list(sys.modules.items()) if _is_users(name, module)}
        for name in sorted(roots - known):
            module = sys.modules.get(name)
            if module is not None:
                register_pickle_by_value(module)
                self._registered.append(module)

    def close(self) -> None:
        from cloudpickle import list_registry_pickle_by_value, unregister_pickle_by_value

        known = set(list_registry_pickle_by_value())
        for module in self._registered:
            if module.__name__ in known:
                unregister_pickle_by_value(module)
        self._registered.clear()


def _is_users(name: str, module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or name.partition(".")[0].startswith(("hypernodes", "__")):
        return False
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(folder and file.startswith(folder) for folder in folders)
