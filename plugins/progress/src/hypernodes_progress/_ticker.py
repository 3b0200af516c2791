"""The thread that draws: seldom enough to cost next to nothing, and gone when the run is."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

__all__ = ["Ticker"]

SHARE = 0.01
"""The part of a core that drawing may take: a picture that costs 2 ms is drawn every 200 ms."""
SLOWEST = 2.0


class Ticker:
    """Enters `surface` after `delay` seconds and calls what that gives every `pause` seconds, until `stop`.

    A run that is over before that draws nothing at all. Drawing that raises is logged, and no more is drawn.
    """

    def __init__(
        self, surface: Callable[[], AbstractContextManager[Callable[[], object]]], delay: float, pause: float
    ) -> None:
        self._surface, self._delay, self._pause = surface, delay, pause
        self._ended = threading.Event()
        # A notebook knows by context variables which cell the thread draws for.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name="hypernodes-progress", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Leave the surface; when this returns, the thread is gone."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if self._ended.wait(self._delay):
            return
        try:
            with self._surface() as draw:
                while True:
                    before = time.thread_time()
                    draw()
                    cost = time.thread_time() - before
                    if self._ended.wait(min(max(self._pause, cost / SHARE), SLOWEST)):
                        return
        except Exception as error:
            logging.getLogger("hypernodes").warning(
                "progress is not shown any more, drawing it raised %s; the run goes on",
                type(error).__name__,
                exc_info=error,
            )
