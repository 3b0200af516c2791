"""`MemoryCache`: results of this process, kept until they are not used for longest."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hypernodes._cache import Cache, Found, Note, bound_of, said
from hypernodes._pickling import dump, load

__all__ = ["MemoryCache", "named"]

_UNCHANGING = frozenset({type(None), bool, int, float, complex, str, bytes})


class _Kept(NamedTuple):
    value: Any  # as it is, when nobody can change it
    stream: bytes | None
    buffers: tuple[bytes, ...]
    note: Note


class MemoryCache(Cache):
    """Keeps results in this process: `MemoryCache(max_entries=1000)`.

    Each hit is a value of its own: results are kept as bytes, so that changing one later changes no other hit. What
    cannot change (numbers, text) is kept as it is. `max_entries` and `max_bytes` bound it; the entries that were not
    used for longest go first. Threads may share it. Pickled, it arrives empty.
    """

    def __init__(self, max_entries: int | None = None, max_bytes: int | None = None) -> None:
        self.max_entries = bound_of(max_entries, "max_entries", "MemoryCache")
        self.max_bytes = bound_of(max_bytes, "max_bytes", "MemoryCache")
        self._entries: OrderedDict[str, _Kept] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def load(self, key: str) -> Found | None:
        with self._lock:
            kept = self._entries.get(key)
            if kept is None:
                return None
            self._entries.move_to_end(key)
        if kept.stream is None:
            return Found(kept.value)
        try:
            return Found(load(kept.stream, [bytearray(buffer) for buffer in kept.buffers]))
        except (Exception, SystemExit) as error:
            self.warn("unloadable", f"a value cannot be made again ({said(error)}); it is computed again")
            return None

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        whose = f"the result of node '{note.get('node', '?')}'"
        stream: bytes | None = None
        buffers: tuple[bytes, ...] = ()
        if type(value) in _UNCHANGING:
            size = value.__sizeof__()
        else:
            try:
                stream, views = dump(value)
                buffers = tuple(map(bytes, views))
            except Exception as error:
                self.warn("unpicklable", f"{whose} is not kept, since it cannot be pickled ({said(error)})")
                return False
            size, value = len(stream) + sum(map(len, buffers)), None
        if self.max_bytes is not None and size > self.max_bytes:
            self.warn("refused", f"{whose} is not kept: it takes {size} bytes, and max_bytes is {self.max_bytes}")
            return False
        kept = _Kept(value, stream, buffers, Note(key, time.time(), size, dict(note)))
        with self._lock:
            before = self._entries.pop(key, None)
            self._entries[key] = kept
            self._total += size - (before.note.size if before else 0)
            while self._too_much():
                _, dropped = self._entries.popitem(last=False)
                self._total -= dropped.note.size
        return True

    def _too_much(self) -> bool:
        return (self.max_entries is not None and len(self._entries) > self.max_entries) or (
            self.max_bytes is not None and self._total > self.max_bytes
        )

    def notes(self, node: str) -> Iterator[Note]:
        with self._lock:
            found = [kept.note for kept in self._entries.values() if kept.note.node == node]
        return iter(sorted(found, key=lambda note: note.written, reverse=True))

    def clear(self) -> None:
        """Drop every entry."""
        with self._lock:
            self._entries.clear()
            self._total = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache

    def __repr__(self) -> str:
        bounds = {"max_entries": self.max_entries, "max_bytes": self.max_bytes}
        shown = [f"{name}={bound}" for name, bound in bounds.items() if bound is not None]
        return f"MemoryCache({', '.join(shown)})"

    def __reduce__(self) -> tuple[Callable[..., MemoryCache], tuple[Any, ...]]:
        return MemoryCache, (self.max_entries, self.max_bytes)


_named: dict[str, MemoryCache] = {}
_naming = threading.Lock()


def named(name: str) -> MemoryCache:
    """The memory cache of this name in this process; made, unbounded, when it is first asked for."""
    with _naming:
        return _named.setdefault(name, MemoryCache())
