"""Where calls wait until they may pass their gates: threads and coroutines, first come, first served."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from hypernodes._errors import HypernodesError

if TYPE_CHECKING:
    import asyncio

    from hypernodes._clock import Deadline
    from hypernodes._counts import Holdings
    from hypernodes._gate import Gate

__all__ = ["WaitingRoom"]


DEAF = 0.5
"""Seconds that the main thread waits at a time. A signal that strikes just before a wait begins is heard only after it:
CPython then starts to wait with the interrupt already noted."""


class _Waiter:
    """A call that waits. `due` is when it will look again by itself; `granted` says that its gates are taken for it."""

    __slots__ = ("due", "event", "gates", "granted", "loop", "since", "ticket")

    def __init__(
        self, gates: tuple[Gate, ...], ticket: int, event: Any, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.gates, self.ticket, self.event, self.loop = gates, ticket, event, loop
        self.since, self.due, self.granted = time.monotonic(), 0.0, False

    def wake(self) -> None:
        if self.loop is None:
            self.event.set()
            return
        # A loop that is closed has dropped its coroutines; this one leaves as soon as it is collected.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.event.set)


class WaitingRoom:
    """The calls of one run, in one process, that pass gates.

    Calls with the same gates stand in one line; among the first of all lines those who share a gate go in the order in
    which they came. What is given back goes to who waits for it before anybody new.
    """

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self.inside = 0
        self._lines: dict[tuple[Gate, ...], deque[_Waiter]] = {}
        self._tickets = count()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits, and nothing is held."""
        return not self.inside and not self._lines

    def enter(self, gates: tuple[Gate, ...], node: str, deadline: Deadline | None) -> None:
        """Wait until the gates may be passed, and pass them. Raises `PipelineTimeoutError` when time is up before."""
        if self._passes(gates):
            return
        event = threading.Event()
        longest = DEAF if threading.current_thread() is threading.main_thread() else math.inf
        with self._waiting(gates, event, None) as waiter:
            while (seconds := self._look(waiter)) is not None:
                seconds = min(_within(seconds, waiter, node, deadline), longest)
                event.wait(None if seconds == math.inf else seconds)
                event.clear()

    async def enter_async(self, gates: tuple[Gate, ...], node: str, deadline: Deadline | None) -> None:
        """The same on the running event loop, which is not blocked."""
        if self._passes(gates):
            return
        import asyncio

        event, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._waiting(gates, event, loop) as waiter:
            while (seconds := self._look(waiter)) is not None:
                seconds = _within(seconds, waiter, node, deadline)
                alarm = None if seconds == math.inf else loop.call_later(seconds, event.set)
                try:
                    await event.wait()
                finally:
                    if alarm is not None:
                        alarm.cancel()
                event.clear()

    def leave(self, gates: tuple[Gate, ...]) -> None:
        """Give back what a call held."""
        with self._lock:
            self._give(gates)
            self._move()

    def close(self) -> None:
        """Let nobody in any more. Who still waits, left behind by a call that is over, ends with `HypernodesError`."""
        with self._lock:
            self._closed = True
            self.holdings.close()
            for line in self._lines.values():
                for waiter in line:
                    waiter.wake()

    def _passes(self, gates: tuple[Gate, ...]) -> bool:
        """Pass at once, where nobody waits and nothing stands in the way."""
        with self._lock:
            if self._lines or self._closed or self.holdings.take(gates, time.monotonic()) is not None:
                return False
            self.inside += 1
            return True

    def _look(self, waiter: _Waiter) -> float | None:
        """None when the waiter may pass, else the seconds until it should look again."""
        with self._lock:
            if not waiter.granted:
                if self._closed:
                    raise HypernodesError("the call that this node ran for is over")
                waiter.due = math.inf
                self._move(waiter)
            return None if waiter.granted else max(waiter.due - time.monotonic(), 0.0)

    @contextlib.contextmanager
    def _waiting(
        self, gates: tuple[Gate, ...], event: Any, loop: asyncio.AbstractEventLoop | None
    ) -> Iterator[_Waiter]:
        """Stand in line for the block, and step out of it where waiting ends with an exception."""
        waiter = _Waiter(gates, next(self._tickets), event, loop)
        with self._lock:
            self._lines.setdefault(gates, deque()).append(waiter)
        try:
            yield waiter
        except BaseException:
            with self._lock:
                if waiter.granted:
                    self._give(waiter.gates)
                else:
                    self._step_out(waiter)
                self._move()
            raise

    def _step_out(self, waiter: _Waiter) -> None:
        line = self._lines[waiter.gates]
        line.remove(waiter)
        if not line:
            del self._lines[waiter.gates]

    def _give(self, gates: tuple[Gate, ...]) -> None:
        self.inside -= 1
        if not self._closed:
            self.holdings.give(gates)

    def _move(self, looking: _Waiter | None = None) -> None:
        """Let in whoever may pass now; have the first of each line look again in time. `looking` is awake."""
        if not self._lines or self._closed:
            return
        barred: set[str] = set()
        heads = sorted((line[0] for line in self._lines.values()), key=_ticket)
        while heads:
            head = heads.pop(0)
            keys = {gate.key for gate in head.gates}
            pause = math.inf
            if barred.isdisjoint(keys):
                taken = self.holdings.take(head.gates, head.since)
                if taken is None:
                    self._let_in(head, looking)
                    line = self._lines.get(head.gates)
                    if line:
                        heads.append(line[0])
                        heads.sort(key=_ticket)
                    continue
                pause = taken
            barred |= keys
            due = time.monotonic() + pause
            if due < head.due:
                head.due = due
                if head is not looking:
                    head.wake()

    def _let_in(self, waiter: _Waiter, looking: _Waiter | None) -> None:
        self._step_out(waiter)
        waiter.granted = True
        self.inside += 1
        if waiter is not looking:
            waiter.wake()


def _ticket(waiter: _Waiter) -> int:
    return waiter.ticket


def _within(seconds: float, waiter: _Waiter, node: str, deadline: Deadline | None) -> float:
    """The seconds, cut to what is left; raises `PipelineTimeoutError` where nothing is left."""
    if deadline is None:
        return seconds
    left = deadline.at - time.time()
    if left <= 0:
        raise deadline.error(f"node '{node}' was waiting for {' and '.join(gate.name for gate in waiter.gates)}")
    return min(seconds, left, threading.TIMEOUT_MAX)
