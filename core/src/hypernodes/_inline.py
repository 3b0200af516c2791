"""The fast road: a plan that runs one step after another in this thread, as one generated function."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hypernodes._calls import Wanted
from hypernodes._columns import Blocks
from hypernodes._errors import ResourceError
from hypernodes._failure import Failure, raise_failure
from hypernodes._hops import places_of
from hypernodes._late import importing
from hypernodes._layout import Layout, Rows, batch_of, lay_out
from hypernodes._plan import Plan
from hypernodes._program import IrregularRow, Program, compile_program, is_async

if TYPE_CHECKING:
    from hypernodes._blocks import Block

__all__ = ["Inline"]


class Inline:
    """One plan's programs, compiled when they are first needed.

    `batch` is the largest batch size of its nodes, at any depth; where there is none it is 0. Then many rows go
    through `rows` and `each`, else through `blocks`.
    """

    def __init__(self, plan: Plan, wanted: Wanted, place: str) -> None:
        self.plan, self.wanted, self.place = plan, wanted, place
        self.is_async = is_async(plan.steps)
        self.flavour = "inline" if self.is_async else "sync"
        self.batch = batch_of(plan.steps, deep=True)
        self._call: Program | None = None
        self._layout: Layout | None = None
        self._shape: Callable[[list[list[Any]], int], list[Any]] | None = None
        self._loops: dict[tuple[str, tuple[str, ...]], Program] = {}

    def caller(self) -> Callable[[dict[str, Any]], Any]:
        """A function from inputs to the shaped result. It raises the user's exception with its notes."""
        program = self._program()
        call = program.call
        if self.is_async:
            with importing("hypernodes._loops"):
                from hypernodes._loops import run_coroutine

            def run(values: dict[str, Any]) -> Any:
                try:
                    return run_coroutine(call(**values))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    failure = self.failure(program, error)
                raise_failure(failure)

            return run

        def run_plain(values: dict[str, Any]) -> Any:
            try:
                return call(**values)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failure = self.failure(program, error)
            raise_failure(failure)

        return run_plain

    def rows(
        self, rows: Iterable[Any], results: list[Any], shared: Mapping[str, Any], mapped: tuple[str, ...], kind: str
    ) -> Any:
        """Append the result of each row to `results`; the first failing row raises.

        With `kind="rows"`, rows are dicts with the keys `mapped` and results are shaped; a row with other keys stops
        the loop and is given back. With `"columns"` rows are tuples in the order of `mapped`, and so are results
        unless the bare value is wanted.
        """
        program = self._loop(kind, mapped)
        start = len(results)
        try:
            if self.is_async:
                with importing("hypernodes._loops"):
                    from hypernodes._loops import run_coroutine

                run_coroutine(program.call(rows, results.append, **shared))
            else:
                program.call(rows, results.append, **shared)
            return None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            entry = program.frame_of(error)
            if (
                entry is not None
                and program.read_line
                and entry.tb_lineno in (program.read_line - 1, program.read_line)
            ):
                found = [value for name, value in entry.tb_frame.f_locals.items() if name.endswith("_row")]
                if isinstance(error, IrregularRow | KeyError) or not isinstance(found[0], Mapping):
                    return found[0]
            failure = self.failure(program, error).at(len(results) - start)
        raise_failure(failure)

    def each(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The shaped result or the `Failure` of each row, a tuple in the order of the plan's inputs, one at a time."""
        with importing("hypernodes._loops"):
            from hypernodes._loops import keeping_thread_loop, run_coroutine

        program = self._program()
        call = program.call
        is_async = self.is_async
        with keeping_thread_loop(is_async):
            for index, row in enumerate(rows):
                try:
                    value = call(*row)
                    if is_async:
                        value = run_coroutine(value)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    value = self.failure(program, error).at(index)
                yield value

    def blocks(self, source: Blocks) -> Iterator[tuple[Block, int, int]]:
        """What comes of the rows of a plan with batch nodes, a block at a time: with its first index and its size."""
        with importing("hypernodes._loops"), importing("hypernodes._blocks"):
            from hypernodes._batch_call import drive
            from hypernodes._blocks import run_block
            from hypernodes._loops import keeping_thread_loop, run_coroutine

        if self._layout is None:
            slots = [slot for _, slot in self.plan.inputs], [slot for _, slot in self.plan.outputs]
            self._layout = lay_out(self.plan.steps, *slots, flavour=self.flavour)
        run: Callable[[Coroutine[Any, Any, Block]], Block] = run_coroutine if self.is_async else drive
        size, first = Rows(self.batch), 0
        with keeping_thread_loop(self.is_async):
            while True:
                started = time.perf_counter()
                columns, count = source.take(size.size)
                if count:
                    running = run_block(self._layout, columns, count)
                    del columns  # those that nobody needs any more go while the block runs
                    try:
                        block = run(running)
                    except ResourceError as error:
                        error.at(self.place)
                        raise
                    size.took(time.perf_counter() - started)
                    yield block, first, count
                    first += count
                if source.error is not None:
                    raise source.error
                if not count:
                    return

    def results(self, block: Block, first: int, count: int) -> list[Any]:
        """The shaped result or the `Failure` of each row of a block."""
        if self._shape is None:
            self._shape = _shaper(self.wanted)
        return self._with_failures(self._shape(block.columns, len(block.rows)), block, first, count)

    def columns(self, block: Block, first: int, count: int) -> list[list[Any]]:
        """The same as a list for each output."""
        return [self._with_failures(column, block, first, count) for column in block.columns]

    def _with_failures(self, results: list[Any], block: Block, first: int, count: int) -> list[Any]:
        if not block.faults:
            return results
        found: list[Any] = [None] * count
        for at, result in zip(block.rows, results, strict=True):
            found[at] = result
        for at, failure in self.failures(block, first).items():
            found[at] = failure
        return found

    def failures(self, block: Block, first: int) -> dict[int, Failure]:
        """Of a block whose first row has this index, by position; the earliest row first."""
        return {
            at: fault.located.failure(self.place).through(self._places).at(first + at)
            for at, fault in sorted(block.faults.items())
        }

    def failure(self, program: Program, error: BaseException) -> Failure:
        located = program.locate(error)
        if located is None:
            raise error.at(self.place) if isinstance(error, ResourceError) else error
        return located.failure(self.place).through(self._places)

    @cached_property
    def _places(self) -> dict[tuple[str, ...], str]:
        return places_of(self.plan)

    def _program(self) -> Program:
        if self._call is None:
            shape = "value" if self.wanted.bare else "dict"
            self._call = compile_program(
                self.plan.steps, self.plan.inputs, self.plan.outputs, shape=shape, flavour=self.flavour
            )
        return self._call

    def _loop(self, kind: str, mapped: tuple[str, ...]) -> Program:
        found = self._loops.get((kind, mapped))
        if found is None:
            found = self._loops[kind, mapped] = compile_program(
                self.plan.steps,
                self.plan.inputs,
                self.plan.outputs,
                shape="value" if self.wanted.bare else "dict" if kind == "rows" else "tuple",
                flavour=self.flavour,
                loop=kind,
                mapped=mapped,
            )
        return found


def _shaper(wanted: Wanted) -> Callable[[list[list[Any]], int], list[Any]]:
    """A function from the columns of so many results to the results as they are wanted."""
    if wanted.bare:
        return lambda columns, count: columns[0]
    if not wanted.names:
        return lambda columns, count: [{} for _ in range(count)]
    names = [(name, at) for at, name in enumerate(wanted.names)]
    inputs = [(f"x{at}", at) for _, at in names]
    # Made by a loop of displays: a third of the time of `dict(zip(...))`.
    program = compile_program((), inputs, names, shape="dict", loop="columns", mapped=[name for name, _ in inputs])

    def shape(columns: list[list[Any]], count: int) -> list[Any]:
        results: list[Any] = []
        program.call(zip(*columns, strict=True), results.append)
        return results

    return shape
