"""The process pool: calls go to worker processes, and a worker that dies takes only its own call with it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from hypernodes import PlaceError
from hypernodes_local_multiprocess._frames import flat
from hypernodes_local_multiprocess._handle import Call
from hypernodes_local_multiprocess._manager import Closing, Manager

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["ProcessPool"]

_NO_BLOBS: Mapping[str, Sequence[Buffer]] = {}


class ProcessPool:
    """`workers` processes that call `target` ("package.module:function") with frames of bytes.

    The workers are forked from a small process of the pool's own, never from this one, so that neither threads nor
    a script without a main guard are in the way. They end with the pool, and with this process however it ends.
    A pool that is forgotten finishes its calls; at the end of the interpreter what is left is stopped.

    Raises `PlaceError` where processes cannot be forked. A target that cannot be imported fails every call.
    """

    def __init__(self, workers: int, target: str) -> None:
        if sys.platform == "win32":
            raise PlaceError(
                "the process pool needs fork, which Windows does not have; use engine='threaded', or run under WSL"
            )
        if workers < 1:
            raise ValueError(f"a process pool needs at least 1 worker, not {workers}")
        self.workers = workers
        self._manager = Manager(workers, target)
        self._forgotten = weakref.finalize(self, self._manager.close, Closing.WHEN_DONE)
        self._forgotten.atexit = False  # the manager sees to that itself, less patiently

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready for calls at this moment."""
        return self._manager.pids

    def submit(
        self, frames: Sequence[Buffer], blobs: Mapping[str, Sequence[Buffer]] = _NO_BLOBS
    ) -> Future[list[memoryview]]:
        """Call the target with these frames, and with blobs, which travel to each worker once.

        The frames must not change until the future is done. Frames that come back are writable and share no
        memory with the worker. The future raises `WorkerLostError`, with `pid` and `exitcode`, when the worker
        died while it ran the call; `RemoteError` when the target raised; `PlaceError` when the call could not travel.
        Callbacks of the future run in the pool's own thread and should be short.

        Raises `BufferError` for a frame that is not contiguous, `RuntimeError` after `shutdown`.
        """
        if self._manager.is_foreign:
            raise PlaceError("this process is a forked copy of the one that made the pool; make a pool here")
        named = {digest: [flat(frame) for frame in blob] for digest, blob in blobs.items()} if blobs else {}
        call = Call([flat(frame) for frame in frames], named)
        if not self._manager.post(call):
            raise RuntimeError("the process pool was shut down and takes no more calls")
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill: bool = False) -> None:
        """Take no more calls, finish those that there are, end the workers.

        With `cancel_futures` calls that were not sent yet are cancelled; with `kill` the workers are asked to end by
        SIGTERM and killed where they have not within a second (at an interrupt while this waits: at once), calls that
        were not sent are cancelled and the others fail with `CancelledError`. In every case workers run the functions
        they registered by `atexit`, as far as their main thread gets there. With `wait` nothing of the pool is left
        on return: no process, thread or descriptor.
        """
        try:
            self._manager.close(Closing.NOW if kill else Closing.WHEN_DONE, cancel=cancel_futures)
            if wait:
                self._manager.wait()
        except BaseException:
            if wait:
                self._manager.hurry()  # the interrupt may have struck just before the wait
            raise
