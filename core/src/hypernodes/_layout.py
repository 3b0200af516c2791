"""A stage laid out for blocks of rows: its steps cut at those that work off many rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hypernodes._guard import guarded
from hypernodes._plan import MapStep, Step, leaves
from hypernodes._program import Program, compile_program, flowing_steps

__all__ = ["Batched", "Fan", "Layout", "Loop", "Rows", "batch_of", "lay_out", "rows_of_block"]

MOST_ROWS = 512
"""Rows of a block, but for one batch that is larger: what is between two steps of a block waits in memory. Over a loop
written by hand in blocks of 64 it takes 1.16 with 64 rows, 1.08 with 512, and 1.13 with 1024, where the collector of
cycles has more to look at."""

FAST_SECONDS = 0.02
SLOW_SECONDS = 0.1
"""A block below the first is doubled, one above the second is one batch again."""


class Loop(NamedTuple):
    """Consecutive steps for one item, compiled as a loop; `first` is the index of the first of them."""

    program: Program
    first: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]


class Batched(NamedTuple):
    """The step of a batch node, with what it reads: `lists` and `singles` are names with slots, the others slots.

    They are taken apart here, once: for each batch that takes 2 us.
    """

    step: Step
    at: int
    call: Callable[..., Any]
    lists: tuple[tuple[str, int], ...]
    singles: tuple[tuple[str, int], ...]
    clock: int | None
    scope: int | None
    span: int | None

    @property
    def writes(self) -> tuple[int, ...]:
        return self.step.writes


class Fan(NamedTuple):
    """The step of a mapped pipeline with batch nodes in it; `rows` is how many inner rows go together.

    `above` is the generator right before it whose items flow into it, None where it takes lists.
    """

    step: MapStep
    at: int
    layout: Layout
    rows: int
    above: Step | None = None

    @property
    def writes(self) -> tuple[int, ...]:
        return self.step.writes


class Layout(NamedTuple):
    """Steps cut into parts, and after each part the slots that nothing more will read; `clocks` hold deadlines."""

    parts: tuple[tuple[Loop | Batched | Fan, tuple[int, ...]], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    flavour: str
    in_thread: Callable[..., Any] | None
    clocks: frozenset[int]


def batch_of(steps: Sequence[Step | MapStep], *, deep: bool) -> int:
    """The largest batch size among the steps, with `deep` also of those in mapped pipelines; 0 where there is none."""
    sizes = [0]
    for step in steps:
        if isinstance(step, Step):
            sizes.append(_size(step))
        elif deep:
            sizes += map(_size, leaves(step.inner))
    return max(sizes)


def _size(step: Step) -> int:
    batching = step.node.batching
    return 0 if step.lists is None or batching is None else batching.size


class Rows:
    """How many rows to take for the next block: one batch at first, and more while blocks take next to no time.

    So a slow source is drawn no further than one batch ahead, and a fast one costs nothing by being cut into blocks.
    """

    def __init__(self, batch: int) -> None:
        self.batch = self.size = max(batch, 1)
        self._most = rows_of_block(self.batch)

    def took(self, seconds: float) -> None:
        """A block took so long, with the time in which its rows were drawn."""
        if seconds > SLOW_SECONDS:
            self.size = self.batch
        elif seconds < FAST_SECONDS:
            self.size = min(2 * self.size, self._most)


def rows_of_block(batch: int) -> int:
    """How many rows a block has where rows are plenty: whole batches."""
    return max(MOST_ROWS // batch, 1) * batch


def lay_out(
    steps: Sequence[Step | MapStep],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    flavour: str,
    in_thread: Callable[..., Any] | None = None,
) -> Layout:
    """The steps cut at those that need many rows; flavours are those of a program."""
    flowing = flowing_steps(steps, outputs, flavour)
    groups: list[tuple[int, list[Step | MapStep]]] = []
    open_loop = False
    for at, step in enumerate(steps):
        alone = batch_of([step], deep=True) > 0
        if open_loop and not alone:
            groups[-1][1].append(step)
        else:
            groups.append((at, [step]))
        open_loop = not alone
    last: dict[int, int] = dict.fromkeys(inputs, -1)
    for number, (_, group) in enumerate(groups):
        for step in group:
            last.update(dict.fromkeys((*step.sources, *step.writes), number))
    kept = set(outputs)
    ends: dict[int, list[int]] = {}
    for slot, number in last.items():
        if slot not in kept:
            ends.setdefault(number, []).append(slot)
    parts = []
    for number, (at, group) in enumerate(groups):
        ended = ends.get(number, [])
        part = _part(at, group, last, kept, number, flavour, in_thread, at + len(group) - 1 in flowing)
        above = steps[at - 1] if at - 1 in flowing else None
        if isinstance(part, Fan) and isinstance(above, Step):
            part = part._replace(above=above)
        inside = {slot for step in group for slot in step.writes}.difference(part.writes)
        parts.append((part, tuple([slot for slot in ended if slot not in inside])))
    clocks = frozenset([slot for step in steps for slot in _clocks(step)])
    return Layout(tuple(parts), tuple(inputs), tuple(outputs), flavour, in_thread, clocks)


def _clocks(step: Step | MapStep) -> tuple[int, ...]:
    """The slots of deadlines that it reads or makes."""
    read = () if step.clock is None else (step.clock,)
    return (*read, *step.writes) if isinstance(step, Step) and step.is_clock else read


def _part(
    at: int,
    group: list[Step | MapStep],
    last: Mapping[int, int],
    kept: set[int],
    number: int,
    flavour: str,
    in_thread: Callable[..., Any] | None,
    flows_out: bool,
) -> Loop | Batched | Fan:
    step = group[0]
    batch = batch_of([step], deep=True)
    if batch and isinstance(step, Step):
        over = step.lists or ()
        return Batched(
            step,
            at,
            guarded(step),
            tuple([read for read in step.inputs if read[0] in over]),
            tuple([read for read in step.inputs if read[0] not in over]),
            step.clock,
            step.scope,
            step.span,
        )
    if batch and isinstance(step, MapStep):
        inner = step.inner
        slots = [slot for _, slot in inner.inputs], [slot for _, slot in inner.outputs]
        layout = lay_out(inner.steps, *slots, flavour=flavour, in_thread=in_thread)
        return Fan(step, at, layout, rows_of_block(batch))
    made = {slot for step in group for slot in step.writes}
    reads = tuple(dict.fromkeys([slot for step in group for slot in step.sources if slot not in made]))
    writes = tuple([slot for step in group for slot in step.writes if slot in kept or last[slot] > number])
    writes = writes or step.writes[:1]  # something says how many rows came through
    program = compile_program(
        group,
        [(f"x{slot}", slot) for slot in reads] or [("x", -1)],
        [(f"x{slot}", slot) for slot in writes],
        flavour=flavour,
        loop="lists",
        in_thread=in_thread,
        name="block",
        flows_out=flows_out,
    )
    return Loop(program, at, reads, writes)
