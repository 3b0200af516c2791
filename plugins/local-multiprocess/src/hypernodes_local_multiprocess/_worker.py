"""What runs in a worker process: one call after another, until its socket ends.

A call runs only if its ticket is still in the worker's ticket pipe. The pool takes a ticket back through its own
copy of the pipe when it gives the call to another worker; and the tickets left after a death tell
which calls had not begun.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hypernodes_local_multiprocess import _ending, _frames
from hypernodes_local_multiprocess._arena import KEPT, Arena
from hypernodes_local_multiprocess._frames import Message, Outbox, Packet, Reader
from hypernodes_local_multiprocess._shelf import Shelf
from hypernodes_local_multiprocess._views import Views

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["NO_TICKET", "TICKET", "Frames", "Target", "say_last_words", "serve"]

TICKET = struct.Struct("<Q")
NO_TICKET = 0
"""Stands in a message that is about the worker and not about a call."""

Frames = Sequence["Buffer"]
Target = Callable[[list[memoryview], Mapping[str, list[memoryview]]], Frames | tuple[Frames, bool]]
"""What a worker calls: frames and named blobs in, frames out. A tuple `(frames, True)` says that the worker is
tainted: it leaves after the reply, and the pool replaces it."""


def serve(sock: socket.socket, tickets: int, target: Target) -> None:
    """Answer calls until the socket ends, the target declares this worker tainted, or SIGTERM was swallowed by it.

    Raises `Ended` at a SIGTERM.
    """
    views = Views()
    os.register_at_fork(before=views.part, after_in_parent=views.part)  # afterwards, as others may run in between
    reader, outbox, arena = Reader(sock, views), Outbox(sock), Arena()
    shelf: Shelf[list[memoryview]] = Shelf()
    held: int | None = None
    _send(outbox, _frames.encode(_frames.READY, os.getpid(), []))
    while True:
        message = reader.take()
        if message is None:
            if not reader.fill():
                return
            continue
        if message.lost is not None:
            raise message.lost
        frames, blobs = _unpack(message, shelf)
        arena.freed(message.seen)
        ticket = message.ticket
        del message
        if held is None:
            held = _next_ticket(tickets)
        if held != ticket:  # taken back; a ticket in hand belongs to a later call
            del frames, blobs
            continue
        held = None
        packet, tainted = _answer(target, ticket, frames, blobs, arena)
        if _ending.asked():
            return
        del frames, blobs  # a waiting worker keeps no inputs alive
        packet = _frames.telling(packet, views.given_up())
        _ending.flush_streams()
        _send(outbox, packet)
        del packet
        if tainted:
            return


def say_last_words(sock: socket.socket, error: BaseException) -> None:
    """Tell the pool why this worker, not a call, fails."""
    _send(Outbox(sock), _error(NO_TICKET, error))


def _answer(
    target: Target, ticket: int, frames: list[memoryview], blobs: Mapping[str, list[memoryview]], arena: Arena
) -> tuple[Packet, bool]:
    """Call the target; whatever it raises, even `SystemExit`, becomes an error reply. Only `Ended` passes."""
    worker = os.getpid()
    try:
        reply = target(frames, blobs)
        _end_if_copy(worker)  # before it writes to slots that are not its own
        tainted = False
        if isinstance(reply, tuple) and len(reply) == 2 and isinstance(reply[1], bool):
            reply, tainted = reply
        kind = _frames.LAST_RESULT if tainted else _frames.RESULT
        return _frames.encode(kind, ticket, [_frames.flat(frame) for frame in reply], arena), tainted
    except _ending.Ended:
        raise
    except BaseException as error:
        _end_if_copy(worker)
        return _error(ticket, error), False


def _end_if_copy(worker: int) -> None:
    """User code may fork, and the copy come back out of it; only the worker answers."""
    if os.getpid() != worker:
        os._exit(0)


def _unpack(message: Message, shelf: Shelf[list[memoryview]]) -> tuple[list[memoryview], dict[str, list[memoryview]]]:
    head, *frames = message.frames
    if not head:
        return frames, {}
    named: dict[str, int | None] = json.loads(bytes(head))
    new: dict[str, tuple[list[memoryview], int]] = {}
    end = len(frames) - sum(count for count in named.values() if count is not None)
    position = end
    for digest, count in named.items():
        if count is not None:
            # They stay for long. One that is larger than any slot came in a segment of its own.
            blob = frames[position : position + count]
            kept = [frame if len(frame) > KEPT else memoryview(bytearray(frame)) for frame in blob]
            new[digest] = kept, sum(map(len, kept))
            position += count
    return frames[:end], shelf.place(named, new)


def _next_ticket(tickets: int) -> int | None:
    try:
        data = os.read(tickets, TICKET.size)
    except BlockingIOError:
        return None
    return int(TICKET.unpack(data)[0]) if data else None


def _send(outbox: Outbox, packet: Packet) -> None:
    outbox.push(packet)
    outbox.flush()


def _error(ticket: int, error: BaseException) -> Packet:
    texts = [_type_name(error), _message(error), _traceback(error)]
    return _frames.encode(_frames.ERROR, ticket, [text.encode("utf-8", "replace") for text in texts])


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as why:  # a user's __str__ may do anything
        return f"<its message could not be made: {type(why).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as why:
        return f"<its traceback could not be made: {type(why).__name__}>"
