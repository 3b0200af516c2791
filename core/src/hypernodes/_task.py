"""The unit of work: a stage of steps for some rows, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from hypernodes._answer import unpack
from hypernodes._clock import CLOCK
from hypernodes._demand import Demand
from hypernodes._errors import ResourceError
from hypernodes._failure import Failure
from hypernodes._late import importing
from hypernodes._layout import Layout, batch_of, lay_out, rows_of_block
from hypernodes._plan import SCOPE, SPAN, MapStep, Plan, Step, leaves
from hypernodes._program import Program, compile_program, is_async, recorded_call
from hypernodes._record import is_stopped
from hypernodes._rows import columns_of
from hypernodes._table import Table

__all__ = [
    "LEFT",
    "Batch",
    "Outcome",
    "Reply",
    "Stage",
    "Task",
    "failed_row",
    "gathers_of",
    "run_rows",
    "run_rows_async",
    "run_step",
    "run_task",
]


class Left(Enum):
    """The type of `LEFT`."""

    LEFT = "left"


LEFT: Final[Literal[Left.LEFT]] = Left.LEFT
"""Stands for a value that could not come home, where only a cache wanted it."""


class Task(NamedTuple):
    """One row for a stage: its number, and the values of the stage's inputs in their order."""

    index: int  # type: ignore[assignment]
    values: tuple[Any, ...]


class Outcome(NamedTuple):
    """What came of a task: the values of the stage's outputs in their order, or a failure.

    `step` is the index, within the stage, of the step that failed.
    """

    index: int  # type: ignore[assignment]
    values: tuple[Any, ...] | None
    failure: Failure | None = None
    step: int = 0


class Reply(NamedTuple):
    """What came of several rows: a tuple of outputs for each, which says nothing where it failed, and the failures.

    The rows are a list, or a `Table` of columns. Failures are by position; each goes with the index of its step within
    the stage. `seconds` is how long the rows took, for pacing.
    """

    values: Sequence[tuple[Any, ...] | None]
    failures: dict[int, tuple[Failure, int]]
    seconds: float = 0.0


class Batch(NamedTuple):
    """What came of consecutive tasks, of which the first has the index `first`: as in a `Reply`.

    Many small outcomes travel from the workers to the caller as they came, without being taken apart on the way.
    """

    first: int
    values: Sequence[tuple[Any, ...] | None]
    failures: dict[int, tuple[Failure, int]]

    @classmethod
    def of(cls, outcome: Outcome) -> Batch:
        """A batch of one."""
        failed = {} if outcome.failure is None else {0: (outcome.failure, outcome.step)}
        return cls(outcome.index, [outcome.values], failed)

    def outcomes(self) -> Iterator[Outcome]:
        """One by one."""
        for index, values in enumerate(self.values, self.first):
            failed = self.failures.get(index - self.first)
            yield Outcome(index, values) if failed is None else Outcome(index, None, *failed)


