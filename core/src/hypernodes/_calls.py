"""What a call of a pipeline asks for, checked: which inputs are given, which outputs are wanted, in which shape."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hypernodes._errors import GraphError, UnknownInputError, UnknownOutputError, a_kind, did_you_mean, quoted
from hypernodes._graph import Graph
from hypernodes._nest import check_map_mode, names_of
from hypernodes._program import LONGEST_DISPLAY
from hypernodes._rows import as_items, check_lengths
from hypernodes._table import Table

__all__ = ["Columns", "Wanted", "merged", "row_getter", "row_runs", "wanted"]


class Wanted(NamedTuple):
    """The outputs of a call; `bare` says that the single one comes without a dict around it."""

    names: tuple[str, ...]
    bare: bool

    def shape(self, values: tuple[Any, ...]) -> Any:
        """One row's outputs in the form that was asked for."""
        return values[0] if self.bare else dict(zip(self.names, values, strict=True))

    def shape_all(self, rows: Iterable[Any]) -> list[Any]:
        """The same for many rows."""
        if self.bare:
            return rows.columns[0] if isinstance(rows, Table) else [row[0] for row in rows]
        return dicts_maker(self.names)(rows)


@functools.lru_cache(64)
def dicts_maker(names: tuple[str, ...]) -> Callable[[Iterable[tuple[Any, ...]]], list[dict[str, Any]]]:
    """A function from rows to dicts under these names; as a display each costs 0.2 us, by `dict(zip(...))` 0.5 us."""
    if not 0 < len(names) <= LONGEST_DISPLAY:
        return lambda rows: [dict(zip(names, row)) for row in rows]  # noqa: B905 - one value for each name, and faster
    spelt = [f"value_{at}" for at in range(len(names))]
    display = ", ".join(f"{name!r}: {value}" for name, value in zip(names, spelt, strict=True))
    made: Callable[..., Any] = eval(f"lambda rows: [{{{display}}} for {', '.join(spelt)}, in rows]", {})
    return made


def row_getter(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """A function from a row to the values under these names, as a tuple."""
    if len(names) > 1:
        return operator.itemgetter(*names)
    if not names:
        return lambda _: ()
    (only,) = names
    return lambda row: (row[only],)


def wanted(graph: Graph, output_name: object, output_nodes: object) -> Wanted:
    """The wanted outputs; all of them where neither option is given. Raises for what the pipeline does not make."""
    if output_name is not None and output_nodes is not None:
        raise GraphError(
            f"pipeline '{graph.name}': give output_name= for one bare value or output_nodes= for a dict, not both"
        )
    if output_name is not None:
        if not isinstance(output_name, str):
            raise UnknownOutputError(
                f"pipeline '{graph.name}': output_name={output_name!r}; it takes one name, "
                "several go in output_nodes=[...]"
            )
        graph.check_outputs((output_name,))
        return Wanted((output_name,), True)
    if output_nodes is None:
        return Wanted(graph.outputs, False)
    if isinstance(output_nodes, str) or not isinstance(output_nodes, Iterable):
        raise UnknownOutputError(
            f"pipeline '{graph.name}': output_nodes={output_nodes!r}; it takes a list of names, "
            "a single one goes in output_name="
        )
    names = tuple(output_nodes)
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None:
        raise UnknownOutputError(f"pipeline '{graph.name}': output_nodes holds {odd!r}; it takes names as strings")
    names = tuple(dict.fromkeys(names))
    graph.check_outputs(names)
    return Wanted(names, False)


def merged(pipeline: str, inputs: object, more: dict[str, Any]) -> dict[str, Any]:
    """`inputs` and keyword inputs together. Raises where they are no mapping or name one input twice."""
    if inputs is None:
        return more
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"pipeline '{pipeline}': inputs are given as a dict of names, such as {{'text': ...}}, "
            f"not as {a_kind(inputs)}"
        )
    twice = [name for name in more if name in inputs]
    if twice:
        raise GraphError(f"pipeline '{pipeline}': {quoted(twice)} given twice, in inputs and as a keyword")
    for name in inputs:
        if not isinstance(name, str):
            raise UnknownInputError(f"pipeline '{pipeline}': the input name {name!r} is not a string")
    return {**inputs, **more}


class Columns:
    """Inputs of which some are lists to map over."""

    def __init__(self, graph: Graph, inputs: Mapping[str, Any], map_over: str | Sequence[str], map_mode: str) -> None:
        owner = f"pipeline '{graph.name}'"
        self.names = names_of(owner, "map_over", map_over)
        for name in self.names:
            if name not in inputs:
                raise UnknownInputError(
                    f"{owner}: map_over names {name!r}, which is not among the given inputs"
                    f"{did_you_mean(name, inputs)}; given: {quoted(inputs)}"
                )
        mode = check_map_mode(owner, map_mode)
        columns = [as_items(inputs[name], f"{owner}: map_over {name!r}") for name in self.names]
        self.rows: Iterator[tuple[Any, ...]] = check_lengths(columns, list(self.names), mode, owner)
        self.lists = dict(zip(self.names, columns, strict=True)) if mode == "zip" else None
        """The lists themselves, where rows are made of them item by item."""
        sizes = [len(column) for column in columns]
        self.total = math.prod(sizes) if mode == "product" else sizes[0] if sizes else 0
        self.shared = {name: value for name, value in inputs.items() if name not in self.names}


def check_items(pipeline: str, items: object) -> Iterable[Any]:
    """`items` if it can be rows. A dict, a string or a single value is refused with what to write instead."""
    if isinstance(items, Mapping):
        raise TypeError(
            f"pipeline '{pipeline}': map(items) takes rows, a list of dicts, not one dict; "
            "for columns write map(inputs={'x': [...]}, map_over='x')"
        )
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TypeError(f"pipeline '{pipeline}': map(items) takes an iterable of dicts, not {a_kind(items)}")
    return items


def row_runs(
    pipeline: str, items: Iterable[Any], start: int = 0
) -> Iterator[tuple[int, tuple[str, ...], Iterator[dict[str, Any]]]]:
    """Rows in runs with the same keys: for each run the index of its first row, the keys and an iterator of its rows.

    Almost always there is one. Each run's iterator must be used up before the next run is drawn. Rows are counted from
    `start`.
    """
    rows = _checked(pipeline, items, start)
    ahead = next(rows, None)

    def run(first: dict[str, Any]) -> Iterator[dict[str, Any]]:
        nonlocal ahead, start
        names = first.keys()
        ahead = None
        yield first
        start += 1
        for following in rows:
            if following.keys() != names:
                ahead = following
                return
            yield following
            start += 1

    while ahead is not None:
        yield start, tuple(ahead), run(ahead)


def _checked(pipeline: str, items: Iterable[Any], start: int) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(items, start):
        # A dict is told by its type in 0.02 us; the abstract class takes 0.2 us.
        if type(row) is not dict and not isinstance(row, Mapping):
            raise not_a_row(pipeline, index, row)
        yield row  # type: ignore[misc]


def not_a_row(pipeline: str, index: int, row: object) -> TypeError:
    return TypeError(
        f"pipeline '{pipeline}': item {index} is {a_kind(row)}; map() takes dicts, such as {{'text': ...}}"
    )
