"""A task that nobody waits for any more is stopped on its worker: Dask itself lets it run to its end.

The scheduler tells the worker, whether the program cancelled the task or is gone itself. Python code is stopped by an
exception in its thread. Code that does not come back from C cannot be reached by that: where the cluster is the
backend's own, its worker is ended after a grace, and its nanny starts another.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import WorkerPlugin, get_worker

from hypernodes.plugin import uninterrupted

__all__ = ["Stopped", "stoppable"]

GRACE = 1.0
"""Seconds for code to leave before the worker is ended, where it may be."""
_PLUGIN = "hypernodes-stopping"


class Stopped(KeyboardInterrupt):
    """Nobody waits for this task any more. A KeyboardInterrupt, which event loops and careful code let pass."""


@dataclass
class _Ticket:
    thread: int
    may_end_worker: bool
    stopped: bool = False


_tickets: dict[str, _Ticket] = {}
_lock = threading.Lock()


@contextmanager
def stoppable(key: str, *, may_end_worker: bool) -> Iterator[None]:
    """In this block the task may be stopped: then `Stopped` is raised in it, or right at its end."""
    ticket, worker = _Ticket(threading.get_ident(), may_end_worker), get_worker()
    _watch(worker)
    with _lock:
        _tickets[key] = ticket
    try:
        if _is_cancelled(worker, key):  # before there was a ticket
            raise Stopped
        yield
    finally:
        _leave(key, ticket)


def _leave(key: str, ticket: _Ticket) -> None:
    """From here on the exception can not strike this thread any more, wherever it strikes before."""
    while True:
        try:
            with _lock:
                _tickets.pop(key, None)
                _raise_in(ticket.thread, None)
            return
        except Stopped:
            continue


def _watch(worker: Any) -> None:
    """Have this worker tell of tasks that are cancelled."""
    if _PLUGIN not in worker.plugins:
        worker.loop.add_callback(_add_plugin, worker)


async def _add_plugin(worker: Any) -> None:
    if _PLUGIN not in worker.plugins:
        await worker.plugin_add(_Stopping(), _PLUGIN)


class _Stopping(WorkerPlugin):  # type: ignore[misc]
    """Hears of a worker's tasks; one that is cancelled while it runs is stopped."""

    def setup(self, worker: Any) -> None:
        self._worker = worker
        for key in list(_tickets):
            self._look(key)

    def transition(self, key: Any, *_: Any, **__: Any) -> None:
        # What is told is what the scheduler wishes for, "released"; what became of it is the task's state.
        if key in _tickets:
            self._look(key)

    def _look(self, key: str) -> None:
        if _is_cancelled(self._worker, key):
            self._stop(key)

    def _stop(self, key: str) -> None:
        with uninterrupted, _lock:
            ticket = _tickets.get(key)
            if ticket is None or ticket.stopped:
                return
            ticket.stopped = True
            _raise_in(ticket.thread, Stopped)
        if ticket.may_end_worker and self._worker.nanny is not None:
            self._worker.loop.call_later(GRACE, self._end, key)

    def _end(self, key: str) -> None:
        if key in _tickets:
            os.kill(os.getpid(), signal.SIGKILL)


def _is_cancelled(worker: Any, key: str) -> bool:
    task = worker.state.tasks.get(key)
    return task is not None and task.state == "cancelled"


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have Python raise an exception in a thread as soon as that runs Python code; None takes back what it has not."""
    found = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), found)
