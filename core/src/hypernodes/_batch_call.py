"""The call of a batch node: which rows go together, what it is given, and what becomes of a batch that raises."""

from __future__ import annotations

import itertools
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from operator import is_
from typing import Any, TypeVar

from hypernodes._answer import columns_from
from hypernodes._clock import Deadline
from hypernodes._errors import (
    BatchLengthError,
    NodeTimeoutError,
    OutputCountError,
    PipelineTimeoutError,
    PlaceError,
    ends_call,
)
from hypernodes._layout import Batched
from hypernodes._node import Node
from hypernodes._program import begin_in_function
from hypernodes._record import RecordedBatch, is_stopped

__all__ = ["batches", "call_batch", "call_batch_plainly", "drive"]

T = TypeVar("T")

Columns = Mapping[int, list[Any]]
"""By slot, one value for each row."""


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("plain nodes wait for nothing")


def batches(count: int, size: int, shared: Sequence[Sequence[Any]]) -> Iterator[range]:
    """The rows of each batch: as many as fit, with the same value in each of the shared columns."""
    start = 0
    edges = sorted({at for column in shared for at in _changes(column)}) if shared else ()
    for edge in (*edges, count):
        for at in range(start, edge, size):
            yield range(at, min(at + size, edge))
        start = edge


def _changes(column: Sequence[Any]) -> list[int]:
    """Where a column has another value than just before."""
    if all(map(is_, column, itertools.repeat(column[0]))):
        return []
    return [at for at, (before, now) in enumerate(itertools.pairwise(column), 1) if not _same(before, now)]


def _same(one: Any, other: Any) -> bool:
    """Whether no function could tell the two apart."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) is float:
        return bool(one.hex() == other.hex())  # 0.0 and -0.0 are equal, but not the same
    return type(one) in (str, int, bool, bytes) and one == other


async def call_batch(
    part: Batched, columns: Columns, rows: range, made: list[list[Any]], failed: dict[int, BaseException]
) -> None:
    """Call the node for a batch, and again for its halves where it raised; each row ends in `made` or in `failed`."""
    step, node = part.step, part.step.node
    span, clock = part.span, part.clock
    recorded = None if span is None else RecordedBatch(step.path, columns[span][rows.start : rows.stop])
    own: dict[int, BaseException] = {}
    deadlines: dict[int, Deadline] = {}
    if clock is not None:
        now, times = time.time(), columns[clock]
        deadlines = {at: times[at].at(now) for at in rows}
    todo: list[Sequence[int]] = [rows if clock is None else _in_time(node, deadlines, own)]
    while todo:
        batch = todo.pop()
        if not batch:
            continue
        called = False
        try:
            value = part.call(*_hidden(part, columns, batch, deadlines), **_arguments(part, columns, batch))
            if node.is_async:
                value = await value
            called = True
            found = columns_from(value, node, len(batch))
        except BaseException as error:
            if ends_call(error) or (is_stopped(error) if node.is_async else isinstance(error, KeyboardInterrupt)):
                if recorded is not None:
                    recorded.end({}, error)
                raise
            if not called and len(batch) > 1 and _may_halve(node, error):
                middle = len(batch) // 2
                todo += [batch[middle:], batch[:middle]]
                continue
            if error.__traceback__ is not None:
                begin_in_function(error, error.__traceback__)
            own.update({at: _own(error) for at in batch})
            continue
        for all_made, column in zip(made, found, strict=True):
            all_made += column
    if recorded is not None:
        recorded.end({at - rows.start: error for at, error in own.items()})
    failed |= own


def call_batch_plainly(*arguments: Any) -> None:
    """The same in this thread, for a plain function."""
    drive(call_batch(*arguments))


def _may_halve(node: Node[..., Any], error: BaseException) -> bool:
    """Whether an item of the batch may be at fault; time that runs out and the place say nothing of the items."""
    assert node.batching is not None
    return node.batching.isolate and not isinstance(error, NodeTimeoutError | PipelineTimeoutError | PlaceError)


def _own(error: BaseException) -> BaseException:
    """An error of ours that many items have, each by itself: what is noted of one is not said of the others."""
    if type(error) not in (BatchLengthError, OutputCountError, NodeTimeoutError, PipelineTimeoutError):
        return error
    return type(error)(*error.args).with_traceback(error.__traceback__)


def _in_time(node: Node[..., Any], deadlines: Mapping[int, Deadline], failed: dict[int, BaseException]) -> list[int]:
    """The rows that have time left; the others fail."""
    found = []
    for at, deadline in deadlines.items():
        try:
            deadline.left(node.name)
            found.append(at)
        except PipelineTimeoutError as error:
            failed[at] = error
    return found


def _hidden(part: Batched, columns: Columns, batch: Sequence[int], deadlines: Mapping[int, Deadline]) -> list[Any]:
    """The deadline that comes first, and the scope, which is the same for all rows of a call."""
    hidden: list[Any] = []
    if part.clock is not None:
        hidden.append(min([deadlines[at] for at in batch], key=_when))
    if part.scope is not None:
        hidden.append(columns[part.scope][batch[0]])
    return hidden


def _when(deadline: Deadline) -> float:
    return deadline.at


def _arguments(part: Batched, columns: Columns, batch: Sequence[int]) -> dict[str, Any]:
    """A fresh list for each parameter that takes one, and the value that all rows of the batch have for the others."""
    if isinstance(batch, range):
        start, stop = batch.start, batch.stop
        arguments: dict[str, Any] = {name: columns[slot][start:stop] for name, slot in part.lists}
    else:
        arguments = {name: [columns[slot][at] for at in batch] for name, slot in part.lists}
    for name, slot in part.singles:
        arguments[name] = columns[slot][batch[0]]
    return arguments
