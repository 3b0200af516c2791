"""The rows of a mapped pipeline: from lists of items to rows, and back to lists of results."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from hypernodes._errors import GraphError, a_kind
from hypernodes._flow import flow_into
from hypernodes._plan import MapStep
from hypernodes._record import below

__all__ = ["as_items", "check_lengths", "columns_of", "map_rows", "mapped_lists", "with_index"]


def map_rows(step: MapStep, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The inner inputs of each row of a mapped step, from the values of its sources.

    Raises `GraphError` (a ValueError) for a value that is no list of items, or for unequal lengths under zip.
    """
    columns, combinations = mapped_lists(step, values)
    if step.mode == "product" or step.span is not None:
        return _rows(step, list(values), combinations)
    # What the rows share repeats without end. This takes a quarter of what `_rows` takes for a row.
    sources: list[Iterable[Any]] = [itertools.repeat(value) for value in values]
    for at, column in zip(step.mapped, columns, strict=True):
        sources[at] = column
    return zip(*sources)  # noqa: B905


def mapped_lists(step: MapStep, values: Sequence[Any]) -> tuple[list[Any], Iterator[tuple[Any, ...]]]:
    """What a mapped step maps over, lists or the one `Flow`, and their combinations. Raises as `map_rows` does."""
    flow = flow_into(step, values)
    if flow is not None:
        return [flow], zip(flow)
    owner = " > ".join(step.path)
    columns = [
        as_items(values[at], f"{owner}: map_over {name!r}") for at, name in zip(step.mapped, step.names, strict=True)
    ]
    return columns, check_lengths(columns, list(step.names), step.mode, owner)


def _rows(step: MapStep, base: list[Any], combinations: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """`base` once for each combination, with its elements in their places and what says which row it is."""
    span_at, depth = step.span, len(step.path) - 1
    outer: Any = None if span_at is None else base[span_at]
    for index, combination in enumerate(combinations):
        for at, element in zip(step.mapped, combination, strict=True):
            base[at] = element
        if span_at is not None:
            base[span_at] = below(outer, depth, index)
        yield tuple(base)


def check_lengths(columns: list[list[Any]], names: list[str], mode: str, owner: str) -> Iterator[tuple[Any, ...]]:
    """The combinations of the columns: item by item (lengths must agree), or all of them."""
    if mode == "product":
        return itertools.product(*columns)
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"'{name}' has {length}" for name, length in lengths.items())
        raise GraphError(f"{owner}: cannot zip lists of unequal lengths: {told}; use map_mode='product' for all pairs")
    return zip(*columns, strict=True)


def as_items(value: Any, owner: str) -> list[Any]:
    """A mapped value as a list; strings, bytes, mappings and single values are refused by name."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str | bytes | bytearray | Mapping):
        try:
            return list(value)
        except TypeError:
            # Not iterable: the sentence below says so.
            pass
    raise GraphError(f"{owner} takes a list of items, not {a_kind(value)}")


def with_index(items: tuple[int | None, ...], depth: int, index: int) -> tuple[int | None, ...]:
    """`items` with the index of a mapped level put in."""
    return (*items[:depth], index, *items[depth + 1 :])


def columns_of(rows: list[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows of results as one list for each output; lists even when there are no rows."""
    # `zip(*rows)` takes twice as long for 100,000 rows: an argument and an iterator for each.
    return [list(map(itemgetter(at), rows)) for at in range(width)]
