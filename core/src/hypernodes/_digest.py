"""The digest of a value: 32 bytes that say its type and its content, the same in every process.

A value is written as bytes that cannot be read in two ways, and those are hashed. Plain values ("atoms") are a tag, a
length and their content. Everything else is a head and a counted list of parts, each written in the same way. What is
longer than `LONGEST` stands as its own SHA-256, so that a part that many share is written once and no large buffer is
ever copied. The walk keeps its own stack: depth is bounded by memory alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from marshal import dumps
from typing import Any, NamedTuple, Protocol

from hypernodes._errors import UnkeyableError, a_kind

__all__ = ["LONGEST", "Follow", "Opened", "Refusal", "blob", "digest_of", "encode", "shortened"]

LONGEST = 256
"""Bytes that one part may take in the encoding of the whole."""

STEPS_SHOWN = 12


class Opened(NamedTuple):
    """A value taken apart: what it is, its parts in order, and how a message reaches each (`.text`, `[0]`)."""

    head: bytes
    parts: Sequence[Any]
    steps: Sequence[str] | None = None
    ordered: bool = True


class Refusal(Exception):
    """A value cannot be taken apart soundly; the text says why, as in 'is a lock: ...'."""


class Follow(Protocol):
    """How code is told when it is met as a value: functions, classes, methods, modules."""

    def __call__(self, thing: Any) -> bytes | Opened: ...


def digest_of(value: Any, name: str = "value") -> bytes:
    """32 bytes for the type and the content of `value`, alike in every process, hash seed, host and Python version.

    The order of a dict counts, for a function can see it; that of a set does not. `name` begins the path in messages.
    Raises `UnkeyableError` where the content cannot be told soundly, naming the part at fault.
    """
    known = _known(value)
    return sha256(encode(value, name) if known is None else known).digest()


def encode(root: Any, name: str, follow: Follow | None = None, where: str = "") -> bytes:
    """The bytes that stand for `root`, at most about `LONGEST` of them.

    `follow` tells code that is met as a value; without it, by its own digest. Raises `UnkeyableError`, whose message
    begins with `where`.
    """
    known = _known(root)
    if known is not None:
        return known
    frames: list[_Frame] = []
    active: set[int] = set()
    memo: dict[int, tuple[Any, bytes]] = {}  # holds the values too, so that no other gets their ids meanwhile
    frame = _Frame(None, Opened(b"", (root,)))
    try:
        while True:
            for part in frame.rest:
                known = _known(part)
                if known is None:
                    if id(part) in memo:
                        known = memo[id(part)][1]
                    else:
                        if id(part) in active:
                            raise Refusal("holds itself, and a circle has no end to write")
                        opened = _opened(part, follow)
                        if isinstance(opened, Opened):
                            frames.append(frame)
                            active.add(id(part))
                            frame = _Frame(part, opened)
                            break
                        known = opened
                frame.encoded.append(known)
            else:
                if not frames:
                    return frame.encoded[0]
                done = _framed(frame.opened.head, frame.encoded, frame.opened.ordered)
                active.discard(id(frame.value))
                if done[:1] == b"#":
                    memo[id(frame.value)] = (frame.value, done)
                frame = frames.pop()
                frame.encoded.append(done)
    except Refusal as refusal:
        path = [*frames[1:], frame] if frames else []
        raise UnkeyableError(
            f"{where}'{name}{_steps(path)}' cannot be part of a cache key: it {refusal}; "
            "define __cache_key__ on its class, use plain data, or switch caching off for the node: @node(cache=False)"
        ) from refusal.__cause__


class _Frame:
    """A value that is being written."""

    __slots__ = ("encoded", "opened", "rest", "value")

    def __init__(self, value: Any, opened: Opened) -> None:
        self.value = value
        self.opened = opened
        self.rest: Iterator[Any] = iter(opened.parts)
        self.encoded: list[bytes] = []


def _known(value: Any) -> bytes | None:
    """The encoding of an atom, or of a plain container that holds nothing but atoms: what most inputs are."""
    kind = type(value)
    atom = ATOMS.get(kind)
    if atom is not None:
        return atom(value)
    if kind is dict:
        plain = _PLAIN.issuperset(map(type, value)) and _PLAIN.issuperset(map(type, value.values()))
    else:
        plain = (kind is list or kind is tuple) and _PLAIN.issuperset(map(type, value))
    # Format 2 is the last without references, which depend on who else holds a part. Written by hand, three fields take
    # 4.4 us, with this 2.
    return shortened(b"m" + dumps(value, 2)) if plain else None


_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_SEQUENCES: dict[type, bytes] = {list: b"list", tuple: b"tuple"}


def _opened(value: Any, follow: Follow | None) -> bytes | Opened:
    kind = type(value)
    if kind is dict:
        return Opened(b"dict", list(chain.from_iterable(value.items())))
    if kind is list or kind is tuple:
        return Opened(_SEQUENCES[kind], value)
    from hypernodes._digest_kinds import opened

    try:
        return opened(value, follow)
    except (Refusal, UnkeyableError):
        raise
    except Exception as error:
        # A value's own code ran: a property, `__cache_key__`. Whatever it raises, there is no key for this value.
        raise Refusal(f"is {a_kind(value)} that raised {type(error).__name__} when it was read") from error


def _framed(head: bytes, encoded: list[bytes], ordered: bool = True) -> bytes:
    if not ordered:
        encoded.sort()
    whole = b"".join((b"(", _HEAD.pack(len(head), len(encoded)), head, *encoded))
    return whole if len(whole) <= LONGEST else b"#" + sha256(whole).digest()


_HEAD = struct.Struct("<IQ")


def _steps(path: list[_Frame]) -> str:
    """How the part at fault is reached: each open value has written as many parts as stand before that one."""
    steps = [_step(frame) for frame in path]
    if len(steps) > STEPS_SHOWN:
        steps = [*steps[: STEPS_SHOWN // 2], "...", *steps[-STEPS_SHOWN // 2 :]]
    return "".join(steps)


def _step(frame: _Frame) -> str:
    at = len(frame.encoded)
    if frame.opened.steps is not None:
        return frame.opened.steps[at] if at < len(frame.opened.steps) else ""
    if not frame.opened.ordered:
        return "{...}"
    if frame.opened.head != b"dict":
        return f"[{at}]"
    key = frame.opened.parts[at - at % 2]
    shown = repr(key) if type(key) in (str, int) and len(str(key)) <= 60 else f"<a {type(key).__name__}>"
    return f"[{shown}]" if at % 2 else f".<key {shown}>"


# -- atoms


def shortened(encoded: bytes) -> bytes:
    """`encoded`, or its digest where it is long."""
    return encoded if len(encoded) <= LONGEST else b"#" + sha256(encoded).digest()


def blob(tag: bytes, content: bytes | bytearray | memoryview) -> bytes:
    """A tag, a length and bytes; long ones are hashed where they lie."""
    size = len(content) if not isinstance(content, memoryview) else content.nbytes
    head = tag + size.to_bytes(8, "little")
    if len(head) + size <= LONGEST:
        return head + content
    whole = sha256(head)
    whole.update(content)
    return b"#" + whole.digest()


def _int(value: int) -> bytes:
    try:
        return b"i" + value.to_bytes(8, "little", signed=True)
    except OverflowError:
        return blob(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _str(value: str) -> bytes:
    try:
        content = value.encode()
    except UnicodeEncodeError:
        content = value.encode("utf-8", "surrogatepass")  # a lone surrogate, which such an encoding keeps apart
    size = len(content)
    return b"s" + size.to_bytes(8, "little") + content if size < LONGEST - 9 else blob(b"s", content)


_FLOAT = struct.Struct("<cd")
_COMPLEX = struct.Struct("<cdd")

ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    type(...): lambda value: b".",
    type(NotImplemented): lambda value: b"!",
    bool: lambda value: b"T" if value else b"F",
    int: _int,
    float: lambda value: _FLOAT.pack(b"f", value),
    complex: lambda value: _COMPLEX.pack(b"c", value.real, value.imag),
    str: _str,
    bytes: lambda value: blob(b"b", value),
    bytearray: lambda value: blob(b"a", value),
}
