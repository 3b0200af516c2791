"""What travels, as bytes: values pickled, frames joined, a request with the blobs that came along with it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import CodeType
from typing import Any

from hypernodes._failure import text_of
from hypernodes._late import importing

__all__ = ["Buffer", "dumps", "join", "loads", "opened", "payload_of", "split"]

Buffer = bytes | bytearray | memoryview


def dumps(value: Any, buffers: list[Any] | None = None) -> bytes:
    """Pickle by cloudpickle: what `__main__` and notebooks define goes by value."""
    file = io.BytesIO()
    try:
        _pickler()(file, protocol=5, buffer_callback=None if buffers is None else buffers.append).dump(value)
    except (SystemExit, GeneratorExit) as error:
        # Raised by a value's own code; it must end neither this program nor a worker.
        raise pickle.PicklingError(f"{type(error).__name__}: {text_of(error)}") from error
    return file.getvalue()


@cache
def _pickler() -> Callable[..., Any]:
    with importing("cloudpickle"):
        import cloudpickle

    known = cloudpickle.Pickler.dispatch_table

    def reduced(code: CodeType) -> tuple[Any, ...]:
        make, parts, *rest = known[CodeType](code)
        return make, tuple(code.co_filename if part == "<dynamic-code>" else part for part in parts), *rest

    class WithFiles(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
        """Leaves code the name of its file, which cloudpickle takes away: the tracebacks of workers show it."""

        dispatch_table = known.new_child({CodeType: reduced})

    return WithFiles


def loads(pickled: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Unpickle what came from another machine; tensors of a GPU that this one has not are put into its memory."""
    try:
        return pickle.loads(pickled, buffers=buffers)
    except RuntimeError:
        # What torch says of a device that is not here; torch is imported by then, as the pickle names it.
        if "torch" not in sys.modules:
            raise
        return _AtHome(io.BytesIO(pickled), buffers=buffers).load()


class _AtHome(pickle.Unpickler):
    """Gives storages of torch to the processor's memory."""

    def find_class(self, module: str, name: str) -> Any:
        return _storage_in_memory if (module, name) == _STORAGE else super().find_class(module, name)


_STORAGE = ("torch.storage", "_load_from_bytes")
"""What a pickled tensor's storage is rebuilt by."""


def _storage_in_memory(stored: bytes) -> Any:
    return sys.modules["torch"].load(io.BytesIO(stored), map_location="cpu", weights_only=False)


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
