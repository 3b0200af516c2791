"""How many tasks go into one chunk: measured, never guessed."""

from __future__ import annotations

__all__ = ["Pace"]

GROWTH = 4


class Pace:
    """A chunk size that aims at `seconds` of work: it starts at one task and follows what was measured.

    It grows at most fourfold from chunk to chunk and stays within `most`. A fixed size is `least = most`.
    """

    __slots__ = ("_each", "most", "seconds", "size")

    def __init__(self, seconds: float, most: int = 1024) -> None:
        self.seconds, self.most = seconds, max(1, most)
        self.size = 1
        self._each: float | None = None

    def record(self, count: int, seconds: float) -> None:
        """`count` tasks took `seconds` in the worker."""
        each = seconds / max(1, count)
        self._each = each if self._each is None else 0.5 * self._each + 0.5 * each
        wanted = self.most if self._each <= 0 else int(self.seconds / self._each)
        self.size = max(1, min(wanted, self.most, max(self.size, count) * GROWTH))

    def slow_down(self) -> None:
        """A chunk was lost: smaller chunks lose less."""
        self.size = max(1, self.size // 2)
