"""Large inputs that rows share: packed once and known by their digest, instead of in every request."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import Any, NamedTuple

from hypernodes._payload import Buffer, dumps, join, loads, split
from hypernodes._table import Table
from hypernodes._task import Stage

__all__ = ["LARGE", "SharedInputs", "rebuilt"]

LARGE = 64 * 1024
"""Bytes from which on a value travels apart: a digest takes 0.1 ms of them, a look into a worker's shelf nothing."""

_SMALL = frozenset({int, float, complex, bool, type(None)})


class _Seen(NamedTuple):
    value: Any
    packed: tuple[str, bytes] | None  # digest and bytes, None where it is not worth it
    again: bool  # whether it was seen in more than one request


class SharedInputs:
    """Finds, in the requests of one run, the inputs that are one large object in request after request.

    `steady` names the inputs that nobody changes between two rows, None means all. The first request with a value
    carries it as usual, so that a single request pays nothing.
    """

    def __init__(self, steady: Container[str] | None) -> None:
        self._steady = steady
        self._seen: dict[tuple[str, int], _Seen] = {}

    def apart(self, digest: str, stage: Stage, table: Table) -> dict[int, tuple[str, bytes]]:
        """By column of this table for the stage with this digest: what travels apart, as digest and bytes.

        Raises whatever pickling such a value raises.
        """
        found: dict[int, tuple[str, bytes]] = {}
        for at, column in enumerate(table.columns):
            value = column[0] if column else None
            if type(value) in _SMALL or value is not column[-1]:
                continue
            if self._steady is not None and stage.inputs[at][0] not in self._steady:
                continue
            if any(other is not value for other in column):
                continue
            seen = self._seen.get((digest, at))
            if seen is None or seen.value is not value:
                self._seen[digest, at] = _Seen(value, None, False)
                continue
            if not seen.again:
                seen = self._seen[digest, at] = _Seen(value, _packed(value), True)
            if seen.packed is not None:
                found[at] = seen.packed
        return found


def _packed(value: Any) -> tuple[str, bytes] | None:
    buffers: list[Any] = []
    body = dumps(value, buffers)
    raw = [buffer.raw() for buffer in buffers]
    if len(body) + sum(frame.nbytes for frame in raw) < LARGE:
        return None
    blob = join([body, *raw])
    return hashlib.blake2b(blob, digest_size=16).hexdigest(), blob


def rebuilt(blob: Buffer) -> Any:
    """A value of its own from what travelled apart: the next request must not see what is done to it."""
    body, *buffers = split(blob)
    return loads(body, [bytearray(frame) for frame in buffers])
