"""The thread that runs a pool: it alone touches sockets, workers and calls, so that nothing needs a lock."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import selectors
import signal
import socket
import threading
from collections import deque
from concurrent.futures import CancelledError
from enum import IntEnum

from hypernodes import PlaceError
from hypernodes_local_multiprocess._crew import Crew, Outcome
from hypernodes_local_multiprocess._handle import Call

__all__ = ["Closing", "Manager"]

_EXIT_PATIENCE = 10.0  # seconds that the end of the interpreter waits for the thread

_log = logging.getLogger(__name__)


class Closing(IntEnum):
    """How far a pool is on its way out; it only ever goes up."""

    NO = 0
    WHEN_DONE = 1
    NOW = 2
    """Workers are asked to end, whatever they run, and killed after a short grace."""
    AT_ONCE = 3
    """Workers are killed."""


class Manager:
    """Takes calls from any thread, gives them to a crew, settles their futures, until it is told to close.

    Other threads use `post`, `close`, `wait`, `hurry` and `pids` alone.
    """

    def __init__(self, size: int, target: str) -> None:
        # Reentrant, as the garbage collector may close a forgotten pool in the middle of `post`.
        self._door = threading.RLock()
        self._posted: deque[Call] | None = deque()
        self._closing = Closing.NO
        self._cancel = False
        self._owner = os.getpid()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        self._pending: deque[Call] = deque()
        self._settled: deque[tuple[Call, Outcome]] = deque()
        self._crew = Crew(size, target, self._selector, self._pending, self._settle)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hypernodes-pool", daemon=True)
        self._thread.start()
        # Runs before daemon threads are stopped, so that this one can still see to the end of its processes.
        atexit.register(self._at_exit)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready for calls."""
        return self._crew.pids

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a forked copy of the one that made the pool."""
        return os.getpid() != self._owner

    def post(self, call: Call) -> bool:
        """Hand a call in; False when the pool is closing."""
        with self._door:
            if self._posted is None or self._closing:
                return False
            self._posted.append(call)
            self._wake()
        return True

    def close(self, how: Closing, *, cancel: bool = False) -> None:
        """Ask the thread to end, without waiting."""
        if self.is_foreign:
            return
        with self._door:
            self._closing = max(self._closing, how)
            self._cancel = self._cancel or cancel
            if self._posted is not None:
                self._wake()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until thread and processes are gone; at once in the callback of a future, which they wait for.

        An interrupt while workers have their grace ends it.
        """
        if self.is_foreign or threading.current_thread() is self._thread:
            return
        # Not by `join`: an interrupt in it makes Python take the thread for ended (bpo-45274), and the next one return.
        try:
            self._over.wait(timeout)
        except BaseException:
            self.hurry(timeout)
            raise
        if self._over.is_set():
            self._thread.join(timeout)

    def hurry(self, timeout: float | None = None) -> None:
        """End the grace of workers that are on their way out, and wait until they are gone; for an interrupt."""
        if self._closing is Closing.NOW and not self.is_foreign and threading.current_thread() is not self._thread:
            self.close(Closing.AT_ONCE)
            self._over.wait(timeout)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: then it is awake
            self._wake_write.send(b"\0")

    def _at_exit(self) -> None:
        self.close(Closing.NOW)
        self.wait(_EXIT_PATIENCE)

    # From here on everything runs in the manager's own thread.

    def _run(self) -> None:
        # The zygote inherits this, so that Ctrl-C cannot strike before it has said that it ignores it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while True:
                self._crew.staff()
                self._feed()
                self._deliver()
                if self._finished():
                    break
                self._crew.turn()
            hasty = self._closing >= Closing.NOW
            if not hasty and not self._crew.say_farewell(lambda: self._closing >= Closing.NOW):
                self.close(Closing.AT_ONCE)
        except BaseException as error:
            _log.exception("a process pool failed; its calls are given up")
            self._crew.fault = f"the process pool failed: {type(error).__name__}: {error}"
        finally:
            try:
                self._tear_down()
            finally:
                self._over.set()

    def _finished(self) -> bool:
        if self._closing is Closing.WHEN_DONE:
            return not (self._posted or self._pending or self._settled or self._crew.busy)
        return self._closing >= Closing.NOW

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)
        assert self._posted is not None
        while self._posted:
            self._pending.append(self._posted.popleft())
        if self._cancel:
            kept = [call for call in self._pending if call.sent or not _cancel(call)]
            self._pending.clear()
            self._pending.extend(kept)

    def _feed(self) -> None:
        if self._crew.fault is None:
            self._crew.feed()
            return
        while self._pending:
            call = self._pending.popleft()
            if call.sent or call.future.set_running_or_notify_cancel():
                self._settle(call, PlaceError(self._crew.fault))

    def _settle(self, call: Call, outcome: Outcome) -> None:
        self._settled.append((call, outcome))

    def _deliver(self) -> None:
        """Settle futures, which runs their callbacks: after the workers were fed, as callbacks may take long."""
        while self._settled:
            call, outcome = self._settled.popleft()
            try:
                if isinstance(outcome, Exception):
                    call.future.set_exception(outcome)
                else:
                    call.future.set_result(outcome)
            except BaseException:  # from a callback that raised SystemExit, say; other calls have no part in it
                _log.exception("the callback of a call to a process pool failed")

    def _tear_down(self) -> None:
        running = self._crew.dismiss(lambda: self._closing is Closing.AT_ONCE)
        with self._door:
            assert self._posted is not None
            unsent = [*self._pending, *self._posted]
            self._posted = None
            self._wake_read.close()
            self._wake_write.close()
        self._selector.close()
        for call in [*running, *unsent]:
            if not call.sent and self._crew.fault is None:
                _cancel(call)
            elif call.sent or call.future.set_running_or_notify_cancel():
                # Nobody is to blame: whoever shares this pool may ask another for the same.
                text = "the worker process was killed while it had this call, as its pool was shut down"
                self._settle(call, PlaceError(self._crew.fault) if self._crew.fault else CancelledError(text))
        self._deliver()
        atexit.unregister(self._at_exit)


def _cancel(call: Call) -> bool:
    """Cancel a call that was never sent, and tell those who wait for it."""
    return call.future.cancel() and not call.future.set_running_or_notify_cancel()
