"""How PyArrow's values are taken apart for their digest: by logical content, however they are cut into chunks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from hypernodes._digest import Opened, Refusal
from hypernodes._digest_kinds import Raw

__all__ = ["opener_of"]


def opener_of(kind: type) -> Callable[[Any], bytes | Opened] | None:
    """What takes this type of PyArrow apart; None where it is none that is known."""
    arrow: Any = sys.modules["pyarrow"]
    if kind in (arrow.Table, arrow.RecordBatch):
        return _table
    if kind is arrow.ChunkedArray:
        return lambda value: Opened(b"arrow chunked", (_described(value.type), *_column(value.type, value.chunks)))
    if issubclass(kind, arrow.Array):
        return lambda value: Opened(b"arrow array", (_described(value.type), *_column(value.type, [value])))
    if issubclass(kind, arrow.Scalar):
        return _scalar
    if issubclass(kind, arrow.Schema):
        return lambda value: Opened(b"arrow schema", _schema(value))
    if issubclass(kind, arrow.Field):
        return lambda value: Opened(b"arrow field", _field(value))
    if issubclass(kind, arrow.DataType):
        return lambda value: Opened(b"arrow type", _described(value))
    if kind is arrow.Buffer:
        return lambda value: Opened(b"arrow buffer", (memoryview(value),))
    return None


def _table(value: Any) -> Opened:
    parts: list[Any] = [type(value).__name__, _schema(value.schema), value.num_rows]
    steps = ["", "", ""]
    for at, field in enumerate(value.schema):
        column = value.column(at)
        chunks = column.chunks if hasattr(column, "chunks") else [column]
        parts.append(_column(field.type, chunks))
        steps.append(f"[{field.name!r}]")
    return Opened(b"arrow table", parts, steps)


def _scalar(value: Any) -> Opened:
    arrow: Any = sys.modules["pyarrow"]
    one = arrow.repeat(value, 1)
    return Opened(b"arrow scalar", (_described(value.type), *_column(value.type, [one])))


# -- types


def _schema(value: Any) -> tuple[Any, ...]:
    return (tuple(map(_field, value)), _metadata(value.metadata))


def _field(value: Any) -> tuple[Any, ...]:
    return (value.name, value.nullable, _metadata(value.metadata), *_described(value.type))


def _metadata(value: Any) -> Any:
    return None if value is None else tuple(sorted(value.items()))


def _described(kind: Any) -> tuple[Any, ...]:
    """A type and, where it has any, its fields, as plain data."""
    arrow: Any = sys.modules["pyarrow"]
    if isinstance(kind, arrow.BaseExtensionType):
        own = kind.__arrow_ext_serialize__() if isinstance(kind, arrow.ExtensionType) else b""
        return ("extension", kind.extension_name, own, *_described(kind.storage_type))
    return (str(kind), tuple(_field(kind.field(at)) for at in range(kind.num_fields)))


# -- content


def _column(kind: Any, chunks: list[Any]) -> tuple[Any, ...]:
    """The content of equally typed chunks, as if they were one: how many, which are null, and what the others are."""
    arrow: Any = sys.modules["pyarrow"]
    types = arrow.types
    count, nulls = sum(map(len, chunks)), sum(chunk.null_count for chunk in chunks)
    head = (count, _bits(_valid(chunks)) if nulls else None)
    if types.is_null(kind):
        return (count,)
    if isinstance(kind, arrow.BaseExtensionType):
        return _column(kind.storage_type, [chunk.storage for chunk in chunks])
    if types.is_dictionary(kind):
        return _dictionary(kind, chunks, head)
    if types.is_struct(kind):
        parts = [chunk.flatten() for chunk in chunks]
        fields = [_column(kind.field(at).type, [part[at] for part in parts]) for at in range(kind.num_fields)]
        return (*head, *fields)
    if types.is_map(kind):
        pairs = arrow.list_(arrow.struct([("key", kind.key_type), ("value", kind.item_type)]))
        return _column(pairs, [chunk.cast(pairs) for chunk in chunks])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lengths = [_filled(_compute().list_value_length(chunk), 0).cast(arrow.int64()) for chunk in chunks]
        return (*head, _values(lengths, 8), _column(kind.value_type, [chunk.flatten() for chunk in chunks]))
    return (*head, *_flat(kind, chunks))


def _flat(kind: Any, chunks: list[Any]) -> tuple[Any, ...]:
    arrow: Any = sys.modules["pyarrow"]
    types = arrow.types
    if types.is_boolean(kind):
        return (_bits([_filled(chunk, False) for chunk in chunks]),)
    view = {"string_view": arrow.large_string(), "binary_view": arrow.large_binary()}.get(str(kind))
    if view is not None:
        return _flat(view, [chunk.cast(view) for chunk in chunks])
    wide = types.is_large_string(kind) or types.is_large_binary(kind)
    if wide or types.is_string(kind) or types.is_binary(kind):
        empty = "" if types.is_large_string(kind) or types.is_string(kind) else b""
        filled = [_filled(chunk, empty) for chunk in chunks]
        lengths = [_compute().binary_length(chunk).cast(arrow.int64()) for chunk in filled]
        return (_values(lengths, 8), _hashed(_texts(chunk, wide) for chunk in filled))
    try:
        width = kind.bit_width // 8
    except ValueError:
        raise Refusal(f"is Arrow data of type '{kind}', which is not known") from None
    zero = arrow.scalar(bytes(width), kind) if types.is_fixed_size_binary(kind) else None
    if zero is None:
        zero = arrow.Array.from_buffers(kind, 1, [None, arrow.py_buffer(bytes(width))])[0]
    return (_values([_filled(chunk, zero) for chunk in chunks], width),)


def _dictionary(kind: Any, chunks: list[Any], head: tuple[Any, ...]) -> tuple[Any, ...]:
    arrow: Any = sys.modules["pyarrow"]
    if len(chunks) > 1:
        chunks = arrow.chunked_array(chunks, kind).unify_dictionaries().chunks
    words = _column(kind.value_type, [chunks[0].dictionary]) if chunks else None
    return (*head, words, _column(kind.index_type, [chunk.indices for chunk in chunks]))


def _compute() -> Any:
    import importlib

    return importlib.import_module("pyarrow.compute")  # the value is PyArrow's, so the library is loaded


def _filled(chunk: Any, value: Any) -> Any:
    return _compute().fill_null(chunk, value) if chunk.null_count else chunk


def _valid(chunks: list[Any]) -> list[Any]:
    return [_compute().is_valid(chunk) for chunk in chunks]


def _bits(chunks: list[Any]) -> Raw:
    arrow: Any = sys.modules["pyarrow"]
    return _values([chunk.cast(arrow.uint8()) for chunk in chunks], 1)


def _values(chunks: list[Any], width: int) -> Raw:
    """Elements of `width` bytes each, without what lies before and behind a slice."""
    return _hashed(_fixed(chunk, width) for chunk in chunks)


def _fixed(chunk: Any, width: int) -> memoryview:
    buffer = chunk.buffers()[1]
    view = memoryview(b"" if buffer is None else buffer).cast("B")
    return view[chunk.offset * width : (chunk.offset + len(chunk)) * width]


def _texts(chunk: Any, wide: bool) -> memoryview:
    _, starts, content = chunk.buffers()
    if not len(chunk) or content is None:
        return memoryview(b"")
    at = memoryview(starts).cast("B").cast("q" if wide else "i")
    return memoryview(content).cast("B")[at[chunk.offset] : at[chunk.offset + len(chunk)]]


def _hashed(pieces: Any) -> Raw:
    whole = sha256()
    size = 0
    for piece in pieces:
        whole.update(piece)
        size += len(piece)
    return Raw(b"#" + sha256(size.to_bytes(8, "little") + whole.digest()).digest())
