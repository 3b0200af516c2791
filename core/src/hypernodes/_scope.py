"""What belongs to one call of a pipeline, wherever its nodes run: resources that were built, limits that are counted.

A scope travels as a value of each row. In the process of the call it leads to what that call keeps, which is closed
with the call; in any other process to what that process keeps for itself, which is closed at its end.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

__all__ = ["Keep", "Scope", "keep_of", "opened"]

_serials = count(1)
_LOCKS = os.name == "posix"
"""Windows has no `flock`; there every process counts for itself."""


class Scope(NamedTuple):
    """One call: its id, and the folder in which processes of this machine meet for its sake, `""` for none."""

    run: str
    folder: str = ""


class Keep:
    """Things made on first use and closed together, the latest first."""

    def __init__(self) -> None:
        self._made: dict[Any, tuple[Any, Callable[[Any], object]]] = {}
        self._making: dict[Any, threading.RLock] = {}
        self._lock = threading.Lock()
        self._closed = False

    def once(self, key: Any, make: Callable[[], Any], close: Callable[[Any], object]) -> Any:
        """What `make` gave the first time; others who ask meanwhile wait, and try themselves where it raised."""
        found = self._made.get(key)
        if found is not None:
            return found[0]
        with self._lock:
            making = self._making.setdefault(key, threading.RLock())
        with making:
            found = self._made.get(key)
            if found is None:
                found = self._made[key] = (make(), close)
        return found[0]

    def close(self) -> None:
        """Close everything; the first error is raised when all had their turn."""
        with self._lock:
            made, self._made, self._closed = list(self._made.values()), {}, True
        first: BaseException | None = None
        for value, close in reversed(made):
            try:
                close(value)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first


_open: dict[str, Keep] = {}
_process: Keep | None = None
_lock = threading.Lock()


@contextmanager
def opened(*, meets: bool = False) -> Iterator[Scope]:
    """A scope for the length of one call. With `meets` it has a folder, where the system can lock files.

    Nobody but this user may look into the folder. It goes with the call; a process that comes later finds none.
    """
    run = f"{os.getpid():x}-{next(_serials):x}-{os.urandom(6).hex()}"
    scope = Scope(run, _folder(run) if meets and _LOCKS else "")
    keep = _open[run] = Keep()
    try:
        if scope.folder:
            os.mkdir(scope.folder, 0o700)
        yield scope
    finally:
        del _open[run]
        try:
            keep.close()
        finally:
            if scope.folder:
                _remove(scope.folder)


def _folder(run: str) -> str:
    import tempfile  # 5 ms of importing, for what few calls need

    return os.path.join(tempfile.gettempdir(), f"hypernodes-{run}")


def _remove(folder: str) -> None:
    """Remove the folder under another name, so that a worker on its way out cannot put a file into it meanwhile."""
    import shutil

    over = f"{folder}-over"
    try:
        os.rename(folder, over)
    except FileNotFoundError:
        return
    shutil.rmtree(over, ignore_errors=True)


def keep_of(scope: Scope) -> Keep:
    """What the call keeps where it is this process's, else what this process keeps."""
    global _process
    found = _open.get(scope.run)
    if found is not None:
        return found
    with _lock:
        if _process is None:
            _process = Keep()
            atexit.register(_process.close)
        return _process


def _forget() -> None:
    """A forked child owns nothing that its parent made."""
    global _process
    _process = None
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
