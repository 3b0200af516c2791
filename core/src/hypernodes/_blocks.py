"""Blocks of rows: steps that work off many rows at a time, so that a batch node gets its batches.

The values of a block lie in columns, one list for each slot. Steps for one item run in compiled loops over the columns,
batch nodes take slices of them, and where a mapped pipeline holds batch nodes the inner rows of all rows of the block
are one block below it. A row that fails leaves the block; what becomes of the others does not depend on it.
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hypernodes._batch_call import batches, call_batch, call_batch_plainly, drive
from hypernodes._failure import Located
from hypernodes._flow import FromAbove, flow_into
from hypernodes._layout import Batched, Fan, Layout, Loop, lay_out
from hypernodes._own_time import moments, on_own_time, own_times, spend
from hypernodes._plan import MapStep
from hypernodes._program import kept_call
from hypernodes._record import below, is_stopped
from hypernodes._rows import columns_of, mapped_lists, with_index

__all__ = ["Block", "fan_call", "run_block"]


class Fault(NamedTuple):
    """Why a row left its block, and what had been made of its outputs before, by slot."""

    located: Located
    made: dict[int, Any]


class Block(NamedTuple):
    """What came of the rows of a block: which of them came through, their outputs in columns, and the others."""

    rows: Sequence[int]
    columns: list[list[Any]]
    faults: dict[int, Fault]


class _Open:
    """A block under way: the columns of the rows that are still in it."""

    def __init__(self, layout: Layout, columns: Sequence[list[Any]], count: int, salvages: bool) -> None:
        self.layout, self.count = layout, count
        self.columns = dict(zip(layout.inputs, columns, strict=True))
        if layout.clocks:
            for slot in layout.clocks.intersection(layout.inputs):
                self.columns[slot] = own_times(self.columns[slot])
        self.rows: Sequence[int] = range(count)
        self.faults: dict[int, Fault] = {}
        self.salvaged: set[int] = set(layout.outputs).difference(layout.inputs) if salvages else set()

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
    if layout.clocks:
        for slot in layout.clocks.intersection(layout.outputs):
            block.columns[slot] = moments(block.columns[slot])
    return Block(block.rows, block.column(layout.outputs), block.faults)


async def _loop(part: Loop, block: _Open) -> None:
    program = part.program
    columns = block.column(part.reads)
    rows: Iterator[Any] = (
        zip(*columns, strict=True) if len(columns) > 1 else iter(columns[0]) if columns else iter(range(block.count))
    )
    made: list[list[Any]] = [[] for _ in part.writes]
    faults: dict[int, Fault] = {}
    plain, clocks = block.layout.flavour == "sync", block.layout.clocks
    if clocks:
        rows = on_own_time(rows, part, block.columns, clocks, made)
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
    if faults:
        block.drop(faults)
    block.columns.update(zip(part.writes, made, strict=True))


def _shifted(located: Located, first: int) -> Located:
    return Located(located.error, located.path, located.items, located.step + first, located.kept)


async def _batched(part: Batched, block: _Open) -> None:
    step = part.step
    batching = step.node.batching
    assert batching is not None
    shared = [block.columns[slot] for _, slot in part.singles]
    made: list[list[Any]] = [[] for _ in step.writes]
    failed: dict[int, BaseException] = {}
    clocks = [block.columns[slot] for slot in block.layout.clocks if slot in block.columns]
    for rows in batches(block.count, batching.size, shared):
        started = time.time() if clocks else 0.0
        if block.layout.in_thread is not None and not step.node.is_async:
            await block.layout.in_thread(call_batch_plainly, part, block.columns, rows, made, failed)
        else:
            await call_batch(part, block.columns, rows, made, failed)
        if clocks:
            spend([clock[at] for clock in clocks for at in rows], time.time() - started)
    faults = {}
    for at, error in failed.items():
        kept = kept_call(step, {name: block.columns[slot][at] for name, slot in step.inputs}) if step.keeps else None
        faults[at] = Fault(Located(error, step.path, (None,) * len(step.path), part.at, kept), {})
    block.drop(faults)
    block.columns.update(zip(step.writes, made, strict=True))


class _Inner:
    """The rows of one mapped pipeline, to be taken in columns. Made of the values of its step's sources."""

    def __init__(self, step: MapStep, values: tuple[Any, ...]) -> None:
        lists, combinations = mapped_lists(step, values)
        self.step, self.values, self.taken = step, values, 0
        self.lists = dict(zip(step.mapped, lists, strict=True))
        self.flow = flow_into(step, values)
        # All pairs are too many to lie in lists, and what flows is not there yet.
        self.pairs = combinations if step.mode == "product" or self.flow is not None else None

    def take(self, most: int) -> list[list[Any]]:
        """A column for each inner input, of the next rows, `most` at most."""
        step, first = self.step, self.taken
        if self.pairs is None:
            mapped = {at: column[first : first + most] for at, column in self.lists.items()}
        else:
            pairs = list(itertools.islice(self.pairs, most))
            mapped = dict(zip(step.mapped, columns_of(pairs, len(step.mapped)), strict=True))
        count = len(mapped[step.mapped[0]])
        self.taken += count
        columns = [mapped[at] if at in mapped else [value] * count for at, value in enumerate(self.values)]
        if step.span is not None:
            outer, depth = self.values[step.span], len(step.path) - 1
            columns[step.span] = [below(outer, depth, index) for index in range(first, first + count)]
        return columns


