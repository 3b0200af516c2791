"""Columns for Daft of Python values, and a column of several columns, as which they leave a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypernodes_daft._types import ColumnType, ColumnTypeError

__all__ = ["joined", "joined_type", "part"]


def joined_type(daft: Any, kinds: Sequence[tuple[str, ColumnType]]) -> Any:
    """The type of a column that holds all of these: a struct where all are typed, else Python tuples."""
    if any(kind.is_python for _, kind in kinds):
        return daft.DataType.python()
    return daft.DataType.struct({name: kind.dtype for name, kind in kinds})


def joined(daft: Any, columns: Sequence[tuple[str, ColumnType, list[Any]]], rows: Sequence[int]) -> Any:
    """The values as one such column; `rows` are their numbers. Raises `ColumnTypeError`."""
    if any(kind.is_python for _, kind, _ in columns):
        for name, kind, values in columns:
            if not kind.is_python:
                _array(daft, name, kind, values, rows)
        return _objects(daft, list(zip(*[values for _, _, values in columns], strict=True)))
    import pyarrow

    arrays = [_array(daft, name, kind, values, rows) for name, kind, values in columns]
    return pyarrow.StructArray.from_arrays(arrays, [name for name, _, _ in columns])


def part(daft: Any, at: int, name: str, kind: ColumnType) -> Callable[[Any], Any]:
    """A function from a column of tuples to the one of their elements at a position."""

    def pick(column: Any) -> Any:
        values = [row[at] for row in column.to_pylist()]
        return _objects(daft, values) if kind.is_python else _array(daft, name, kind, values, ())

    return pick


def _objects(daft: Any, values: list[Any]) -> Any:
    return daft.Series.from_pylist(values, "objects", dtype=daft.DataType.python())


def _array(daft: Any, name: str, kind: ColumnType, values: list[Any], rows: Sequence[int]) -> Any:
    at, why = (None, "") if kind.kind is None else (kind.misfit(values, values), "")
    if at is None:
        try:
            array = _arrow(daft, kind, values)
            if kind.kind is None:
                at = kind.misfit(values, daft.Series.from_arrow(array).to_pylist())
            if at is None:
                return array
        except _UNFIT as error:
            at, why = _culprit(daft, kind, values), f": {error}"
    found = f"{values[at]!r:.60} ({type(values[at]).__name__}){why}"
    raise ColumnTypeError(
        f"the column '{name}' holds {kind}, and row {rows[at]} gave {found}. Correct the node or its annotation, "
        f"or give types={{{name!r}: object}} for Python objects as they are"
    )


_UNFIT = (OverflowError, UnicodeError, TypeError, ValueError)


def _arrow(daft: Any, kind: ColumnType, values: list[Any]) -> Any:
    if kind.kind is None:
        return daft.Series.from_pylist(values, "values", dtype=kind.dtype).to_arrow()
    # Arrow itself refuses what does not fit; Daft makes None of an int of more than 64 bits.
    import pyarrow

    makers = {
        str: pyarrow.large_string,
        int: pyarrow.int64,
        float: pyarrow.float64,
        bool: pyarrow.bool_,
        bytes: pyarrow.large_binary,
    }
    return pyarrow.array(values, makers[kind.kind]())


def _culprit(daft: Any, kind: ColumnType, values: list[Any]) -> int:
    """The position of the first value that cannot be in such a column."""
    for at, value in enumerate(values):
        try:
            _arrow(daft, kind, [value])
        except _UNFIT:
            return at
    return 0
