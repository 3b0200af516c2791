"""How frames cross a socket: a head, the small frames after it, the big ones in one shared segment.

A message is `head | table | body`. The table holds the length of each frame, its top bit says that the
frame lies in a segment: one of its own, whose descriptor travels with the message, or a slot of the sender's arena,
whose descriptor came with the first message in it. Nothing is ever unpickled here.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import TYPE_CHECKING, NamedTuple

from hypernodes_local_multiprocess import _segment
from hypernodes_local_multiprocess._arena import Arena, Place, Slots
from hypernodes_local_multiprocess._segment import Flat
from hypernodes_local_multiprocess._views import Views

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = [
    "CALL",
    "ERROR",
    "LAST_RESULT",
    "READY",
    "RESULT",
    "Message",
    "Outbox",
    "Packet",
    "Reader",
    "encode",
    "flat",
    "telling",
]

READY, CALL, RESULT, LAST_RESULT, ERROR = range(1, 6)
"""Kinds of messages. `LAST_RESULT` is a result after which the worker leaves; `ERROR` has three text frames."""

_BIG_FRAME = 64 * 1024
_BIG_BODY = 256 * 1024
_CHUNK = 64 * 1024
# kind, slot, whether it is new, slots given up, frames, ticket, ticket seen, bytes of the body, bytes of the segment
_HEAD = struct.Struct("<BB?BIQQQQ")
_GIVEN_UP_AT = 3
_OWN = 0  # in place of a slot: the segment is the message's own
_IN_SEGMENT = 1 << 63
_BODY_ALIGNMENT = 16
_PADDING = [bytes(-size % _BODY_ALIGNMENT) for size in range(_BODY_ALIGNMENT)]
_FD_SPACE = socket.CMSG_SPACE(4 * array.array("i").itemsize)
# Plain numbers: the `&` of an enum costs as much as the system call.
_CLOSE_ON_EXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_CUT_SHORT = int(socket.MSG_CTRUNC)


class Packet(NamedTuple):
    """A message ready to be sent; whoever holds it owns the descriptors."""

    data: bytes
    fds: tuple[int, ...] = ()


@dataclass(slots=True)
class Message:
    """A message as received. Frames are writable and belong to the receiver alone.

    `lost` is set, and `frames` empty, when the segment could not be taken in, for want of descriptors or memory.
    """

    kind: int
    ticket: int
    frames: list[memoryview]
    lost: OSError | None = None
    seen: int = 0
    """The last ticket whose message the sender has taken in."""
    given_up: int = 0
    """The receiver's slots, as bits, that the sender still looks into and has no more use for."""


def flat(frame: Buffer) -> Flat:
    """The bytes of a frame in one piece, without copying; raises `BufferError` when they are not contiguous."""
    return frame if type(frame) is bytes else PickleBuffer(frame).raw()


def encode(kind: int, ticket: int, frames: Sequence[Flat], arena: Arena | None = None, seen: int = 0) -> Packet:
    """Pack a message, its big frames into the arena as far as that has room.

    Raises `OSError` when a segment is needed and memory or descriptors run out.
    """
    sizes = [len(frame) for frame in frames]
    if sum(sizes) < _BIG_FRAME:  # the common case, in a third of the time
        padded = [piece for frame in frames for piece in (frame, _PADDING[len(frame) % _BODY_ALIGNMENT])]
        body = sum(map(len, padded))
        return Packet(
            b"".join(
                [
                    _HEAD.pack(kind, _OWN, False, 0, len(sizes), ticket, seen, body, 0),
                    struct.pack(f"<{len(sizes)}Q", *sizes),
                    *padded,
                ]
            )
        )
    outside = [size >= _BIG_FRAME for size in sizes]
    if sum(size for size, out in zip(sizes, outside, strict=True) if not out) > _BIG_BODY:
        outside = [True] * len(sizes)
    parts: list[Flat] = []
    body = 0
    for frame, size, out in zip(frames, sizes, outside, strict=True):
        if not out:
            padding = _PADDING[size % _BODY_ALIGNMENT]
            parts += (frame, padding)
            body += size + len(padding)
    table = struct.pack(
        f"<{len(sizes)}Q", *(s | _IN_SEGMENT if out else s for s, out in zip(sizes, outside, strict=True))
    )
    if True in outside:
        big = [frame for frame, out in zip(frames, outside, strict=True) if out]
        place = arena.put(ticket, big) if arena is not None else None
        if place is None:
            place = Place(_OWN, *_segment.create(big))
        head = _HEAD.pack(kind, place.slot, place.fd is not None, 0, len(sizes), ticket, seen, body, place.size)
        return Packet(b"".join([head, table, *parts]), () if place.fd is None else (place.fd,))
    return Packet(b"".join([_HEAD.pack(kind, _OWN, False, 0, len(sizes), ticket, seen, body, 0), table, *parts]))


