"""Waiting until something has changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["Bell"]


class Bell:
    """Wakes everybody who waits, each time it rings."""

    def __init__(self) -> None:
        self._sleepers: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        sleepers, self._sleepers = self._sleepers, set()
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def until(self, true: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until it is true, looking again at each ring, or until the seconds are over; say whether it is true."""
        end = None if timeout is None else time.monotonic() + timeout
        while not true():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sleepers.add(sleeper)
            try:
                await asyncio.wait({sleeper}, timeout=left)
            finally:
                self._sleepers.discard(sleeper)
        return True