async def _fan(part: Fan, block: _Open) -> None:
    step = part.step
    width, depth = len(step.writes), len(step.path) - 1
    lists: list[list[list[Any]]] = []
    faults: dict[int, Fault] = {}
    columns: list[list[Any]] = [[] for _ in step.sources]
    count = 0
    runs: list[tuple[int, int, int]] = []  # which row, its inner row that comes first, and where that is in the columns

    async def work_off() -> None:
        nonlocal columns, count
        some, total = columns, count
        columns, count = [[] for _ in step.sources], 0
        found = await run_block(part.layout, some, total)
        starts = [start for _, _, start in runs]
        for inner in sorted(found.faults):
            at, index, start = runs[bisect_left(starts, inner + 1) - 1]
            if at not in faults:
                raised = found.faults[inner].located
                items = with_index(raised.items, depth, index + inner - start)
                faults[at] = Fault(Located(raised.error, raised.path, items, part.at, raised.kept), {})
        for (at, _, start), stop in zip(runs, (*starts[1:], total), strict=True):
            if found.faults:
                start, stop = bisect_left(found.rows, start), bisect_left(found.rows, stop)
            for results, column in zip(lists[at], found.columns, strict=True):
                results += column[start:stop]
        runs.clear()

    for at, values in enumerate(zip(*block.column(step.sources), strict=True)):
        lists.append([[] for _ in range(width)])
        try:
            inner = _Inner(step, values)
        except BaseException as error:
            if block.stops(error):
                raise
            faults[at] = Fault(Located(error, step.path, (None,) * len(step.path), part.at), {})
            continue
        try:
            while at not in faults:
                first, start = inner.taken, count
                taken = inner.take(part.rows - count)
                count += inner.taken - first
                if count > start:
                    runs.append((at, first, start))
                    for column, more in zip(columns, taken, strict=True):
                        column += more
                if count < part.rows:
                    break
                await work_off()
            if inner.flow is not None:
                # Where a row failed, the generator may still: its step is the earlier one.
                inner.flow.drain()
        except FromAbove as error:
            if part.above is None:
                raise
            faults[at] = Fault(error.located(part.above, part.at - 1), {})
        except BaseException:
            # A row that fails raises nothing here: this stops everything.
            if inner.flow is not None:
                inner.flow.stop()
            raise
    if count:
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
