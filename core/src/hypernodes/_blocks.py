"""Blocks of rows: steps that work off many rows at a time, so that a batch node gets its batches.

The values of a block lie in columns, one list for each slot. Steps for one item run in compiled loops over the columns,
batch nodes take slices of them, and where a mapped pipeline holds batch nodes the inner rows of all rows of the block
are one block below it. A row that fails leaves the block; what becomes of the others does not depend on it.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple, TypeVar

from hypernodes._answer import columns_from
from hypernodes._errors import NodeTimeoutError, PipelineTimeoutError, ends_call
from hypernodes._failure import Located
from hypernodes._flow import FromAbove, flow_into
from hypernodes._layout import Batched, Fan, Layout, Loop, lay_out
from hypernodes._plan import MapStep, Step
from hypernodes._program import begin_in_function, columns_of, kept_call, map_rows, with_index
from hypernodes._record import RecordedBatch, is_stopped

__all__ = ["Block", "drive", "fan_call", "run_block"]

T = TypeVar("T")


class Fault(NamedTuple):
    """Why a row left its block, and what had been made of its outputs before, by slot."""

    located: Located
    made: dict[int, Any]


class Block(NamedTuple):
    """What came of the rows of a block: which of them came through, their outputs in columns, and the others."""

    rows: list[int]
    columns: list[list[Any]]
    faults: dict[int, Fault]


class _Open:
    """A block under way: the columns of the rows that are still in it."""

    def __init__(self, layout: Layout, columns: Sequence[list[Any]], count: int, salvages: bool) -> None:
        self.layout, self.count = layout, count
        self.columns = dict(zip(layout.inputs, columns, strict=True))
        self.rows = list(range(count))
        self.faults: dict[int, Fault] = {}
        self.salvaged = set(layout.outputs).difference(layout.inputs) if salvages else set()

    def column(self, slots: Sequence[int]) -> list[list[Any]]:
        return [self.columns[slot] for slot in slots]

    def drop(self, faults: Mapping[int, Fault]) -> None:
        """Take rows out, by their position in the columns."""
        if not faults:
            return
        columns = self.columns
        for at, fault in faults.items():
            made = {slot: columns[slot][at] for slot in self.salvaged if slot in columns}
            self.faults[self.rows[at]] = Fault(fault.located, made | fault.made)
        keeps = [at not in faults for at in range(self.count)]
        for slot, column in columns.items():
            columns[slot] = list(itertools.compress(column, keeps))
        self.rows = list(itertools.compress(self.rows, keeps))
        self.count = len(self.rows)

    def stops(self, error: BaseException) -> bool:
        """Whether this stops everything, and is not the failure of a row."""
        if self.layout.flavour == "sync":
            return isinstance(error, KeyboardInterrupt)
        return is_stopped(error)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("plain nodes wait for nothing")


async def run_block(layout: Layout, columns: Sequence[list[Any]], count: int, *, salvages: bool = False) -> Block:
    """Run so many rows, given as a column for each input. With `salvages`, faults come with the outputs made before.

    Waits for nothing where all nodes are plain functions, so that it can be driven without an event loop.
    """
    block = _Open(layout, columns, count, salvages)
    del columns
    for part, ended in layout.parts:
        if not block.count:
            return Block([], [[] for _ in layout.outputs], block.faults)
        if isinstance(part, Loop):
            await _loop(part, block)
        elif isinstance(part, Batched):
            await _batched(part, block)
        else:
            await _fan(part, block)
        for slot in ended:
            del block.columns[slot]
    return Block(block.rows, block.column(layout.outputs), block.faults)


async def _loop(part: Loop, block: _Open) -> None:
    program = part.program
    columns = block.column(part.reads)
    rows = zip(*columns, strict=True) if len(columns) > 1 else iter(columns[0]) if columns else iter(range(block.count))
    made: list[list[Any]] = [[] for _ in part.writes]
    faults: dict[int, Fault] = {}
    plain = block.layout.flavour == "sync"
    while True:
        # The rows after one that failed go on where the loop was left: a loop costs nothing for each row.
        try:
            if plain:
                program.call(rows, *made)
            else:
                await program.call(rows, *made)
            break
        except BaseException as error:
            if block.stops(error):
                raise
            found = program.made(error) if block.salvaged else {}
            located = program.locate(error)
            if located is None:
                raise
            # What later steps made, as the loop's frame has it, is of the row before.
            before = {slot for step in program.steps[: located.step] for slot in step.writes} & block.salvaged
            own = {slot: value for slot, value in found.items() if slot in before}
            faults[len(made[0]) + len(faults)] = Fault(_shifted(located, part.first), own)
    block.drop(faults)
    block.columns.update(zip(part.writes, made, strict=True))


def _shifted(located: Located, first: int) -> Located:
    return Located(located.error, located.path, located.items, located.step + first, located.kept)


async def _batched(part: Batched, block: _Open) -> None:
    step = part.step
    batching = step.node.batching
    assert batching is not None and step.lists is not None
    shared = [block.columns[slot] for name, slot in step.inputs if name not in step.lists]
    made: list[list[Any]] = [[] for _ in step.writes]
    failed: dict[int, BaseException] = {}
    for rows in _batches(block.count, batching.size, shared):
        if block.layout.in_thread is not None and not step.node.is_async:
            await block.layout.in_thread(_driven, part, block, rows, made, failed)
        else:
            await _one_batch(part, block, rows, made, failed)
    faults = {}
    for at, error in failed.items():
        kept = kept_call(step, {name: block.columns[slot][at] for name, slot in step.inputs}) if step.keeps else None
        faults[at] = Fault(Located(error, step.path, (None,) * len(step.path), part.at, kept), {})
    block.drop(faults)
    block.columns.update(zip(step.writes, made, strict=True))


def _batches(count: int, size: int, shared: Sequence[Sequence[Any]]) -> Iterator[range]:
    """The rows of each batch: as many as fit, with the same value in each of the shared columns."""
    start = 0
    for edge in (*sorted({at for column in shared for at in _changes(column)}), count):
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


async def _one_batch(
    part: Batched, block: _Open, rows: range, made: list[list[Any]], failed: dict[int, BaseException]
) -> None:
    """Call the node for a batch, and again for its halves where it raised; each row ends in `made` or in `failed`."""
    step, node = part.step, part.step.node
    spans = None if step.span is None else block.columns[step.span][rows.start : rows.stop]
    recorded = None if spans is None else RecordedBatch(step.path, spans)
    own: dict[int, BaseException] = {}
    todo: list[Sequence[int]] = [rows if step.clock is None else _in_time(step, block, rows, own)]
    while todo:
        batch = todo.pop()
        if not batch:
            continue
        called = False
        try:
            value = part.call(*_hidden(step, block, batch), **_arguments(step, block, batch))
            if node.is_async:
                value = await value
            called = True
            columns = columns_from(value, node, len(batch))
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
            own.update(dict.fromkeys(batch, error))
            continue
        for all_made, column in zip(made, columns, strict=True):
            all_made += column
    if recorded is not None:
        recorded.end({at - rows.start: error for at, error in own.items()})
    failed |= own


def _driven(*arguments: Any) -> None:
    drive(_one_batch(*arguments))


def _may_halve(node: Any, error: BaseException) -> bool:
    """Whether an item of the batch may be at fault; one that runs out of time says nothing of its items."""
    return bool(node.batching.isolate) and not isinstance(error, NodeTimeoutError | PipelineTimeoutError)


def _in_time(step: Step, block: _Open, rows: range, failed: dict[int, BaseException]) -> list[int]:
    """The rows that have time left; the others fail."""
    assert step.clock is not None
    deadlines, found = block.columns[step.clock], []
    for at in rows:
        try:
            deadlines[at].left(step.node.name)
            found.append(at)
        except PipelineTimeoutError as error:
            failed[at] = error
    return found


def _hidden(step: Step, block: _Open, batch: Sequence[int]) -> list[Any]:
    """The deadline that comes first, and the scope, which is the same for all rows of a call."""
    hidden: list[Any] = []
    if step.clock is not None:
        deadlines = block.columns[step.clock]
        hidden.append(min([deadlines[at] for at in batch], key=_when))
    if step.scope is not None:
        hidden.append(block.columns[step.scope][batch[0]])
    return hidden


def _when(deadline: Any) -> float:
    return deadline.at  # type: ignore[no-any-return]


def _arguments(step: Step, block: _Open, batch: Sequence[int]) -> dict[str, Any]:
    """A fresh list for each parameter that takes one, and the value that all rows of the batch have for the others."""
    assert step.lists is not None
    arguments: dict[str, Any] = {}
    for name, slot in step.inputs:
        column = block.columns[slot]
        if name not in step.lists:
            arguments[name] = column[batch[0]]
        elif isinstance(batch, range):
            arguments[name] = column[batch.start : batch.stop]
        else:
            arguments[name] = [column[at] for at in batch]
    return arguments


async def _fan(part: Fan, block: _Open) -> None:
    step = part.step
    width, depth = len(step.writes), len(step.path) - 1
    lists: list[list[list[Any]]] = []
    faults: dict[int, Fault] = {}
    rows: list[tuple[Any, ...]] = []
    runs: list[tuple[int, int, int]] = []  # which row, its inner row that comes first, and where that is in `rows`

    async def work_off() -> None:
        columns, count = columns_of(rows, len(step.sources)), len(rows)
        rows.clear()
        found = await run_block(part.layout, columns, count)
        starts = [start for _, _, start in runs]
        for inner in sorted(found.faults):
            at, index, start = runs[bisect_left(starts, inner + 1) - 1]
            if at not in faults:
                raised = found.faults[inner].located
                items = with_index(raised.items, depth, index + inner - start)
                faults[at] = Fault(Located(raised.error, raised.path, items, part.at, raised.kept), {})
        for (at, _, start), stop in zip(runs, (*starts[1:], count), strict=True):
            if found.faults:
                start, stop = bisect_left(found.rows, start), bisect_left(found.rows, stop)
            for results, column in zip(lists[at], found.columns, strict=True):
                results += column[start:stop]
        runs.clear()

    for at, values in enumerate(zip(*block.column(step.sources), strict=True)):
        lists.append([[] for _ in range(width)])
        try:
            inner_rows = map_rows(step, values)
        except BaseException as error:
            if block.stops(error):
                raise
            faults[at] = Fault(Located(error, step.path, (None,) * len(step.path), part.at), {})
            continue
        flow = flow_into(step, values)
        start = len(rows)
        try:
            index = 0
            while at not in faults:
                start = len(rows)
                rows += itertools.islice(inner_rows, part.rows - start)
                if len(rows) > start:
                    runs.append((at, index, start))
                if len(rows) < part.rows:
                    break
                index += len(rows) - start
                await work_off()
            if flow is not None:
                # Where a row failed, the generator may still: its step is the earlier one.
                flow.drain()
        except FromAbove as error:
            if part.above is None:
                raise
            faults[at] = Fault(error.located(part.above, part.at - 1), {})
            del rows[start:]
        except BaseException:
            # A row that fails raises nothing here: this stops everything.
            if flow is not None:
                flow.stop()
            raise
    if rows:
        await work_off()
    block.drop(faults)
    done = [found for at, found in enumerate(lists) if at not in faults]
    block.columns.update({slot: [found[at] for found in done] for at, slot in enumerate(step.writes)})


def fan_call(step: MapStep, flavour: str, in_thread: Callable[..., Any] | None) -> Callable[..., Any]:
    """A function of the step's sources that runs its inner plan in blocks; a coroutine function unless "sync"."""
    slots = list(dict.fromkeys(step.sources))
    layout = lay_out([step], slots, step.writes, flavour=flavour, in_thread=in_thread)
    positions = [step.sources.index(slot) for slot in slots]

    async def run_async(*values: Any) -> list[Any]:
        found = await run_block(layout, [[values[at]] for at in positions], 1)
        for fault in found.faults.values():
            raise fault.located
        return [column[0] for column in found.columns]

    return run_async if flavour != "sync" else lambda *values: drive(run_async(*values))
