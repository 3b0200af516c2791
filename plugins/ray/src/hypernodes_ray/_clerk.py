"""The one thread that speaks with Ray, so that neither an interrupt nor a second thread meets it half-way."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

__all__ = ["Clerk"]


class Clerk:
    """Does what it is told, one thing after another, some of it later. Where that raises, `failed` is told.

    Ctrl-C strikes in the main thread alone: a call that was made here is always known to somebody who can stop it.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._thread = threading.Thread(target=self._work, name="hypernodes-ray", daemon=True)
        self._thread.start()

    def tell(self, job: Callable[[], None]) -> None:
        """Have it done as soon as possible, from any thread."""
        self._inbox.put(job)

    def in_(self, seconds: float, job: Callable[[], None]) -> None:
        """Have it done later. Only the clerk itself may ask for that."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._serial), job))

    def end(self, last: Callable[[], None], patience: float) -> None:
        """Do one last thing after all that was told, and end; waits for it, but not for ever."""
        self._inbox.put(last)
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(patience)

    def _work(self) -> None:
        while True:
            job: Callable[[], None] | None
            left = self._later[0][0] - time.monotonic() if self._later else None
            try:
                if left is not None and left <= 0:
                    _, _, job = heapq.heappop(self._later)
                else:
                    job = self._inbox.get(timeout=left)
            except Empty:
                continue
            if job is None:
                return
            try:
                job()
            except Exception as error:
                self._failed(error)
