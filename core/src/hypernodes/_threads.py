"""A thread pool that can be left behind.

The standard library's pool waits for its threads when the program ends, however long they block, so Ctrl-C during a
30-second request would take 30 seconds. These threads are daemons: `shutdown(wait=False)` lets go of them at once.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from hypernodes._loops import close_thread_loop, keep_thread_loop
from hypernodes._stoppable import start
from hypernodes._worker import mark_worker

__all__ = ["ThreadPool"]

T = TypeVar("T")

Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class ThreadPool(Executor):
    """At most `workers` daemon threads, started as they are needed. They end with the pool, also if it is forgotten."""

    def __init__(self, workers: int, name: str = "hypernodes") -> None:
        self.workers, self.name = workers, name
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._closed = False
        # The threads hold the queue, not the pool: one that is let go of without a shutdown ends them all the same.
        weakref.finalize(self, self._work.put, None).atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("this thread pool has been shut down")
            self._work.put((future, fn, args, kwargs))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self.workers:
                name = f"{self.name}-{len(self._threads)}"
                thread = threading.Thread(target=_run, args=(self._work, self._idle), name=name, daemon=True)
                self._threads.append(thread)
                start(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with `wait` the threads end before this returns, without it they end on their own."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            if cancel_futures:
                for future in _taken_from(self._work):
                    future.cancel()
            self._work.put(None)
        if wait:
            for thread in threads:
                if thread.is_alive():  # it never was where Ctrl-C struck while it was being started
                    thread.join()


def _run(queue: SimpleQueue[Work | None], idle: threading.Semaphore) -> None:
    mark_worker()
    keep_thread_loop()
    try:
        while (work := queue.get()) is not None:
            future, fn, args, kwargs = work
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, fn, args, kwargs, work
            idle.release()
    finally:
        queue.put(None)  # for the next one
        close_thread_loop()


def _taken_from(queue: SimpleQueue[Work | None]) -> Iterator[Future[Any]]:
    """The futures of the work that no thread has taken yet; threads may be taking some at the same time."""
    while True:
        try:
            work = queue.get_nowait()
        except Empty:
            return
        if work is not None:
            yield work[0]
