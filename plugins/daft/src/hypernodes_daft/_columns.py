"""Steps as columns of a dataframe of row numbers. Daft gets a reference to this module, never a user's function."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from hypernodes_daft import _runner
from hypernodes_daft._phases import Column

__all__ = ["ROW", "compute", "dataframe", "serving"]

ROW = "row"
"""The column of row numbers that everything begins with."""

Work = Callable[[int, list[int]], "Future[None]"]
"""Computes a step, by index, for rows; the future says when it is done and never raises."""

_served: dict[int, Work] = {}
_tokens = itertools.count(1)


@contextmanager
def serving(work: Work) -> Iterator[int]:
    """In this block, columns with the token that it gives are computed by `work`."""
    token = next(_tokens)
    _served[token] = work
    try:
        yield token
    finally:
        del _served[token]


async def compute(token: int, at: int, rows: Any, *needed: Any) -> Any:
    """A column's rows: what its step makes of them goes to the side store, their numbers go on."""
    work = _served.get(token)
    if work is not None:
        # Whatever comes of it, this ends in order: Daft forgets what else it awaits when one call raises.
        with contextlib.suppress(asyncio.CancelledError):
            # In ascending order, as batches of what comes before overtake one another.
            await asyncio.wrap_future(work(at, sorted(rows.to_pylist())))
    return rows


def dataframe(token: int, columns: Sequence[Column], rows: int, rows_of_batch: int) -> Any:
    """A lazy dataframe of so many rows, with a column for each step."""
    daft = _runner.load()
    whole = daft.DataType.int64()
    frame = daft.from_pydict({ROW: daft.Series.from_pylist(list(range(rows)), ROW, dtype=whole)})
    names: dict[int, str] = {}
    for column in columns:
        reference = functools.partial(compute, token, column.at)
        reference.__name__ = reference.__qualname__ = column.name  # type: ignore[attr-defined]
        reference.__module__ = ""
        batch = -(-rows_of_batch // column.batch) * column.batch if column.batch else rows_of_batch
        function = daft.func.batch(return_dtype=whole, batch_size=batch)(reference)
        needs = [ROW, *(names[at] for at in column.needs)]
        names[column.at] = f"{column.at}: {column.name}"
        frame = frame.with_column(names[column.at], function(*map(daft.col, needs)))
    return frame
