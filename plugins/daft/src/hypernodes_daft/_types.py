"""Typed columns, checked exactly: a column holds what the node returned, or the row that does not fit is named."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hypernodes import Node, Pipeline
from hypernodes_daft._same import same

__all__ = ["ColumnType", "ColumnTypeError", "column_types"]


class ColumnTypeError(TypeError):
    """A value does not fit its typed column. The message names the column, the row and both types."""


class ColumnType(NamedTuple):
    """What a column holds: values of exactly the type `kind`, or None where `optional`.

    With `kind` None it holds any Python objects, or, where there is a `dtype` of Daft's, what comes back from it as it
    was.
    """

    kind: type | None
    optional: bool
    dtype: Any

    @property
    def is_python(self) -> bool:
        return self.dtype is None

    def __str__(self) -> str:
        if self.kind is None:
            return "object" if self.dtype is None else str(self.dtype)
        return f"{self.kind.__name__} | None" if self.optional else self.kind.__name__

    def misfit(self, values: Sequence[Any], back: Sequence[Any]) -> int | None:
        """The position of the first value that is not of this type, or came `back` as another; None where all are."""
        if self.kind is None:
            fitting = map(same, values, back)
        else:
            fits = {self.kind, type(None)} if self.optional else {self.kind}
            if set(map(type, values)) <= fits:
                return None
            fitting = map(fits.__contains__, map(type, values))
        return next((at for at, fits in enumerate(fitting) if not fits), None)


def column_types(daft: Any, pipeline: Pipeline, asked: Mapping[str, Any]) -> dict[str, ColumnType]:
    """The type of each output's column: what is asked for, else what its node's annotation says exactly.

    Raises `TypeError` for a type that no column can have, and `ValueError` for a name that is no output.
    """
    exact = _exact(daft)
    for name in asked:
        if name not in pipeline.output_names:
            raise ValueError(f"types names {name!r}, which pipeline '{pipeline.name}' does not make")
    found = {}
    for name in pipeline.output_names:
        if name in asked:
            found[name] = _asked(daft, name, asked[name], exact)
        else:
            node = pipeline.graph.nodes[pipeline.graph.producers[name]]
            found[name] = _of(_annotation(node, name), exact) or ColumnType(None, True, None)
    return found


def _exact(daft: Any) -> dict[type, Any]:
    kinds = daft.DataType
    return {
        str: kinds.string(),
        int: kinds.int64(),
        float: kinds.float64(),
        bool: kinds.bool(),
        bytes: kinds.binary(),
    }


def _asked(daft: Any, name: str, wanted: Any, exact: Mapping[type, Any]) -> ColumnType:
    if wanted is object:
        return ColumnType(None, True, None)
    if isinstance(wanted, daft.DataType):
        return ColumnType(None, True, None if wanted.is_python() else wanted)
    found = _of(wanted, exact)
    if found is None:
        raise TypeError(
            f"types={{{name!r}: {wanted!r}}}; give str, int, float, bool or bytes, one of them with | None, a "
            "daft.DataType, or object for Python objects as they are"
        )
    return found


def _of(annotation: Any, exact: Mapping[type, Any]) -> ColumnType | None:
    """The typed column of an annotation; None where it does not say exactly one."""
    if isinstance(annotation, type) and annotation in exact:
        return ColumnType(annotation, False, exact[annotation])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1 and len(typing.get_args(annotation)) == 2 and kinds[0] in exact:
            return ColumnType(kinds[0], True, exact[kinds[0]])
    return None


def _annotation(node: Any, name: str) -> Any:
    """What the node that makes this output says of it, in nested pipelines too; None where it says nothing."""
    while not isinstance(node, Node):  # a nested pipeline: resources make no outputs
        if node.map_over:
            return None
        name = next(inner for inner, outer in node.outer_names.items() if outer == name)
        graph = node.pipeline.graph
        node = graph.nodes[graph.producers[name]]
    if node.is_generator:
        return None
    try:
        returned = typing.get_type_hints(node.func).get("return")
    except Exception:
        # An annotation that cannot be resolved says nothing.
        return None
    if node.unpacks:
        parts = typing.get_args(returned) if typing.get_origin(returned) is tuple else ()
        returned = parts[node.outputs.index(name)] if len(parts) == len(node.outputs) else None
    if node.batching is not None:
        returned = typing.get_args(returned)[0] if typing.get_origin(returned) is list else None
    return returned
