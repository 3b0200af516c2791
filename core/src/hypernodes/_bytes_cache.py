"""A cache over anything that keeps bytes: what entries are made of, what makes one a miss, and looking after them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hypernodes._cache import Cache, Found, Note, said
from hypernodes._entry import ENOUGH, Defect, Head, Part, head_of, head_size, length, payload_of, raw_key, sealed
from hypernodes._pickling import dump, load
from hypernodes._signing import SigningKey

__all__ = ["BytesCache", "Kept", "Refused"]


class Kept(NamedTuple):
    """An entry as its store lists it: its key, its length in bytes, and its last use in seconds since 1970."""

    key: str
    size: int
    used: float


class Refused(Exception):
    """Raised by `write` when the bytes are not kept for a reason that is no failure of the store; it says which."""


class BytesCache(Cache):
    """Keeps entries as bytes in a store. A subclass gives the store: `read`, `write`, `kept`, `delete`.

    What those four raise becomes a miss or a False, with a warning; so does whatever is wrong with the bytes of an
    entry. Nothing is unpickled before its checksum, or its signature where there is a `signing_key`, is verified.
    """

    signing_key: SigningKey | None = None

    @abstractmethod
    def read(self, key: str, most: int | None = None) -> tuple[bytes | bytearray, int] | None:
        """The bytes of an entry and its length, or None when there is none. Raises OSError, or Defect.

        With `most`, at least so many bytes of its beginning are enough. Arrays arrive writable from a bytearray
        without being copied.
        """

    @abstractmethod
    def write(self, key: str, parts: Sequence[Part], size: int) -> None:
        """Keep these parts, one after the other, in place of what was there: wholly or not at all.

        Raises OSError, or Refused.
        """

    @abstractmethod
    def kept(self) -> Iterator[Kept]:
        """Every entry of the store, in any order. Raises OSError."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Drop an entry, if there is one. Raises OSError."""

    def sweep(self) -> None:
        """Drop what writers that died left behind, where a store has such leftovers. Raises OSError."""

    def load(self, key: str) -> Found | None:
        try:
            raw = raw_key(key)
            got = self.read(key)
            if got is None:
                return None
            data, size = got
            stream, buffers = payload_of(data, head_of(data, size, raw, self.signing_key))
        except Defect as defect:
            self._miss(defect.kind, key, defect.reason)
            return None
        except Exception as error:
            self._miss("unreadable", key, f"it cannot be read ({said(error)})")
            return None
        try:
            return Found(load(stream, buffers))
        except (Exception, SystemExit) as error:  # a module that unpickling imports may even exit
            self._miss("unloadable", key, f"its value cannot be made again here ({said(error)})")
            return None

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        whose = f"the result of node '{note.get('node', '?')}'"
        try:
            raw = raw_key(key)
            stream, buffers = dump(value)
        except Exception as error:
            self.warn("unpicklable", f"{whose} is not kept, since it cannot be pickled ({said(error)})")
            return False
        try:
            parts = sealed(raw, stream, buffers, note, self.signing_key, time.time_ns())
            self.write(key, parts, length(parts))
        except Refused as reason:
            self.warn("refused", f"{whose} is not kept: {reason}")
            return False
        except Exception as error:
            self.warn("unwritable", f"{whose} is not kept, since it cannot be written ({said(error)}); the run goes on")
            return False
        return True

    def notes(self, node: str) -> Iterator[Note]:
        found = []
        for entry in self._kept_or_none():
            try:
                note = self.peek(entry.key)
            except (Exception, Defect):
                continue
            if note is not None and note.node == node:
                found.append(note)
        found.sort(key=lambda note: note.written, reverse=True)
        return iter(found)

    def peek(self, key: str) -> Note | None:
        """What is known of an entry, from its head alone; None when there is none. Raises Defect, or OSError."""
        got = self._head(key)
        if got is None:
            return None
        head, size = got
        return Note(key, head.written / 1e9, size, head.facts)

    def check(self, key: str) -> Note | None:
        """As `peek`, after reading and verifying all of the entry. Nothing is unpickled. Raises Defect, or OSError."""
        got = self.read(key)
        if got is None:
            return None
        data, size = got
        head = head_of(data, size, raw_key(key), self.signing_key)
        payload_of(data, head)
        return Note(key, head.written / 1e9, size, head.facts)

    def _head(self, key: str) -> tuple[Head, int] | None:
        most = ENOUGH
        while True:
            got = self.read(key, most)
            if got is None:
                return None
            data, size = got
            needed = head_size(data)
            if needed <= len(data) or len(data) >= size:
                return head_of(data, size, raw_key(key), self.signing_key), size
            most = min(needed, size)

    def _kept_or_none(self) -> list[Kept]:
        try:
            return list(self.kept())
        except Exception as error:
            self.warn("unlistable", f"its entries cannot be listed ({said(error)})")
            return []

    def _miss(self, kind: str, key: str, reason: str) -> None:
        self.warn(
            kind,
            f"entry {str(key)[:16]}... is not used: {reason}; its value is computed again. "
            "`hypernodes cache verify` finds such entries",
        )
