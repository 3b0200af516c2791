"""How many rows are drawn into one dataframe: few at first, more while they take little time and little room."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["Windows"]

SECONDS = 1.0
"""What a window should take. Longer ones hold more in memory than is worked on, shorter ones cost a query each."""
GROWTH = 64
BYTES = 64_000_000


class Windows:
    """The size of the next window. It grows at most 64-fold, within `most` rows and 64 MB as far as can be told."""

    def __init__(self, most: int, first: int) -> None:
        self.most = self._room = most
        self.size = min(first, most)
        self._weighed = False

    @property
    def ahead(self) -> int:
        """How many outcomes may wait for an earlier one before no more rows are drawn."""
        return 2 * self.size

    def weigh(self, row: tuple[Any, ...]) -> None:
        """One row, as a sample of how large they are."""
        weight = sum(map(_weight, row))
        self._room = max(1, min(self.most, BYTES // max(1, weight)))
        self.size = min(self.size, self._room)

    def took(self, rows: int, seconds: float) -> None:
        """So many rows took so long."""
        wanted = self.most if seconds <= 0 else int(rows * SECONDS / seconds)
        self.size = max(1, min(max(wanted, self.size // 2), self._room, self.size * GROWTH))


def _weight(value: Any) -> int:
    """About how many bytes a value holds: its own, and those of its first elements."""
    size = sys.getsizeof(value)
    if isinstance(value, list | tuple) and value:
        return size + len(value) * max(map(sys.getsizeof, value[:4]))
    return size