class Stage:
    """Steps that run in one place without leaving it, with the values that enter and leave.

    `inputs` and `outputs` are (name, slot) pairs. `indices` are the positions of the steps in the plan they are from.
    With `salvages` a failure brings along which outputs had been made before it. `spare` are the slots of those
    outputs that only a cache wants: one that cannot be carried comes as `LEFT`, and its row goes on.
    `batch` is the largest batch size among its steps, so many rows are best run together; `block` the same with those
    of mapped pipelines; 0 where there is no batch node. `gathers` has the batch size of each of its batch nodes, by the
    id of its step. `at_most` is how many chunks of it may run at once, None for no bound.
    What is made of a stage - programs, its pickle, the cuts for scheduling - is kept with it.
    """

    __slots__ = (
        *("_layouts", "_programs", "at_most", "batch", "block", "blueprints", "gathers", "indices", "inputs"),
        *("is_async", "name", "outputs"),
        *("packed", "salvages", "spare", "steps"),
    )

    def __init__(
        self,
        name: str,
        steps: Sequence[Step | MapStep],
        inputs: Sequence[tuple[str, int]],
        outputs: Sequence[tuple[str, int]],
        indices: Sequence[int] | None = None,
        *,
        salvages: bool = False,
        spare: Iterable[int] = (),
    ) -> None:
        self.name, self.salvages, self.spare = name, salvages, frozenset(spare)
        self.steps = tuple(steps)
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.indices = tuple(range(len(self.steps))) if indices is None else tuple(indices)
        self.is_async = is_async(self.steps)
        self.batch, self.block = batch_of(self.steps, deep=False), batch_of(self.steps, deep=True)
        self.gathers = gathers_of(self.steps)
        self.at_most = _at_most(self.steps)
        self._programs: dict[str, Program] = {}
        self._layouts: dict[str, Layout] = {}
        self.packed: tuple[str, bytes] | None = None
        self.blueprints: dict[Any, Any] = {}

    @property
    def demands(self) -> tuple[tuple[str, Demand], ...]:
        """What each call of a node in it asks for, with the node's path, for those that ask for anything."""
        inside = leaves(Plan((), (), (), self.steps, ()))
        return tuple([(" > ".join(step.path), step.node.resources) for step in inside if step.node.resources])

    @property
    def is_stateful(self) -> bool:
        """Whether nodes in it read resources, which a process builds once and keeps."""
        return any(step.needs for step in leaves(Plan((), (), (), self.steps, ())))

    def program(self, flavour: str, in_thread: Any = None) -> Program:
        """The stage as one positional function that returns a tuple; compiled once for each flavour."""
        found = self._programs.get(flavour)
        if found is None:
            found = compile_program(self.steps, self.inputs, self.outputs, flavour=flavour, in_thread=in_thread)
            self._programs[flavour] = found
        return found

    def loop(self) -> Program | None:
        """A function of rows that appends what comes of each; None where rows have to be called one by one.

        That is where a failure brings along what had been made: in a loop that cannot be told from the row before.
        """
        if self.salvages or not (self.inputs and self.outputs):
            return None
        found = self._programs.get("loop")
        if found is None:
            inputs = [(f"value_{slot}", slot) for _, slot in self.inputs]
            outputs = [(f"value_{slot}", slot) for _, slot in self.outputs]
            shape, mapped = "value" if len(outputs) == 1 else "tuple", [name for name, _ in inputs]
            found = compile_program(self.steps, inputs, outputs, shape=shape, loop="columns", mapped=mapped)
            self._programs["loop"] = found
        return found

    def layout(self, flavour: str, in_thread: Any = None) -> Layout:
        """The stage laid out for blocks of rows; compiled once for each flavour."""
        found = self._layouts.get(flavour)
        if found is None:
            inputs, outputs = [slot for _, slot in self.inputs], [slot for _, slot in self.outputs]
            found = lay_out(self.steps, inputs, outputs, flavour=flavour, in_thread=in_thread)
            self._layouts[flavour] = found
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        more = (self.salvages, tuple(sorted(self.spare)))
        return _stage, (self.name, self.steps, self.inputs, self.outputs, self.indices, *more)

    def __repr__(self) -> str:
        return f"<stage of '{self.name}': {', '.join(step.path[-1] for step in self.steps)}>"


def _stage(name: str, steps: Any, inputs: Any, outputs: Any, indices: Any, salvages: bool, spare: Any) -> Stage:
    return Stage(name, steps, inputs, outputs, indices, salvages=salvages, spare=spare)


def gathers_of(steps: Iterable[Step | MapStep]) -> dict[int, int]:
    """How many items each of the batch nodes among the steps takes at once, by the id of its step."""
    own = [step for step in steps if isinstance(step, Step) and step.lists is not None]
    return {id(step): step.node.batching.size for step in own if step.node.batching is not None}


def _at_most(steps: Sequence[Step | MapStep]) -> int | None:
    """How many chunks of these steps its gates let run at once: told for single steps, as workers would only wait.

    A step that pauses before it tries again holds nothing meanwhile, so more of its chunks may be out.
    """
    if len(steps) != 1 or not isinstance(steps[0], Step) or (steps[0].retry is not None and steps[0].retry.delay):
        return None
    # A hair more: ten tenths make a whole, whatever rounding says.
    bounds = [max(1, int(gate.most / gate.takes + 1e-9)) for gate in steps[0].gates if gate.per is None]
    return min(bounds, default=None)


def run_rows(stage: Stage, rows: Sequence[tuple[Any, ...]], place: str = "") -> Reply:
    """Run the stage for each row, one after another, or in blocks where it has batch nodes.

    A row that fails does not stop the others. Coroutine nodes are awaited on one event loop for all rows.
    KeyboardInterrupt is not caught.
    """
    if stage.is_async:
        with importing("hypernodes._loops"):
            from hypernodes._loops import run_coroutine

        return run_coroutine(run_rows_async(stage, rows, place))
    started = time.perf_counter()
    values: list[tuple[Any, ...] | None] = []
    failures: dict[int, tuple[Failure, int]] = {}
    if stage.block:
        with importing("hypernodes._blocks"):
            from hypernodes._batch_call import drive

        drive(_run_in_blocks(stage, stage.layout("sync"), rows, place, values, failures))
        return Reply(values, failures, time.perf_counter() - started)
    loop = stage.loop()
    if loop is not None:
        made: list[Any] = []
        _run_loop(stage, loop, iter(rows), place, made, failures)
        seconds = time.perf_counter() - started
        return Reply(Table([made], len(made)) if len(stage.outputs) == 1 else made, failures, seconds)
    program = stage.program("sync")
    call = program.call
    for row in rows:
        try:
            values.append(call(*row))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failures[len(values)] = failed_row(stage, program, error, place)
            values.append(None)
    return Reply(values, failures, time.perf_counter() - started)


