"""One entry of a cache as bytes: a sealed head, and a payload whose digest the head holds.

    head     magic 6, version 1, codec 1, seal's kind 1, unused 3, note's length 4, number of buffers 4, unused 4,
             stream's length 8, time of writing 8 (ns since 1970), own key 32, SHA-256 of the payload 32;
             the note as JSON; the length of each buffer, 8 bytes each
    seal     32 bytes over the head: SHA-256, or HMAC-SHA-256 where the cache has a signing key
    payload  the pickle stream; each buffer, beginning at a multiple of 64 bytes from the start of the payload

Numbers are little-endian. The seal covers the payload through its digest, so a head can be believed without reading
gigabytes after it. Nothing is decoded before both are verified.
"""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from hypernodes._signing import SigningKey

__all__ = ["ENOUGH", "Defect", "Head", "Part", "head_of", "head_size", "length", "payload_of", "raw_key", "sealed"]

Part = bytes | memoryview

MAGIC = b"\x93HNC\r\n"
VERSION = 1
PICKLE = 1  # the only codec so far
HASHED, SIGNED = 0, 1
ALIGNMENT = 64

_FIXED = struct.Struct("<6sBBB3xII4xQQ32s32s")
_SEAL = 32
ENOUGH = 4096
"""A head is nearly always within this many bytes."""


class Defect(Exception):
    """Why bytes are not the entry that was asked for: a `kind` in a word, and a reason in half a sentence."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Head(NamedTuple):
    """A head that has been verified. `start` is where the payload begins, `written` in ns since 1970."""

    key: bytes
    content: bytes
    stream: int
    buffers: tuple[int, ...]
    written: int
    digest: bytes
    start: int

    @property
    def facts(self) -> Mapping[str, Any]:
        found = json.loads(self.content[_FIXED.size : len(self.content) - 8 * len(self.buffers)])
        return found if isinstance(found, dict) else {}


def raw_key(key: str) -> bytes:
    """The 32 bytes that a key of 64 hexadecimal digits stands for; a Defect when it is no such key."""
    try:
        raw = bytes.fromhex(key)
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != 32 or raw.hex() != key:  # capitals and spaces would be other file names for the same key
        raise Defect("key", "the key is not made of 64 lower-case hexadecimal digits")
    return raw


def sealed(
    key: bytes,
    stream: bytes,
    buffers: Sequence[memoryview],
    note: Mapping[str, Any],
    signing: SigningKey | None,
    written: int,
) -> list[Part]:
    """The parts of an entry in their order. Buffers are not copied.

    Raises TypeError or ValueError when the note is not JSON-able.
    """
    payload: list[Part] = [stream]
    end = len(stream)
    for buffer in buffers:
        gap = -end % ALIGNMENT
        if gap:
            payload.append(bytes(gap))
        payload.append(buffer)
        end += gap + buffer.nbytes
    digest = sha256(stream)
    for part in payload[1:]:
        digest.update(part)
    text = json.dumps(note, separators=(",", ":"), allow_nan=False).encode()
    kind = HASHED if signing is None else SIGNED
    count = len(buffers)
    fixed = _FIXED.pack(MAGIC, VERSION, PICKLE, kind, len(text), count, len(stream), written, key, digest.digest())
    head = fixed + text
    if count:
        head += struct.pack(f"<{count}Q", *(buffer.nbytes for buffer in buffers))
    payload[0] = head + _seal(head, signing) + stream
    return payload


def length(parts: Sequence[Part]) -> int:
    """How many bytes these are."""
    return sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)


def head_size(data: bytes | bytearray) -> int:
    """How many bytes the head and its seal claim to take; a Defect when this is no head."""
    _, _, _, _, note, count, *_ = _fixed(data)
    return int(_FIXED.size + note + 8 * count + _SEAL)


def head_of(data: bytes | bytearray, size: int, key: bytes, signing: SigningKey | None) -> Head:
    """The verified head of the entry of this key. `data` begins an entry of `size` bytes and holds all of its head.

    Raises Defect.
    """
    _, version, codec, kind, note, count, stream, written, own, digest = _fixed(data)
    if version != VERSION or codec != PICKLE:
        raise Defect("version", f"it is of format {version}.{codec}, which this version of hypernodes does not read")
    end = _FIXED.size + note + 8 * count
    start = end + _SEAL
    if start > len(data):
        raise Defect("damaged", "it is cut off")
    head, seal = bytes(data[:end]), data[end:start]
    if signing is None:
        if kind == SIGNED:
            raise Defect("signed", "it is signed, and this cache has no signing key")
        if kind != HASHED or sha256(head).digest() != seal:
            raise Defect("damaged", "its checksum does not match")
    elif kind == HASHED:
        raise Defect("unsigned", "it is not signed, and this cache has a signing key")
    elif kind != SIGNED or not hmac.compare_digest(signing.sign(head), seal):
        raise Defect("signature", "its signature does not match: it is damaged, or was signed with another key")
    if own != key:
        raise Defect("moved", "it belongs to another key")
    lengths: tuple[int, ...] = ()
    total = stream
    if count:
        lengths = struct.unpack_from(f"<{count}Q", head, end - 8 * count)
        for one in lengths:
            total += -total % ALIGNMENT + one
    if start + total != size:
        raise Defect("damaged", f"it has {size} bytes instead of {start + total}")
    return Head(own, head, stream, lengths, written, digest, start)


def payload_of(data: bytes | bytearray, head: Head) -> tuple[memoryview, list[memoryview]]:
    """The pickle stream and the buffers of an entry whose head was verified, as parts of `data`. Raises Defect."""
    payload = memoryview(data)[head.start :]
    if sha256(payload).digest() != head.digest:
        raise Defect("damaged", "its checksum does not match")
    if not head.buffers:
        return payload, []
    if isinstance(data, bytes):
        payload = memoryview(bytearray(payload))  # arrays are to arrive writable
    at, buffers = head.stream, []
    for one in head.buffers:
        at += -at % ALIGNMENT
        buffers.append(payload[at : at + one])
        at += one
    return payload[: head.stream], buffers


def _fixed(data: bytes | bytearray) -> tuple[Any, ...]:
    if len(data) < _FIXED.size:
        raise Defect("damaged", "it is empty" if not data else "it is cut off")
    fields = _FIXED.unpack_from(data)
    if fields[0] != MAGIC:
        raise Defect("foreign", "it is not an entry of a hypernodes cache")
    return fields


def _seal(head: bytes, signing: SigningKey | None) -> bytes:
    return sha256(head).digest() if signing is None else signing.sign(head)
