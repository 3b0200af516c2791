"""The blobs that a worker holds: one rule, followed on both sides, so that both know what is there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

__all__ = ["LIMIT", "MOST_BYTES", "Shelf"]

LIMIT = 32
"""How many blobs a worker keeps; one call that names more has them all."""

MOST_BYTES = 1 << 28
"""How many bytes of them: the stages of a hundred pipelines, or a few large inputs that items share."""

Content = TypeVar("Content")


class Shelf(Generic[Content]):
    """Blobs by digest, the longest unused leave first.

    What is on a shelf follows from the sequence of `place` calls alone. The pool makes one for each call that it
    sends to a worker, the worker one for each call that it receives, so that the two always agree.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Content, int]] = OrderedDict()
        self._bytes = 0

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that must come with the next call."""
        return [digest for digest in digests if digest not in self._kept]

    def place(self, digests: Iterable[str], new: Mapping[str, tuple[Content, int]]) -> dict[str, Content]:
        """Use these, taking from `new`, with their bytes, those that are missing; then let the longest unused go."""
        used = list(digests)
        for digest in used:
            if digest in self._kept:
                self._kept.move_to_end(digest)
            else:
                self._kept[digest] = new[digest]
                self._bytes += new[digest][1]
        while len(self._kept) > len(used) and (len(self._kept) > LIMIT or self._bytes > MOST_BYTES):
            _, (_, size) = self._kept.popitem(last=False)
            self._bytes -= size
        return {digest: self._kept[digest][0] for digest in used}
