"""What calls hold of their gates now, and when the latest of them began: counted in one process."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from hypernodes._gate import Gate

__all__ = ["Counts", "Holdings", "added", "fits", "give_back", "total"]


class Holdings(Protocol):
    """Who counts. Not for several threads at once: whoever asks holds a lock."""

    def take(self, gates: tuple[Gate, ...], since: float) -> float | None:
        """Take all gates for one call, or none of them: then the seconds after which it makes sense to ask again.

        Infinity means: not before something is given back here. `since` is when the call began to wait, by
        `time.monotonic()`.
        """

    def give(self, gates: tuple[Gate, ...]) -> None:
        """Give back what was taken."""

    def close(self) -> None:
        """Count no more."""


class Counts:
    """The holdings of one process, which counts for itself.

    A rate is a sliding window: the next call may begin when the one `most` calls before it began `per` seconds ago. So
    a run begins with up to `most` calls at once, and no window of that length, wherever it starts, ever has more. The
    other usual roads are a token bucket (its cousin GCRA is in ITU-T I.371), which lets nearly twice as many into one
    window, and calls spread evenly, which makes the first few wait for no reason.
    """

    def __init__(self) -> None:
        self._held: dict[str, float] = {}
        self._begun: dict[str, deque[float]] = {}

    def take(self, gates: tuple[Gate, ...], since: float) -> float | None:
        held, now = self._held, time.monotonic()
        pause = 0.0
        for gate in gates:
            if gate.per is None:
                if not fits(gate, held.get(gate.key, 0)):
                    return math.inf
            else:
                begun = self._begun.get(gate.key)
                if begun is not None and len(begun) == gate.most:
                    pause = max(pause, begun[0] + gate.per - now)
        if pause > 0:
            return pause
        for gate in gates:
            if gate.per is None:
                held[gate.key] = added(held.get(gate.key, 0), gate.takes)
            else:
                self._begun.setdefault(gate.key, deque(maxlen=int(gate.most))).append(now)
        return None

    def give(self, gates: tuple[Gate, ...]) -> None:
        give_back(self._held, gates)

    def close(self) -> None:
        """Nothing is open."""


def fits(gate: Gate, held: float) -> bool:
    """Whether one call more may take its share beside what is held."""
    return added(held, gate.takes) <= gate.most


def added(held: float, amount: float) -> float:
    """A sum in which fractions of CPUs do not leave crumbs: ten times a tenth is one."""
    return round(held + amount, 9)


def give_back(held: dict[str, float], gates: Iterable[Gate]) -> None:
    for gate in gates:
        if gate.per is None:
            left = added(held.get(gate.key, 0), -gate.takes)
            if left > 0:
                held[gate.key] = left
            else:
                held.pop(gate.key, None)


def total(rows: Iterable[Mapping[str, float]], key: str) -> float:
    """What all of them hold of one gate."""
    found = 0.0
    for row in rows:
        found = added(found, row.get(key, 0))
    return found
