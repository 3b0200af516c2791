"""What travels, as bytes: values pickled, frames joined, a request with the blobs that came along with it."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from hypernodes._failure import text_of
from hypernodes._late import importing

__all__ = ["Buffer", "dumps", "join", "opened", "payload_of", "split"]

Buffer = bytes | bytearray | memoryview


def dumps(value: Any, buffers: list[Any] | None = None) -> bytes:
    """Pickle by cloudpickle: what `__main__` and notebooks define goes by value."""
    with importing("cloudpickle"):
        import cloudpickle

    callback = None if buffers is None else buffers.append
    try:
        pickled: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=callback)
    except (SystemExit, GeneratorExit) as error:
        # Raised by a value's own code; it must end neither this program nor a worker.
        raise pickle.PicklingError(f"{type(error).__name__}: {text_of(error)}") from error
    return pickled


def join(frames: Sequence[Buffer]) -> bytes:
    """Frames as one `bytes`."""
    sizes = [memoryview(frame).nbytes for frame in frames]
    return b"".join([struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes), *frames])


def split(payload: Buffer) -> list[memoryview]:
    """The frames of a joined payload, without copying; writable where the payload is."""
    view = memoryview(payload)
    (count,) = struct.unpack_from("<I", view)
    sizes = struct.unpack_from(f"<{count}Q", view, 4)
    frames, start = [], 4 + 8 * count
    for size in sizes:
        frames.append(view[start : start + size])
        start += size
    return frames


def payload_of(frames: Sequence[Buffer], blobs: Mapping[str, Buffer]) -> bytes:
    """One request as one `bytes`, with those blobs in it that do not travel another way."""
    return join([json.dumps(list(blobs)).encode(), *blobs.values(), *frames])


def opened(payload: Buffer) -> tuple[list[memoryview], dict[str, memoryview]]:
    """The frames of a request, and the blobs that came with it."""
    names, *rest = split(payload)
    digests: list[str] = json.loads(bytes(names))
    return rest[len(digests) :], dict(zip(digests, rest, strict=False))
