"""A task that nobody waits for any more is stopped on its worker: Dask itself lets it run to its end.

The scheduler tells the worker, whether the program cancelled the task or is gone itself. Python code is stopped by an
exception in its thread, coroutines by one in their event loop. Code that does not come back from C cannot be reached
by that: where the cluster is the backend's own, its worker is ended after a grace, and its nanny starts another.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributed import WorkerPlugin, get_worker

from hypernodes.plugin import Stoppable

__all__ = ["run_stoppable"]

INSIST = 0.5
"""Seconds for an event loop to take a turn before what keeps it from that is stopped."""
GRACE = 1.0
"""Seconds for code to leave before the worker is ended, where it may be."""
_PLUGIN = "hypernodes-stopping"

T = TypeVar("T")


@dataclass(eq=False)
class _Ticket:
    may_end_worker: bool
    work: Stoppable = field(default_factory=Stoppable)


_tickets: dict[str, _Ticket] = {}


def run_stoppable(key: str, work: Callable[[], T], *, may_end_worker: bool) -> T:
    """Do the work of this task, which may be stopped: raises `Stopped` then."""
    worker, ticket = get_worker(), _Ticket(may_end_worker)
    _watch(worker)
    _tickets[key] = ticket
    try:
        if _is_cancelled(worker, key):  # before there was a ticket
            ticket.work.stop()
        return ticket.work.run(work)
    finally:
        _tickets.pop(key, None)


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
        ticket = _tickets.get(key)
        if ticket is None or not _is_cancelled(self._worker, key) or not ticket.work.stop():
            return
        self._worker.loop.call_later(INSIST, ticket.work.insist)
        if ticket.may_end_worker and self._worker.nanny is not None:
            self._worker.loop.call_later(GRACE, self._end, key, ticket)

    def _end(self, key: str, ticket: _Ticket) -> None:
        if _tickets.get(key) is ticket:
            os.kill(os.getpid(), signal.SIGKILL)


def _is_cancelled(worker: Any, key: str) -> bool:
    task = worker.state.tasks.get(key)
    return task is not None and task.state == "cancelled"