def _run_loop(
    stage: Stage,
    loop: Program,
    rows: Iterator[tuple[Any, ...]],
    place: str,
    made: list[Any],
    failures: dict[int, tuple[Failure, int]],
) -> None:
    """Run a stage's loop, which saves 0.1 us a row; after a row that failed it begins again with the next."""
    call, append = loop.call, made.append
    while True:
        try:
            return call(rows, append)  # type: ignore[no-any-return]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failures[len(made)] = failed_row(stage, loop, error, place)
            append(None)


async def run_rows_async(
    stage: Stage, rows: Sequence[tuple[Any, ...]], place: str = "", in_thread: Callable[..., Any] | None = None
) -> Reply:
    """The same on the running event loop; with `in_thread`, plain functions are called through it."""
    started = time.perf_counter()
    values: list[tuple[Any, ...] | None] = []
    failures: dict[int, tuple[Failure, int]] = {}
    flavour = "inline" if in_thread is None else "threads"
    if stage.block:
        await _run_in_blocks(stage, stage.layout(flavour, in_thread), rows, place, values, failures)
        return Reply(values, failures, time.perf_counter() - started)
    program = stage.program(flavour, in_thread)
    for row in rows:
        try:
            values.append(await program.call(*row))
        except BaseException as error:
            if is_stopped(error):
                raise
            failures[len(values)] = failed_row(stage, program, error, place)
            values.append(None)
    return Reply(values, failures, time.perf_counter() - started)


async def _run_in_blocks(
    stage: Stage,
    layout: Layout,
    rows: Sequence[tuple[Any, ...]],
    place: str,
    values: list[tuple[Any, ...] | None],
    failures: dict[int, tuple[Failure, int]],
) -> None:
    with importing("hypernodes._blocks"):
        from hypernodes._blocks import run_block

    size, width = rows_of_block(stage.block), len(stage.inputs)
    for first in range(0, len(rows), size):
        some = list(rows[first : first + size])
        try:
            block = await run_block(layout, columns_of(some, width), len(some), salvages=stage.salvages)
        except ResourceError as error:
            error.at(place)
            raise
        found: list[tuple[Any, ...]]
        found = list(zip(*block.columns, strict=True)) if block.columns else [()] * len(block.rows)
        if not block.faults:
            values += found
            continue
        values += [None] * len(some)
        for at, made in zip(block.rows, found, strict=True):
            values[first + at] = made
        for at, fault in sorted(block.faults.items()):
            failure = fault.located.failure(place)
            failures[first + at] = (
                replace(failure, made=fault.made) if stage.salvages else failure,
                fault.located.step,
            )


def failed_row(stage: Stage, program: Program, error: BaseException, place: str) -> tuple[Failure, int]:
    """A row's exception as a failure and the index of its step; raises it again if no step raised it."""
    made = program.made(error) if stage.salvages else None
    located = program.locate(error)
    if located is None:
        raise error.at(place) if isinstance(error, ResourceError) else error
    failure = located.failure(place)
    return failure if made is None else replace(failure, made=made), located.step


def run_task(stage: Stage, task: Task, place: str = "") -> Outcome:
    """Run the stage for one task. A node that raises gives an outcome with a failure, never an exception."""
    reply = run_rows(stage, [task.values], place)
    failed = reply.failures.get(0)
    if failed:
        return Outcome(task.index, None, *failed)
    return Outcome(task.index, reply.values[0])


def run_step(step: Step, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Call one step's node by parameter name, with its retries and timeout; the values of its outputs as a tuple.

    A batch node is called for a batch of one.

    `arguments` holds a value for each name in `step.reads`.
    For engines that schedule single steps themselves. Raises what the node raises.
    """
    node = step.node
    arguments = dict(arguments)
    hidden = [arguments.pop(name) for name in (SPAN, CLOCK, SCOPE) if name in arguments]
    for name in step.lists or ():
        arguments[name] = [arguments[name]]
    value = recorded_call(step)(*hidden, **arguments)
    if node.is_async:
        with importing("hypernodes._loops"):
            from hypernodes._loops import run_coroutine

        value = run_coroutine(value)
    if not node.unpacks:
        return (value,)
    return tuple(unpack(value, node))
