"""Segments that are used again: their pages are there already, which is most of what a new segment costs.

The sender copies frames into a slot. The pool copies results out as soon as it takes a message in; a worker looks into
the slot until it replies. Either says so with its next message. Descriptors travel once, and the sender closes its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hypernodes_local_multiprocess import _segment
from hypernodes_local_multiprocess._segment import Flat

__all__ = ["KEPT", "Arena", "Place", "Slots"]

KEPT = 64 * 1024 * 1024
"""Bytes that the slots of one direction of one worker keep: three slots (one call runs, one waits, one was taken back)
for frames of 20 MB. More than that goes by segments of their own, which the kernel takes back."""
_SLOTS = 3
_STEP = 1024 * 1024  # sizes are multiples of this, so that arrays of nearly one size share slots


class Place(NamedTuple):
    """Where frames were put: the number of the slot from 1 on, and its descriptor where the receiver lacks it."""

    slot: int
    fd: int | None
    size: int


@dataclass(slots=True)
class _Slot:
    address: int = 0
    size: int = 0
    ticket: int = 0
    """The message that lies in it; 0 when the receiver is through with it."""


class Arena:
    """The sender's side of the slots. Close it to let the memory go."""

    def __init__(self) -> None:
        self._slots: list[_Slot] = [_Slot() for _ in range(_SLOTS)]

    def put(self, ticket: int, frames: Sequence[Flat]) -> Place | None:
        """Copy the frames into a free slot until `freed(ticket)`; None when there is none. Raises `OSError`."""
        size = sum(_segment.aligned(len(frame)) for frame in frames)
        free = [(slot.size, at) for at, slot in enumerate(self._slots) if not slot.ticket]
        fitting = [(room, at) for room, at in free if room >= size]
        if fitting:
            room, at = min(fitting)
            slot = self._slots[at]
            _segment.copy_in(slot.address, frames)
            slot.ticket = ticket
            return Place(at + 1, None, room)
        if not free:
            return None
        room, at = min(free)
        size = -(-size // _STEP) * _STEP
        if sum(slot.size for slot in self._slots) - room + size > KEPT:
            return None
        fd, _ = _segment.create(frames, size)
        try:
            address = _segment.map_shared(fd, size)
        except OSError:
            _segment.close(fd)
            return None
        self._drop(at)
        self._slots[at] = _Slot(address, size, ticket)
        return Place(at + 1, fd, size)

    def freed(self, ticket: int, given_up: int = 0) -> None:
        """The receiver is through with what came with this message and those before it.

        It still looks into the slots whose bits are set in `given_up`: they are never written to again.
        """
        for at, slot in enumerate(self._slots):
            if slot.ticket <= ticket:
                slot.ticket = 0
                if given_up >> at & 1:
                    self._drop(at)

    def close(self) -> None:
        """Unmap everything; the receiver may still read what it has mapped."""
        for at in range(_SLOTS):
            self._drop(at)

    def _drop(self, at: int) -> None:
        if self._slots[at].size:
            _segment.unmap(self._slots[at].address, self._slots[at].size)
        self._slots[at] = _Slot()


class Slots:
    """The pool's side of a worker's slots: what it has mapped of them, to copy it out."""

    def __init__(self) -> None:
        self._mapped: dict[int, tuple[int, int]] = {}

    def place(self, number: int, fd: int, size: int) -> None:
        """The sender has put a new segment into this slot; closes `fd`. Raises `OSError`."""
        self.forget(number)
        try:
            self._mapped[number] = (_segment.map_shared(fd, size), size)
        finally:
            _segment.close(fd)

    def take(self, number: int, size: int) -> memoryview:
        """A copy of the first `size` bytes of a slot. Raises `OSError`."""
        if number not in self._mapped:
            raise OSError("a shared segment could not be mapped before")
        return _segment.copy_out(self._mapped[number][0], size)

    def close(self) -> None:
        """Unmap everything."""
        for number in list(self._mapped):
            self.forget(number)

    def forget(self, number: int) -> None:
        """What lies in this slot from now on is not known here."""
        if number in self._mapped:
            _segment.unmap(*self._mapped.pop(number))
