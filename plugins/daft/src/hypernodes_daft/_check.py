"""Native forms compared with the functions they stand for, on some rows of each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypernodes import HypernodesError, Pipeline
from hypernodes_daft._body import Body, Resources
from hypernodes_daft._same import same

__all__ = ["NativeMismatchError", "compare"]


class NativeMismatchError(HypernodesError):
    """The native form of a node gives another value than its function. The message names the node, the row and both."""


def compare(
    pipeline: Pipeline,
    node: str,
    outputs: Sequence[str],
    reads: Sequence[str],
    shared: Mapping[str, Any],
    rows: Sequence[int],
    made: Sequence[list[Any]],
    lists: Sequence[list[Any]],
    most: int,
    resources: Resources,
) -> None:
    """Call the node's function for `most` of the rows, evenly spread, and compare. Raises `NativeMismatchError`."""
    count = len(rows)
    chosen = sorted({at * count // min(most, count) for at in range(min(most, count))})
    body = Body(pipeline, reads, outputs, shared, True, resources)
    inputs = [[values[at] for at in chosen] for values in lists]
    found, reasons = body([rows[at] for at in chosen], [None] * len(chosen), inputs)
    for position, at in enumerate(chosen):
        for name, column, native in zip(outputs, found, made, strict=True):
            if reasons[position] is None and same(column[position], native[at]):
                continue
            said = reasons[position] or _shown(column[position])
            raise NativeMismatchError(
                f"node '{node}': for '{name}' in row {rows[at]} its function gives {said}, and its native form gives "
                f"{_shown(native[at])}; correct the native form, or use the function: map_frame(..., native=False)"
            )


def _shown(value: Any) -> str:
    return f"{value!r:.60} ({type(value).__name__})"
