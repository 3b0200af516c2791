"""Work in a worker's thread that another thread may stop, and the moments in which nothing may strike it.

Python can raise an exception in another thread, at whatever that does next. Inside an event loop that may lose a task
for which closing the loop waits for ever; while a loop is made or closed, it leaves sockets open. So a thread says
when it is at a loop: the loop is asked then to raise between two of its steps.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Runner

__all__ = ["Stoppable", "Stopped", "at_loop", "at_work", "start", "uninterrupted"]

T = TypeVar("T")

uninterrupted = threading.RLock()
"""Held while a thread or an event loop is made, while a traceback is written for its way home, and to strike a thread.
CPython 3.11 makes the state of a new thread under the identity of the thread that starts it: so the exception may
strike the new one, which then never tells that it runs, and the other waits for that for ever. Who writes a traceback
opens source files, and leaves one open when struck. An exception that is on its way when the lock is taken strikes at
the first call under it."""

_at_work: dict[int, Stoppable] = {}
"""By the identities of their threads."""


class Stopped(KeyboardInterrupt):
    """Nobody waits for this work any more. A KeyboardInterrupt, which event loops and careful code let pass."""


class Stoppable:
    """Work of the thread that makes this, which any other thread may `stop`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._begun = self._over = self._asked = self._raised = False
        self._loop: AbstractEventLoop | None = None
        self._closing = False
        self.open: set[Runner] = set()
        """Event loops that the work has opened and not closed yet."""

    def run(self, work: Callable[[], T]) -> T:
        """Do the work, once, and give its result. Raises `Stopped` where it was stopped, also before it began.

        On return nothing strikes the thread any more, and no event loop is open that the work could not close.
        """
        from hypernodes._loops import close_abandoned_loops

        try:
            self._begin()
            result = work()
        except Exception as error:
            if self._asked:
                raise Stopped from error
            raise
        finally:
            while True:  # written out, as the exception may strike at the entry of any function
                try:
                    self._end()
                    break
                except Stopped:
                    continue
            close_abandoned_loops(self.open)
        if self._asked:
            raise Stopped
        return result

    def stop(self) -> bool:
        """Raise `Stopped` in the work; False when it is over or was stopped before."""
        with uninterrupted:
            if self._over or self._asked:
                return False
            self._asked = True
            if self._begun and self._loop is None:
                self._strike()
            elif self._loop is not None and not self._closing:
                self._ask(self._loop)
            return True

    def insist(self) -> None:
        """Raise it in work that was stopped and keeps its event loop from taking a turn, or does not end closing it."""
        with uninterrupted:
            if not self._asked or not self._begun or self._over or self._raised:
                return
            if self._loop is not None and self._closing:
                self._ask(self._loop)
            else:
                self._strike()

    def enter(self, loop: AbstractEventLoop, closing: bool) -> None:
        """From here on this thread runs the loop, or closes it: nothing strikes."""
        with uninterrupted:
            self._loop, self._closing = loop, closing

    def leave(self) -> None:
        """The thread is through with the loop. Raises what would have struck."""
        with uninterrupted:
            self._loop = None
        if self._asked:
            self._raise_here()

    def _begin(self) -> None:
        with uninterrupted:
            if self._asked:
                raise Stopped
            self._begun = True
            _at_work[self._thread] = self

    def _ask(self, loop: AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._raise_here)

    def _raise_here(self) -> None:
        with uninterrupted:
            if self._over or self._raised:
                return
            self._raised = True
        raise Stopped

    def _strike(self) -> None:
        self._raised = True
        _raise_in(self._thread, Stopped)

    def _end(self) -> None:
        with uninterrupted:
            self._over = True
            _at_work.pop(self._thread, None)
            _raise_in(self._thread, None)


def at_work() -> Stoppable | None:
    """What this thread does that may be stopped."""
    return _at_work.get(threading.get_ident())


def at_loop(loop: AbstractEventLoop, function: Callable[[], T], *, closing: bool = False) -> T:
    """Call the function, which runs this thread's loop or closes it."""
    work = at_work()
    if work is None:
        return function()
    try:
        work.enter(loop, closing)
        return function()
    finally:
        work.leave()


def start(thread: threading.Thread) -> None:
    """Start a thread under the lock."""
    with uninterrupted:
        thread.start()


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have Python raise an exception in a thread as soon as that runs Python code; None takes back what it has not."""
    found = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), found)
