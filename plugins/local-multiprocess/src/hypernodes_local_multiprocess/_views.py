"""The worker's side of the slots: calls look into them, which saves a copy.

A slot goes back to the pool with the reply, if nothing looks into it any more. Else it is given up: the pool puts a
new segment in its place and never writes into the old one again, which lives as long as something in this process
looks into it. What a call writes into its inputs stays in a segment that nobody else reads.

A fork makes the segments that calls look into private, without copying: a forked copy and this process see neither
what the other writes nor what the pool does, as with any memory.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from hypernodes_local_multiprocess import _segment

__all__ = ["Views"]

_WARY = 16
"""Messages that are copied out after a slot was given up, as a call that keeps its inputs will do so again: a new
segment costs several times what a copy does."""


@dataclass(slots=True)
class _Slot:
    address: int
    size: int
    claim: list[int]
    """The descriptor, for the one who ends this slot: two threads may try to."""
    view: weakref.finalize[Any, Any] | None = None
    """Alive as long as something looks into it."""


class Views:
    """What this process has mapped of the pool's slots. `part` may be called in any thread, all else in one."""

    def __init__(self) -> None:
        self._mapped: dict[int, _Slot] = {}
        self._given_up: set[int] = set()
        self._wary = 0

    def place(self, number: int, fd: int, size: int) -> None:
        """The pool has put a new segment into this slot; takes `fd` over. Raises `OSError`."""
        self.forget(number)
        try:
            self._mapped[number] = _Slot(_segment.map_shared(fd, size), size, [fd])
        except OSError:
            _segment.close(fd)
            raise

    def take(self, number: int, size: int) -> memoryview:
        """The first `size` bytes of a slot, writable, and the caller's for as long as it wants. Raises `OSError`."""
        slot = self._mapped.get(number)
        if slot is None:
            raise OSError("a shared segment could not be mapped before")
        if self._wary or 2 * size < slot.size:  # who keeps a little should not keep a large segment alive
            self._wary = max(0, self._wary - 1)
            return _segment.copy_out(slot.address, size)
        view, slot.view = _segment.look(slot.address, size)
        return view

    def given_up(self) -> int:
        """The slots that do not go back with a reply, as bits: 1 for the first. Each is told once."""
        for number in list(self._mapped):
            self._give_up(number, private=False)
        bits = 0
        while self._given_up:
            bits |= 1 << self._given_up.pop() - 1
        return bits

    def part(self) -> None:
        """To be called right before and after this process forks: gives up what is looked into, and makes it private.

        Raises `OSError`.
        """
        for number in list(self._mapped):
            self._give_up(number, private=True)

    def close(self) -> None:
        """Unmap everything but what is looked into."""
        self.given_up()
        for number in list(self._mapped):
            self.forget(number)

    def forget(self, number: int) -> None:
        """What lies in this slot from now on is not known here. Nothing may look into it."""
        slot = self._mapped.pop(number, None)
        if slot is not None and slot.claim:
            _segment.close(slot.claim.pop())
            _segment.unmap(slot.address, slot.size)

    def _give_up(self, number: int, private: bool) -> None:
        slot = self._mapped.get(number)
        if slot is None or slot.view is None or not slot.view.alive:
            return
        self._given_up.add(number)  # first: once it is claimed, another thread takes it for free
        try:
            fd = slot.claim.pop()
        except IndexError:
            return
        self._mapped.pop(number, None)
        self._wary = _WARY
        if private:
            _segment.make_private(slot.address, slot.size, fd)
        _segment.close(fd)
        _segment.unmap_after(slot.view, slot.address, slot.size)
