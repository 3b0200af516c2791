"""The pool's side of one call and of one worker."""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import Future
from dataclasses import dataclass, field

from hypernodes_local_multiprocess import _frames
from hypernodes_local_multiprocess._arena import Arena
from hypernodes_local_multiprocess._frames import Message, Outbox, Reader
from hypernodes_local_multiprocess._segment import Flat
from hypernodes_local_multiprocess._shelf import Shelf
from hypernodes_local_multiprocess._worker import TICKET

__all__ = ["Call", "WorkerHandle"]

_DEPTH = 2  # one call runs, one waits in the socket so that the worker is never idle


@dataclass(slots=True, eq=False)
class Call:
    """One call, from `submit` until its future is settled."""

    frames: list[Flat]
    blobs: dict[str, list[Flat]]
    future: Future[list[memoryview]] = field(default_factory=Future)
    sent: int = 0
    """How often the call was sent to a worker; only a call that was never sent can be cancelled."""


class WorkerHandle:
    """A worker process as the pool sees it: its socket, its ticket pipe, the calls it has.

    Create it, pass `take_far_ends()` to the zygote, and close it when the process has been reaped.
    """

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.pid: int | None = None
        """The process id, known when the worker is ready."""
        self.leaving = False
        """The worker takes no more calls: it hung up, declared itself tainted, or was told to go."""
        self.last_words = ""
        """The traceback of an error of its own, not of a call, that it told before it ended."""
        self.calls: dict[int, Call] = {}
        """The calls it was given, by ticket, oldest first."""
        self._robbed = False
        self._seen = 0
        self._arena = Arena()
        self._shelf: Shelf[None] = Shelf()
        self.sock, far = socket.socketpair()
        try:
            self._tickets_read, self._tickets_write = os.pipe()
        except OSError:
            self.sock.close()
            far.close()
            raise
        os.set_blocking(self._tickets_read, False)
        self.sock.setblocking(False)
        self.outbox = Outbox(self.sock)
        self.reader = Reader(self.sock)
        self._far: socket.socket | None = far

    def take_far_ends(self) -> tuple[int, int]:
        """The worker's ends, once; the caller owns them."""
        assert self._far is not None
        tickets = os.dup(self._tickets_read)
        far, self._far = self._far, None
        return far.detach(), tickets

    def room(self) -> int:
        """How many more calls it should have now."""
        if self.pid is None or self.leaving:
            return 0
        # A call taken back is still in the worker's socket: one such message at a time, or they would pile up
        # behind a long call.
        return (1 if self._robbed else _DEPTH) - len(self.calls)

    def give(self, ticket: int, call: Call) -> None:
        """Pack and send a call with the blobs that the worker lacks; raises `OSError` and then has done nothing."""
        frames: list[Flat] = [b"", *call.frames]
        if call.blobs:
            missing = set(self._shelf.missing(call.blobs))
            named = {digest: len(blob) if digest in missing else None for digest, blob in call.blobs.items()}
            frames[0] = json.dumps(named).encode()
            for digest, blob in call.blobs.items():
                if digest in missing:
                    frames += blob
        packet = _frames.encode(_frames.CALL, ticket, frames, self._arena, self._seen)
        self._shelf.place(call.blobs, {digest: (None, sum(map(len, blob))) for digest, blob in call.blobs.items()})
        self.calls[ticket] = call
        call.sent += 1
        os.write(self._tickets_write, TICKET.pack(ticket))
        self.outbox.push(packet)
        self.outbox.flush()

    def receive(self, *, rest: bool = False) -> tuple[list[Message], bool]:
        """What one read brings, or with `rest` all that is there; and whether the worker may still send more."""
        try:
            alive = self.reader.fill()
            while alive and rest:
                alive = self.reader.fill()
        except BlockingIOError:
            alive = True
        messages = []
        while (message := self.reader.take()) is not None:
            messages.append(message)
        return messages, alive

    def answered(self, message: Message) -> Call | None:
        """Take out the call that was answered; None when the worker has no such call."""
        self._robbed = False
        self._seen = max(self._seen, message.ticket)
        # It takes messages in as they come, so that it is through with those before as well.
        self._arena.freed(message.ticket, message.given_up)
        return self.calls.pop(message.ticket, None)

    def take_back(self) -> Call | None:
        """The oldest call that the worker has not begun, taken from it; None when it has begun all."""
        try:
            data = os.read(self._tickets_read, TICKET.size)
        except BlockingIOError:
            return None
        self._robbed = True
        return self.calls.pop(TICKET.unpack(data)[0])

    def unbegun(self) -> list[Call]:
        """Take back every call that the worker has not begun, oldest first."""
        calls = []
        while (call := self.take_back()) is not None:
            calls.append(call)
        return calls

    def part(self) -> None:
        """Tell the worker that no calls will follow."""
        self.leaving = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it hung up first
            return

    def close(self) -> None:
        """Close every descriptor. The calls are the caller's to settle."""
        self._arena.close()
        self.outbox.clear()
        self.reader.close()
        self.sock.close()
        if self._far is not None:
            self._far.close()
        os.close(self._tickets_read)
        os.close(self._tickets_write)
