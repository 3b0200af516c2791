"""How many tasks go into one chunk: measured, never guessed."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Pace"]

GROWTH = 4
LEAST_SHARE = 0.1
"""Of the time that a chunk aims at: less is not worth a chunk of its own, however near the end is."""
BYTES_IN_CHUNK = 4_000_000
"""Large items travel in smaller chunks, and so fewer of them are drawn ahead."""


class Pace:
    """A chunk size that aims at `seconds` of work: it starts at one task and follows what was measured.

    It grows at most fourfold from chunk to chunk, stays within `most`, and within `BYTES_IN_CHUNK` as far as the size
    of items can be told. The latest chunks count most, and larger ones more than small ones: what a chunk costs by
    itself weighs the less the more is in it. Where a worker works on so many tasks `together`, a chunk has that many
    even if they take longer, as far as larger chunks were seen to take less time for each task.
    """

    __slots__ = ("_alone", "_at_once", "_count", "_each", "_room", "_spent", "most", "seconds", "size", "together")

    def __init__(self, seconds: float, most: int = 1024, together: int = 1) -> None:
        self.seconds, self.most, self.together = seconds, max(1, most), max(1, together)
        self.size = 1
        self._room = self.most
        self._each: float | None = None
        self._alone: float | None = None
        self._at_once = 1
        self._count = self._spent = 0.0

    @property
    def least(self) -> int:
        """How few tasks are still worth a chunk. Fewer than are worked on at once would take no less time."""
        return max(self._at_once, int(LEAST_SHARE * self.seconds / self._each)) if self._each else self._at_once

    def record(self, count: int, seconds: float) -> None:
        """`count` tasks took `seconds` in the worker."""
        self._count = 0.5 * self._count + max(1, count)
        self._spent = 0.5 * self._spent + seconds
        self._each = self._spent / self._count
        wanted = self.most if self._each <= 0 else int(self.seconds / self._each)
        if self.together > 1 and seconds > 0:
            # No task takes longer by itself than the quickest chunk did.
            self._alone = seconds if self._alone is None else min(self._alone, seconds)
            at_once = self._alone * max(1, count) / seconds
            self._at_once = max(1, min(self.together, int(at_once)))
            wanted = max(wanted, min(self.together, int(GROWTH * at_once)))
        self.size = max(1, min(wanted, self._room, max(self.size, count) * GROWTH))

    def weigh(self, row: tuple[Any, ...]) -> None:
        """One row of a chunk, as a sample of how large they are."""
        weight = sum(map(_weight, row))
        self._room = max(1, min(self.most, BYTES_IN_CHUNK // max(1, weight)))
        self.size = min(self.size, self._room)

    def slow_down(self) -> None:
        """A chunk was lost: smaller chunks lose less."""
        self.size = max(1, self.size // 2)


def _weight(value: Any) -> int:
    """About how many bytes a value holds: its own, and those of its first elements."""
    size = sys.getsizeof(value)
    if isinstance(value, list | tuple) and value:
        return size + len(value) * max(sys.getsizeof(element) for element in value[:4])
    if isinstance(value, dict):
        return size + sum(sys.getsizeof(element) for element in value.values())
    return size
