"""One call of the engine: windows of rows, each a chain of dataframes, whose columns are computed here."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hypernodes.plugin import Batch, Feed, PlaceError, Stage
from hypernodes_daft import _runner
from hypernodes_daft._columns import ROW, dataframe, serving
from hypernodes_daft._computer import PATIENCE, Computer
from hypernodes_daft._phases import Columns, plan_of
from hypernodes_daft._spread import Inner
from hypernodes_daft._store import Store
from hypernodes_daft._windows import Windows

if TYPE_CHECKING:
    from hypernodes_daft._engine import DaftEngine

__all__ = ["run_in_windows"]

UNDER_WAY = 2
"""Windows at once: while the last rows of one run, the first of the next do."""


def run_in_windows(
    engine: DaftEngine, stage: Stage, tasks: Feed, place: str, most: int | None, *, plainly: bool = False
) -> Iterator[Batch]:
    """Run the stage for each task; `plainly` without dataframes, one column after another, inside a query of Daft's."""
    if not plainly:
        _runner.native()
    run = _Run(engine, place, most, tasks.left, plainly)
    plan = plan_of(stage)
    windows = Windows(engine.window, engine.window if plainly else max(64, 2 * (most or 0)))
    tasks.on_more(lambda: run.news.put(None))
    stopped_after = tasks.stopped_after
    drawn_rows, told_rows = 0, 0
    finished = False
    try:
        while True:
            # What is held up waits for a row that is under way: where none is, nothing can be held up.
            while (
                run.error is None and len(run.queries) < UNDER_WAY and (tasks.held < windows.ahead or not run.queries)
            ):
                if tasks.pushed and not run.queries:
                    tasks.peek()  # waits
                drawn = tasks.take_run(windows.size)
                if not len(drawn):
                    break
                windows.weigh(drawn.rows[0])
                drawn_rows += len(drawn)
                store = Store(plan, drawn.rows.columns, len(drawn), drawn.first)
                run.begin(store)
            if not run.queries and run.news.empty():
                if tasks.ended or run.error is not None:
                    break
                continue
            told = run.news.get()
            if isinstance(told, _Query):
                run.queries.remove(told)
                told.thread.join()
                windows.took(told.store.rows, told.seconds)
            elif told is not None:
                told_rows += sum(len(batch.values) for batch in told)
                yield from told
            if tasks.stopped_after != stopped_after:
                stopped_after = tasks.stopped_after
                run.computer.stopped_after = stopped_after
        finished = run.error is None
    finally:
        run.close(finished)
    if run.error is not None:
        raise run.error
    if tasks.error is not None:
        raise tasks.error
    if told_rows < drawn_rows and tasks.stopped_after is None:
        raise PlaceError(f"of {drawn_rows:,} rows that went into Daft, {drawn_rows - told_rows:,} did not come back")


class _Query:
    """A window under way, in a thread that drives its dataframes."""

    def __init__(self, store: Store, run: _Run) -> None:
        self.store, self.began, self.seconds = store, time.perf_counter(), 0.0
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(run.drive, self), name="hypernodes-daft", daemon=True)


class _Run:
    """The queries under way, what they ask to be computed, and the news of them."""

    def __init__(self, engine: DaftEngine, place: str, most: int | None, expected: int | None, plainly: bool) -> None:
        self.engine, self.place, self.expected, self.plainly = engine, place, expected, plainly
        self.computer = Computer(place, most)
        self.news: SimpleQueue[list[Batch] | _Query | None] = SimpleQueue()
        self.queries: list[_Query] = []

    @property
    def error(self) -> BaseException | None:
        return self.computer.error

    def begin(self, store: Store) -> None:
        """Start a window."""
        self.computer.start()
        query = _Query(store, self)
        self.queries.append(query)
        query.thread.start()

    def close(self, finished: bool) -> None:
        """Leave nothing behind; what still runs where nobody wants it is told to stop, and not waited for long."""
        if not finished:
            self.computer.cancel()
        for query in self.queries:
            query.thread.join(PATIENCE)
        self.computer.close(finished)

    # -- the threads that drive queries

    def drive(self, query: _Query) -> None:
        """Work off a window; told when it is over."""
        try:
            self.work_off(query.store, query)
        except BaseException as error:
            if not self.computer.cancelled:
                self.computer.fail(error)
        finally:
            query.seconds = time.perf_counter() - query.began
            self.news.put(query)

    def work_off(self, store: Store, query: _Query | None = None) -> None:
        """Run all phases; rows of a query are told of as soon as they are through the last one."""
        told = False
        for number, phase in enumerate(store.plan.phases, 1):
            if self.computer.cancelled:
                return
            if isinstance(phase, Columns):
                if self.plainly:
                    self._work_plainly(store, phase)
                    continue
                told = query is not None and number == len(store.plan.phases)
                self._query(store, phase, told)
            else:
                rows = self.computer.living(store, phase.at, range(store.rows))
                Inner(phase, store, self.engine.window, self.place).run(self.work_off, rows)
                store.passed(phase.at, store.rows)
        if query is not None and not told:
            self._tell(store, range(store.rows))

    def _query(self, store: Store, phase: Columns, tell: bool) -> None:
        columns = {column.at: column for column in phase.columns}

        def work(at: int, rows: list[int]) -> Future[None]:
            return self.computer.ask(store, columns[at], rows)

        with serving(work) as token:
            # Where it is known how many rows will come, small windows at the beginning are not cut into crumbs.
            expected = store.rows if store.owners is not None else max(store.rows, self.expected or 0)
            frame = dataframe(token, phase.columns, store.rows, self.engine.rows_of_batch(expected))
            for part in frame.iter_partitions():
                if tell and not self.computer.cancelled:
                    self._tell(store, sorted(part.to_pydict()[ROW]))

    def _work_plainly(self, store: Store, phase: Columns) -> None:
        for column in phase.columns:
            with contextlib.suppress(CancelledError):
                self.computer.ask(store, column, list(range(store.rows))).result()

    def _tell(self, store: Store, rows: Sequence[int]) -> None:
        last = self.computer.stopped_after
        if last is not None:
            rows = [row for row in rows if store.first + row <= last]
        batches = []
        for some in _neighbours(rows):
            failures = {
                at: failed for at, row in enumerate(some) if store.failed and (failed := store.failure(row)) is not None
            }
            values: Sequence[tuple[Any, ...] | None]
            if failures:  # where all failed, there may be no column
                values = [None if at in failures else store.outputs([row])[0] for at, row in enumerate(some)]
            else:
                values = store.outputs(some)
            batches.append(Batch(store.first + some[0], values, failures))
        self.news.put(batches)


def _neighbours(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """Rows in ascending order as runs of such as follow one another."""
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1:
            yield rows[start:at]
            start = at
