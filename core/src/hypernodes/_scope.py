"""What belongs to one call of a pipeline, wherever its nodes run: resources that were built, limits that are counted.

A scope travels as a value of each row. In the process of the call it leads to what that call keeps, which is closed
with the call; in any other process to what that process keeps for itself, which is closed at its end.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import NamedTuple

from hypernodes._errors import PlaceError, ResourceError
from hypernodes._keep import Held, Keep, log

__all__ = ["Scope", "SharedScope", "keep_of", "keeps_on", "opened"]

_serials = count(1)
_LOCKS = os.name == "posix"
"""Windows has no `flock`; there every process counts for itself."""


class Scope(NamedTuple):
    """One call: its id, and the folder in which processes of this machine meet for its sake, `""` for none."""

    run: str
    folder: str = ""


_open: dict[str, Keep] = {}
_late: list[Keep] = []
_process: Keep | None = None
_token = os.urandom(6).hex()


class SharedScope:
    """One scope for many calls, one after another or at once: what belongs to a call belongs to all of them.

    Resources are built once for them, and limits count over them. For whoever feeds a map piece by piece, a call for
    each. `close` closes what they built.
    """

    def __init__(self) -> None:
        self._scope, self._keep = _begin(False)
        self._lock = threading.Lock()

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Calls of pipelines in this block, and in threads that take over its context variables, open no scope."""
        token = _shared.set(self)
        try:
            yield
        finally:
            _shared.reset(token)

    def scope(self, *, meets: bool) -> Scope:
        """The scope as a call needs it; its folder is made by the first that needs one."""
        with self._lock:
            if meets and not self._scope.folder and _LOCKS:
                folder = _folder(self._scope.run)
                os.mkdir(folder, 0o700)
                self._scope = self._scope._replace(folder=folder)
            return self._scope

    def close(self) -> None:
        """Close what the calls built; the first thing that could not be closed is raised. Twice is once."""
        with self._lock:
            if self._scope.run in _open:
                _raise(_end(self._scope, self._keep))


_shared: ContextVar[SharedScope | None] = ContextVar("hypernodes_shared_scope", default=None)


class opened:
    """A scope for the length of one call, or the one that it shares with others. What it kept is closed at the end,
    however the call ends.

    What could not be closed is raised where the call succeeded, and noted with the call's own error else. With `meets`
    it has a folder, where the system can lock files. Nobody but this user may look into the folder. It goes with the
    call; a process that comes later finds none. In an `async with` what was built on the running event loop is closed
    on it, too.
    """

    # A class, as those of contextlib set the traceback of what they let through, and an error may forbid that.

    def __init__(self, *, meets: bool = False) -> None:
        shared = _shared.get()
        self.shared = shared is not None
        self.scope, self.keep = _begin(meets) if shared is None else (shared.scope(meets=meets), Keep())

    def __enter__(self) -> Scope:
        if self.scope.folder and not self.shared:
            try:
                os.mkdir(self.scope.folder, 0o700)
            except BaseException:
                _end(self.scope, self.keep)
                raise
        return self.scope

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._over(error, [] if self.shared else _end(self.scope, self.keep))

    async def __aenter__(self) -> Scope:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._over(error, [] if self.shared else await _aend(self.scope, self.keep))

    @staticmethod
    def _over(error: BaseException | None, faults: list[BaseException]) -> None:
        if error is None:
            _raise(faults)
        else:
            _failed(error, faults)


def _begin(meets: bool) -> tuple[Scope, Keep]:
    run = f"{_token}-{os.getpid():x}-{next(_serials):x}"
    scope = Scope(run, _folder(run) if meets and _LOCKS else "")
    keep = _open[run] = Keep()
    return scope, keep


def _end(scope: Scope, keep: Keep) -> list[BaseException]:
    del _open[scope.run]
    try:
        faults = keep.close()
    finally:
        _over(scope, keep)
    return faults


async def _aend(scope: Scope, keep: Keep) -> list[BaseException]:
    del _open[scope.run]
    try:
        faults = await keep.aclose()
    finally:
        _over(scope, keep)
    return faults


def _over(scope: Scope, keep: Keep) -> None:
    """What somebody still uses is closed by the last of them, at the latest when the process ends."""
    if scope.folder:
        _remove(scope.folder)
    _late[:] = [one for one in _late if one.in_use]
    if keep.in_use:
        _at_exit()
        _late.append(keep)


def _failed(error: BaseException, faults: list[BaseException]) -> None:
    if isinstance(error, ResourceError):
        error.ends = ""
    if isinstance(error, GeneratorExit):  # whoever closes an iterator has no error of the call's to look at
        _raise(faults)
    for fault in faults:
        if isinstance(fault, KeyboardInterrupt):
            raise fault
        try:
            error.add_note(f"besides, {fault}")
        except (AttributeError, TypeError):
            # A class of exceptions may forbid new attributes; then the log is told.
            log(fault)


def _raise(faults: list[BaseException]) -> None:
    if faults:
        first = next((fault for fault in faults if not isinstance(fault, Exception)), faults[0])
        for other in faults:
            if other is not first:
                first.add_note(f"besides, {other}")
        raise first


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
    """What the call keeps where it is this process's, else what this process keeps.

    Raises `PlaceError` where it was a call of this process, and is over.
    """
    global _process
    found = _open.get(scope.run)
    if found is not None:
        return found
    if scope.run.startswith(_token):
        raise PlaceError("the call that this node belongs to is over")
    found = _process
    if found is None:
        found = _process = _process or Keep()
        _at_exit()
    return found


def keeps_on(loop: object) -> list[tuple[Keep, Held]]:
    """What was built on this event loop, the latest first, taken from who kept it: the loop is about to end."""
    everybody = [*_open.values(), *_late, *([_process] if _process is not None else [])]
    return [(keep, held) for keep in everybody for held in keep.take(loop)]


_exits = False


def _at_exit() -> None:
    global _exits
    if not _exits:
        _exits = True
        atexit.register(_close_all)


def _close_all() -> None:
    for keep in [*_late, *([_process] if _process is not None else [])]:
        keep.end()


def _forget() -> None:
    """A forked child owns nothing that its parent made, and is another process to whoever asks."""
    global _process, _token
    _process, _token = None, os.urandom(6).hex()
    _open.clear()
    _late.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
