"""Values as bytes: a pickle stream, and large buffers beside it that are never copied."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from typing import Any

__all__ = ["dump", "load"]

ASIDE = 64 * 1024
"""Buffers of fewer bytes stay in the stream: a copy is cheaper than one more part."""

_LATE = {"__slotnames__", "__annotations__", "__annotations_cache__", "__annotate_func__"}
"""What Python itself adds to a class when it is first pickled or looked at."""
_MAINS = ("__main__", "__mp_main__")


def dump(value: Any) -> tuple[bytes, list[memoryview]]:
    """The stream and the large buffers of a value. Whatever pickling raises comes through.

    Plain pickle does it where every class can be imported by name, which takes a microsecond; cloudpickle where
    something is defined in `__main__`, in a function or a notebook, or is to go by value.
    """
    buffers: list[memoryview] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        """Whether the buffer stays in the stream."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < ASIDE:
            return True
        buffers.append(raw)
        return False

    if not _any_by_value():
        try:
            stream = pickle.dumps(value, 5, buffer_callback=aside)
        except Exception:
            stream = b"__main__"  # cloudpickle may know how; what it cannot do either, it says
        if b"_main__" not in stream:  # also when a text only speaks of it: that costs time and harms nothing
            return stream, buffers
        buffers.clear()
    file = BytesIO()
    _careful_pickler()(file, 5, buffer_callback=aside).dump(value)
    return file.getvalue(), buffers


def load(stream: bytes | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """The value again. Arrays use the memory of `buffers`, and are writable if those are."""
    return pickle.loads(stream, buffers=buffers)


def _any_by_value() -> bool:
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


@cache
def _careful_pickler() -> Callable[..., Any]:
    import cloudpickle

    class Careful(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
        """Sends classes of `__main__` by name and by value: run again, a script gets instances of its own classes."""

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and obj.__module__ in _MAINS and _in_main(obj.__qualname__) is obj:
                return _class_of_main, (obj.__qualname__, _shape(obj), cloudpickle.dumps(obj, protocol=5))
            return super().reducer_override(obj)

    return Careful


def _class_of_main(name: str, shape: list[str], by_value: bytes) -> Any:
    """The class of that name in this process's `__main__` if it has the same members, or else the one that was kept."""
    found = _in_main(name)
    return found if isinstance(found, type) and _shape(found) == shape else pickle.loads(by_value)


def _in_main(name: str) -> Any:
    found: Any = sys.modules.get("__main__")
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _shape(made: type) -> list[str]:
    annotations = vars(made).get("__annotations__", {})
    return sorted({*vars(made), *annotations} - _LATE)
