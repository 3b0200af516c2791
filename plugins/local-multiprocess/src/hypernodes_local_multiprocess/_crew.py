"""The workers of a pool and the zygote they come from: starting, listening, burying."""

from __future__ import annotations

import itertools
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from hypernodes import PlaceError, RemoteError, WorkerLostError
from hypernodes_local_multiprocess import _ending, _frames
from hypernodes_local_multiprocess._frames import Message
from hypernodes_local_multiprocess._handle import Call, WorkerHandle
from hypernodes_local_multiprocess._starter import Starter
from hypernodes_local_multiprocess._worker import NO_TICKET

__all__ = ["Crew", "Outcome"]

_START_ATTEMPTS = 10  # deaths in a row before any worker was ready: then the crew gives up
_SEND_ATTEMPTS = 100  # a call that so many workers died with before they began it is not sent once more
_SLACK = 0.5  # seconds after the grace for the zygote to kill and go, before it is told to do so at once

Outcome = list[memoryview] | Exception


class Crew:
    """Keeps `size` workers alive and moves calls between them and the pool. Used by one thread.

    Calls that a worker gave back are put in front of `pending`; calls that ended are passed to `settle`.
    """

    def __init__(
        self,
        size: int,
        target: str,
        selector: selectors.BaseSelector,
        pending: deque[Call],
        settle: Callable[[Call, Outcome], None],
    ) -> None:
        self._size = size
        self._target = target
        self._selector = selector
        self._pending = pending
        self._settle = settle
        self._starter: Starter | None = None
        self._clogged: set[socket.socket] = set()
        self._workers: dict[int, WorkerHandle] = {}
        self._serials = itertools.count(1)
        self._tickets = itertools.count(1)
        self._failed_starts = 0
        self._short_staffed = True
        self.fault: str | None = None
        """Why there can be no workers; once set it stays."""
        self.pids: tuple[int, ...] = ()
        """Process ids of the workers that are ready for calls."""

    @property
    def busy(self) -> bool:
        """Whether any worker has calls."""
        return any(worker.calls for worker in self._workers.values())

    def staff(self) -> None:
        """Start what is missing of the zygote and its workers."""
        if not self._short_staffed or self.fault is not None:
            return
        self._short_staffed = False
        try:
            if self._starter is None:
                self._starter = Starter(self._target)
                self._selector.register(self._starter.sock, selectors.EVENT_READ, self._on_starter)
            for _ in range(self._size - sum(not worker.leaving for worker in self._workers.values())):
                worker = WorkerHandle(next(self._serials))
                self._workers[worker.serial] = worker
                self._selector.register(worker.sock, selectors.EVENT_READ, partial(self._on_worker, worker))
                self._starter.spawn(worker.serial, *worker.take_far_ends())
            self._watch(self._starter.sock, self._starter.outbox.flush())
        except (PlaceError, OSError) as error:
            self._short_staffed = True
            if not self._workers:  # else the others go on, and this is tried again at the next turn
                self.give_up(f"worker processes cannot be started: {error}")

    def feed(self) -> None:
        """Give out pending calls, to the least loaded first; when none is left, idle workers take from loaded ones."""
        workers = self._workers.values()
        while self._pending:
            worker = max(workers, key=WorkerHandle.room, default=None)
            if worker is None or worker.room() <= 0:
                return
            self._give(worker, self._pending.popleft())
        loaded = [worker for worker in workers if len(worker.calls) > 1]
        if loaded:
            idle = [worker for worker in workers if not worker.calls and worker.room()]
            for worker, other in zip(loaded, idle, strict=False):
                if (call := worker.take_back()) is not None:
                    self._give(other, call)

    def give_up(self, fault: str) -> None:
        """There can be no workers: end what is left of them, and keep the reason."""
        self.fault = self.fault or fault
        self.dismiss(lambda: True)

    def say_farewell(self, impatient: Callable[[], bool]) -> bool:
        """Let idle workers run their exit functions, for a few seconds at most; False when that was not enough."""
        deadline = time.monotonic() + _ending.FAREWELL
        for worker in self._workers.values():
            worker.part()
        while any(worker.pid for worker in self._workers.values()) and not impatient():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.turn(left)
        return True

    def turn(self, timeout: float | None = None) -> None:
        """Wait for news of any kind, at most `timeout` seconds, and act on it."""
        for key, _ in self._selector.select(timeout):
            if key.fileobj.fileno() >= 0:  # type: ignore[union-attr]  # an earlier event of this turn may have closed it
                key.data()

    def dismiss(self, impatient: Callable[[], bool]) -> list[Call]:
        """End every process, wait until they are gone, and return the calls that they had.

        The workers are asked to, and killed when the grace is over or somebody is impatient.
        """
        if self._starter is not None:
            if not impatient():
                self._wait_for_end(self._starter, impatient)
            self._unregister(self._starter.sock)
            self._starter.close()
            self._starter = None
        calls = [call for worker in self._workers.values() for call in worker.calls.values()]
        for worker in self._workers.values():
            self._forget(worker)
        self._workers.clear()
        self._publish()
        if self.fault is not None:
            for call in calls:
                self._settle(call, PlaceError(self.fault))
            return []
        return calls

    def _wait_for_end(self, starter: Starter, impatient: Callable[[], bool]) -> None:
        alive = True

        def listen() -> None:
            nonlocal alive
            alive = starter.events()[1]

        for worker in self._workers.values():
            self._unregister(worker.sock)  # what it still says is for nobody
        self._unregister(starter.sock)
        self._selector.register(starter.sock, selectors.EVENT_READ, listen)
        starter.hang_up()
        deadline = time.monotonic() + _ending.GRACE + _SLACK
        while alive and not impatient() and (left := deadline - time.monotonic()) > 0:
            self.turn(left)

    def _give(self, worker: WorkerHandle, call: Call) -> None:
        if not call.sent and not call.future.set_running_or_notify_cancel():
            return
        try:
            worker.give(next(self._tickets), call)
        except OSError as error:
            self._settle(call, PlaceError(f"a call could not be sent to a worker process: {error}"))
        else:
            self._watch(worker.sock, worker.outbox.flush())

    def _on_starter(self) -> None:
        assert self._starter is not None
        events, alive = self._starter.events()
        for event in events:
            if "ended" in event:
                worker, pid, status = self._workers.pop(event["ended"]), event["pid"], event["status"]
                fate = f"the worker process {pid} {_fate(status)}"
                self._bury(worker, fate, pid, status)
                if worker.pid is None:
                    self._count_failed_start(f"{fate}\n{worker.last_words}")
            elif "unforked" in event:
                self._bury(self._workers.pop(event["unforked"]), event["why"])
                self._count_failed_start(event["why"])
            else:
                self.give_up(f"the worker processes cannot import {self._target!r}:\n{event['broken']}")
            if self.fault is not None:
                return
        if alive:
            self._watch(self._starter.sock, self._starter.outbox.flush())
            return
        self._unregister(self._starter.sock)
        fate = f"the process that starts workers {_fate(self._starter.close())}"
        self._starter = None
        while self._workers:  # they died with it
            _, worker = self._workers.popitem()
            self._bury(worker, fate, worker.pid)
        self._count_failed_start(fate)

    def _on_worker(self, worker: WorkerHandle) -> None:
        messages, alive = worker.receive()
        for message in messages:
            alive = self._on_message(worker, message) and alive
        if alive:
            self._watch(worker.sock, worker.outbox.flush())
            return
        # It died, or hung up and is of no use. How it ended is known when the zygote has reaped it.
        worker.leaving = True
        self._unregister(worker.sock)
        self._publish()
        if self._starter is not None:
            self._starter.kill(worker.serial)

    def _on_message(self, worker: WorkerHandle, message: Message) -> bool:
        """Act on a message; False when it makes no sense, as user code wrote to the worker's socket."""
        if message.kind == _frames.READY:
            worker.pid = message.ticket
            self._failed_starts = 0
            self._publish()
            return True
        if message.ticket == NO_TICKET and message.kind == _frames.ERROR:
            worker.last_words = str(message.frames[-1], "utf-8")
            return True
        call = worker.answered(message)
        if call is None:
            return False
        if message.lost is not None:
            text = f"a result of the worker process {worker.pid} could not be received: {message.lost}"
            self._settle(call, PlaceError(text))
        elif message.kind == _frames.ERROR:
            type_name, text, traceback_text = (str(frame, "utf-8") for frame in message.frames)
            self._settle(call, RemoteError(type_name, text, traceback_text))
        else:
            self._settle(call, message.frames)
        if message.kind == _frames.LAST_RESULT:  # it leaves by itself, and begins nothing more
            worker.leaving = True
            self._pending.extendleft(reversed(worker.unbegun()))
            self._publish()
        return True

    def _bury(self, worker: WorkerHandle, fate: str, pid: int | None = None, status: int | None = None) -> None:
        """Take in what an ended worker still sent; what it had not begun goes to others, what it ran is lost."""
        messages, _ = worker.receive(rest=True)
        for message in messages:
            self._on_message(worker, message)
        if worker.last_words:
            fate = f"{fate}, as its last words tell:\n{worker.last_words}"
        for call in reversed(worker.unbegun()):
            if call.sent < _SEND_ATTEMPTS:
                self._pending.appendleft(call)
            else:
                self._settle(call, _lost(f"{fate} before it began this call, the {call.sent}th in a row", pid, status))
        for call in worker.calls.values():
            self._settle(call, _lost(f"{fate} while it ran this call", pid, status))
        self._forget(worker)
        self._publish()

    def _count_failed_start(self, why: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _START_ATTEMPTS:
            self.give_up(f"no worker process could be started in {_START_ATTEMPTS} attempts; the last: {why}")

    def _forget(self, worker: WorkerHandle) -> None:
        self._unregister(worker.sock)
        worker.close()

    def _publish(self) -> None:
        self._short_staffed = True
        self.pids = tuple(w.pid for w in self._workers.values() if w.pid is not None and not w.leaving)

    def _watch(self, sock: socket.socket, empty: bool) -> None:
        """Ask to be told when a socket takes more, as long as something waits to be sent on it."""
        if empty and sock not in self._clogged:
            return
        (self._clogged.discard if empty else self._clogged.add)(sock)
        wanted = selectors.EVENT_READ if empty else selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.modify(sock, wanted, self._selector.get_key(sock).data)

    def _unregister(self, sock: socket.socket) -> None:
        self._clogged.discard(sock)
        if sock in self._selector.get_map():
            self._selector.unregister(sock)


def _fate(status: int | None) -> str:
    """How a process ended, as the rest of a sentence."""
    if status is None:
        return "ended"
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:  # a real-time signal has no name
        name = ""
    return f"was killed by signal {-status}{name}"


def _lost(text: str, pid: int | None, exitcode: int | None) -> WorkerLostError:
    """The error of one call, with the attributes `pid` and `exitcode`; the latter is negative for a signal."""
    if exitcode == -signal.SIGKILL:
        text += "; when nobody killed it on purpose, the system most likely ran out of memory"
    error = WorkerLostError(text)
    error.__dict__.update(pid=pid, exitcode=exitcode)
    return error
