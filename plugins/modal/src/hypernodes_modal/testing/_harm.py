"""Containers that are taken away at random while something runs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from hypernodes_modal.testing._records import Container

if TYPE_CHECKING:
    from hypernodes_modal.testing._plane import LocalModal

__all__ = ["Harm"]

LOOK = 0.005
"""Seconds between two looks for a container that works on something."""


class Harm:
    """What `LocalModal.harm` does while its block runs. `injected` counts the faults; `over` says that all were."""

    def __init__(self, plane: LocalModal, faults: int | None, crashes: float, pause: float, seed: int) -> None:
        if not 0 <= crashes <= 1:
            raise ValueError(f"crashes is {crashes}: give the share of the faults that are crashes, from 0 to 1")
        self.plane, self.faults, self.crashes, self.pause = plane, faults, crashes, pause
        self.injected = 0
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="LocalModal-harm", daemon=True)

    @property
    def over(self) -> bool:
        """Whether there are no more to come."""
        return (self.faults is not None and self.injected >= self.faults) or not self._thread.is_alive()

    def __enter__(self) -> Harm:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and (self.faults is None or self.injected < self.faults):
                busy = [one for one in self.plane.containers if one.alive and one.running]
                if not busy:
                    self._stop.wait(LOOK)
                    continue
                strike: Callable[[Container], None]
                strike = self.plane.crash if self._chance.random() < self.crashes else self.plane.preempt
                strike(self._chance.choice(busy))
                self.injected += 1
                self._stop.wait(self.pause * self._chance.random())
        except BaseException as error:
            self._error = error