def telling(packet: Packet, given_up: int) -> Packet:
    """The packet with these bits as `Message.given_up`; they are known later than all the rest."""
    if not given_up:
        return packet
    data = bytearray(packet.data)
    data[_GIVEN_UP_AT] = given_up
    return Packet(bytes(data), packet.fds)


class Outbox:
    """What waits to be sent on one socket, in order. Works for blocking and non-blocking sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    def push(self, packet: Packet) -> None:
        """Take a packet over, with its descriptors."""
        self._waiting.append((memoryview(packet.data), packet.fds))

    def flush(self) -> bool:
        """Send what the socket takes: True when nothing waits. A peer that is gone swallows everything."""
        while self._waiting:
            view, fds = self._waiting[0]
            try:
                if fds:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                    sent = self._sock.sendmsg([view], rights)
                else:
                    sent = self._sock.send(view)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                self.clear()
                return True
            _close(fds)
            if sent == len(view):
                self._waiting.popleft()
            else:
                self._waiting[0] = (view[sent:], ())
        return True

    def clear(self) -> None:
        """Drop what waits, and close its descriptors."""
        while self._waiting:
            _close(self._waiting.popleft()[1])


class Reader:
    """Cuts what a socket brings into messages. Works for blocking and non-blocking sockets.

    What lies in slots is copied out, or looked into where `slots` are `Views`.
    """

    def __init__(self, sock: socket.socket, slots: Slots | Views | None = None) -> None:
        self._sock = sock
        self._data = bytearray()
        # Descriptors arrive with or before the first byte of their message, and in order.
        self._fds: deque[int | None] = deque()
        self._slots = Slots() if slots is None else slots

    def fill(self) -> bool:
        """Receive once: False at the end of the stream. Raises `BlockingIOError` when nothing is there yet."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(_CHUNK, _FD_SPACE, _CLOSE_ON_EXEC)
        except ConnectionResetError:
            return False
        self._data += data
        for _, _, payload in ancillary:
            fds = array.array("i")
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            for fd in fds:
                if not _CLOSE_ON_EXEC:
                    os.set_inheritable(fd, False)
                self._fds.append(fd)
        if flags & _CUT_SHORT:
            self._fds.append(None)
        return bool(data)

    def take(self) -> Message | None:
        """The next whole message, if it is there."""
        data = self._data
        if len(data) < _HEAD.size:
            return None
        kind, slot, new, given_up, count, ticket, seen, body_size, segment_size = _HEAD.unpack_from(data)
        start = _HEAD.size + 8 * count
        end = start + body_size
        if len(data) < end:
            return None
        table = struct.unpack_from(f"<{count}Q", data, _HEAD.size)
        segment = body = memoryview(data[start:end])
        del data[:end]
        if segment_size:
            try:
                segment = self._segment(slot, new, segment_size, table)
            except OSError as error:
                return Message(kind, ticket, [], error, seen, given_up)
        return Message(kind, ticket, _cut(table, body, segment), None, seen, given_up)

    def close(self) -> None:
        """Let go of the sender's slots and of the descriptors of messages that never came in whole."""
        self._slots.close()
        _close(fd for fd in self._fds if fd is not None)
        self._fds.clear()

    def _segment(self, slot: int, new: bool, size: int, table: Sequence[int]) -> memoryview:
        if new:
            fd = self._fds.popleft()
            if fd is None:
                self._slots.forget(slot)
                raise OSError("the descriptor of a shared segment was refused; this process has too many open files")
            if slot == _OWN:
                return _segment.map_privately(fd, size)
            self._slots.place(slot, fd, size)
        return self._slots.take(
            slot, sum(_segment.aligned(entry ^ _IN_SEGMENT) for entry in table if entry & _IN_SEGMENT)
        )


def _cut(table: Sequence[int], body: memoryview, segment: memoryview) -> list[memoryview]:
    frames = []
    inside = outside = 0
    for entry in table:
        if entry & _IN_SEGMENT:
            size = entry ^ _IN_SEGMENT
            frames.append(segment[outside : outside + size])
            outside += _segment.aligned(size)
        else:
            frames.append(body[inside : inside + entry])
            inside += entry + -entry % _BODY_ALIGNMENT
    return frames


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
