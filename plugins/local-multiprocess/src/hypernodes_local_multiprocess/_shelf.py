"""The blobs that a worker holds: one rule, followed on both sides, so that both know what is there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

__all__ = ["LIMIT", "Shelf"]

LIMIT = 32
"""How many blobs a worker keeps; one call that names more has them all."""

Content = TypeVar("Content")


class Shelf(Generic[Content]):
    """Blobs by digest, the longest unused leave first.

    What is on a shelf follows from the sequence of `place` calls alone. The pool makes one for each call that it
    sends to a worker, the worker one for each call that it receives, so that the two always agree.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Content] = OrderedDict()

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that must come with the next call."""
        return [digest for digest in digests if digest not in self._kept]

    def place(self, digests: Sequence[str], new: Mapping[str, Content]) -> dict[str, Content]:
        """Use these, taking from `new` those that are missing; then let the longest unused go."""
        for digest in digests:
            if digest in self._kept:
                self._kept.move_to_end(digest)
            else:
                self._kept[digest] = new[digest]
        while len(self._kept) > max(LIMIT, len(digests)):
            self._kept.popitem(last=False)
        return {digest: self._kept[digest] for digest in digests}
