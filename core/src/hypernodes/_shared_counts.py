"""What the processes of one machine hold of their gates, in a folder where they meet for one run.

`state` says what each process holds. It is read and written under `flock`, in two areas by turns, so that a process
that dies while it writes leaves the area before it whole. Each process keeps a lock on a file of its own as long as it
lives; the kernel frees that lock whatever way it ends, and what it held is then given back by whoever needs it. A rate
has a file with the moments of its latest calls. Moments are those of `time.monotonic()`, one clock for the machine.

One slot file for each unit, locked by whoever holds it, is the plainer form. It needs as many files as there are units
(of memory, bytes), as many tries for each call, and cannot take several gates at once or let nobody starve.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from hypernodes._counts import added, fits, give_back, total
from hypernodes._gate import Gate

__all__ = ["SharedCounts"]

STATE = "state"
AREA = 1 << 18
"""Bytes of each of the two areas: the holdings of thousands of processes."""
PAGE = 4096
_HEAD = struct.Struct("<QII")  # the number of this writing, the length, the check sum
_COUNT, _MOMENT = struct.Struct("<Q"), struct.Struct("<d")

SHORTEST, LONGEST = 0.0005, 0.01
"""Seconds between two looks at what other processes hold: first and at most."""
PATIENCE = 1.0
"""Seconds after which a waiting call is let go before those that came later in other processes, so that it does not
starve. Before that whoever comes takes what is free: handing it over would leave it idle until the other looks."""


class SharedCounts:
    """This process's part of the holdings. Raises `FileNotFoundError` where the folder is gone or not here."""

    def __init__(self, folder: str) -> None:
        self.folder, self.owner = folder, f"{os.getpid()}-{os.urandom(4).hex()}"
        self._files: list[int] = []
        self.forget = weakref.finalize(self, _close, self._files)
        self._rates: dict[str, int] = {}
        if not os.path.isdir(folder):
            raise FileNotFoundError(folder)
        import fcntl

        self._fcntl = fcntl
        try:
            _lock(self._open(self.owner), wait=True)
            self._state = self._open(STATE)
        except BaseException:
            self.close()
            raise
        _known.add(self)

    def take(self, gates: tuple[Gate, ...], since: float) -> float | None:
        with self._locked():
            turn, state = self._read()
            now = time.monotonic()
            held, waiting = state.setdefault("held", {}), state.setdefault("waiting", {})
            waited = now - since
            pause = self._pause(gates, held, now)
            if pause <= 0 and not self._is_barred(gates, waiting, since, now):
                self._hold(gates, held, now)
                waiting.pop(f"{self.owner} {since}", None)
                self._write(turn + 1, state)
                return None
            if waited > PATIENCE:
                waiting[f"{self.owner} {since}"] = [since, now, [gate.key for gate in gates]]
                self._write(turn + 1, state)
        return max(pause, min(max(waited / 4, SHORTEST), LONGEST))

    def give(self, gates: tuple[Gate, ...]) -> None:
        if not self._files or all(gate.per is not None for gate in gates):
            return
        with self._locked():
            turn, state = self._read()
            row = state.get("held", {}).get(self.owner)
            if row is not None:
                give_back(row, gates)
                if not row:
                    del state["held"][self.owner]
                self._write(turn + 1, state)

    def close(self) -> None:
        self.forget()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, self.owner))

    def _pause(self, gates: tuple[Gate, ...], held: dict[str, dict[str, float]], now: float) -> float:
        """Seconds until all gates could be taken, as far as that is known; 0 where they can be now."""
        pause = 0.0
        for gate in gates:
            if gate.per is not None:
                pause = max(pause, self._rate_pause(gate, now))
            elif not fits(gate, total(held.values(), gate.key)):
                self._bury([owner for owner, row in held.items() if gate.key in row], held)
                if not fits(gate, total(held.values(), gate.key)):
                    pause = max(pause, SHORTEST)
        return pause

    def _is_barred(self, gates: tuple[Gate, ...], waiting: dict[str, list[Any]], since: float, now: float) -> bool:
        """Whether a call of another process waits for one of these gates for longer, and patience is over."""
        keys = {gate.key for gate in gates}
        for call, (began, seen, wanted) in list(waiting.items()):
            if now - seen > PATIENCE:  # its process is gone, or nobody wants it any more
                del waiting[call]
            elif began < since and not call.startswith(self.owner) and not keys.isdisjoint(wanted):
                return True
        return False

    def _hold(self, gates: tuple[Gate, ...], held: dict[str, dict[str, float]], now: float) -> None:
        for gate in gates:
            if gate.per is None:
                row = held.setdefault(self.owner, {})
                row[gate.key] = added(row.get(gate.key, 0), gate.takes)
            else:
                file, count = self._rate(gate)
                # The moment first: who dies in between has begun nothing.
                os.pwrite(file, _MOMENT.pack(now), _COUNT.size + count % int(gate.most) * _MOMENT.size)
                os.pwrite(file, _COUNT.pack(count + 1), 0)

    def _rate(self, gate: Gate) -> tuple[int, int]:
        """The file of a rate, and how many calls have begun."""
        file = self._rates.get(gate.key)
        if file is None:
            import hashlib

            file = self._rates[gate.key] = self._open(f"rate-{hashlib.sha256(gate.key.encode()).hexdigest()[:32]}")
        found = os.pread(file, _COUNT.size, 0)
        return file, _COUNT.unpack(found)[0] if found else 0

    def _rate_pause(self, gate: Gate, now: float) -> float:
        file, count = self._rate(gate)
        if count < gate.most:
            return 0.0
        found = os.pread(file, _MOMENT.size, _COUNT.size + count % int(gate.most) * _MOMENT.size)
        assert gate.per is not None
        return max(0.0, float(_MOMENT.unpack(found)[0]) + gate.per - now)

    def _bury(self, owners: list[str], held: dict[str, Any]) -> None:
        """Forget what the dead among them held."""
        for owner in owners:
            if not self._is_alive(owner):
                held.pop(owner, None)

    def _is_alive(self, owner: str) -> bool:
        """Whether a process still holds the lock on its file."""
        if owner == self.owner:
            return True
        path = os.path.join(self.folder, owner)
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if not _lock(file, wait=False):
                return True
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return False
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        _lock(self._state, wait=True)
        try:
            yield
        finally:
            self._fcntl.flock(self._state, self._fcntl.LOCK_UN)

    def _read(self) -> tuple[int, dict[str, Any]]:
        """The latest writing that is whole, and its number."""
        best: tuple[int, bytes] = (0, b"{}")
        for start in (0, AREA):
            page = os.pread(self._state, PAGE, start)
            if len(page) < _HEAD.size:
                continue
            turn, length, check = _HEAD.unpack_from(page)
            text = page[_HEAD.size : _HEAD.size + length]
            if turn <= best[0]:
                continue
            if len(text) < length:
                text += os.pread(self._state, length - len(text), start + len(page))
            if zlib.crc32(text) == check:
                best = (turn, text)
        return best[0], json.loads(best[1])

    def _write(self, turn: int, state: Mapping[str, Any]) -> None:
        text = json.dumps(state, separators=(",", ":")).encode()
        assert len(text) <= AREA - _HEAD.size, "the holdings of one run outgrew their file"
        os.pwrite(self._state, _HEAD.pack(turn, len(text), zlib.crc32(text)) + text, turn % 2 * AREA)

    def _open(self, name: str) -> int:
        file = os.open(os.path.join(self.folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._files.append(file)
        return file


def _lock(file: int, *, wait: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close(files: list[int]) -> None:
    while files:
        os.close(files.pop())


_known: weakref.WeakSet[SharedCounts] = weakref.WeakSet()


def _forget() -> None:
    """A forked child must not keep its parent's lock alive."""
    for counts in list(_known):
        counts.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
