"""One call of the engine: windows of rows, each a chain of dataframes, whose columns are computed here."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hypernodes.plugin import (
    Batch,
    Feed,
    Pace,
    PlaceError,
    Stage,
    ThreadPool,
    as_worker,
    run_coroutine,
    run_rows,
    run_rows_async,
)
from hypernodes_daft import _runner
from hypernodes_daft._columns import ROW, dataframe, serving
from hypernodes_daft._phases import Column, Columns, plan_of
from hypernodes_daft._spread import Inner
from hypernodes_daft._store import Store
from hypernodes_daft._windows import Windows

if TYPE_CHECKING:
    from hypernodes_daft._engine import DaftEngine

__all__ = ["run_in_windows"]

AWAITED = 100
"""Coroutine nodes that are awaited at once where `max_workers` is not named."""
CHUNK_SECONDS = 0.01
"""How long a thread should be busy with a chunk of rows: longer chunks leave threads idle at the end."""
MOST_IN_CHUNK = 4096
UNDER_WAY = 2
"""Windows at once: while the last rows of one run, the first of the next do."""
PATIENCE = 2.0
"""Seconds that a run that ends early waits for its queries to notice."""


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
            while run.error is None and len(run.queries) < UNDER_WAY and tasks.held < windows.ahead:
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
                windows.took(told.store.rows, time.perf_counter() - told.began)
            elif told is not None:
                told_rows += sum(len(batch.values) for batch in told)
                yield from told
            if tasks.stopped_after != stopped_after:
                stopped_after = tasks.stopped_after
                run.stop(stopped_after)
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
        self.store, self.began = store, time.perf_counter()
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(run.drive, self), name="hypernodes-daft", daemon=True)


class _Run:
    """The loop and the threads that compute columns, and the queries that ask for them."""

    def __init__(self, engine: DaftEngine, place: str, most: int | None, expected: int | None, plainly: bool) -> None:
        self.engine, self.place, self.expected, self.plainly = engine, place, expected, plainly
        self.context = contextvars.copy_context()
        self.news: SimpleQueue[list[Batch] | _Query | None] = SimpleQueue()
        self.queries: list[_Query] = []
        self.error: BaseException | None = None
        self.cancelled = False
        self.stopped_after: int | None = None
        threads = most or min(32, (os.cpu_count() or 1) + 4)
        self._pool = ThreadPool(threads, "hypernodes-daft-node")
        # One budget where one was named.
        self._plain = asyncio.Semaphore(threads)
        self._awaited = self._plain if most else asyncio.Semaphore(AWAITED)
        self._paces: dict[Stage, Pace] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: set[Future[None]] = set()
        self._asking, self._closed = threading.Lock(), False
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # -- the caller's side

    def begin(self, store: Store) -> None:
        """Start a window."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="hypernodes-daft-loop", daemon=True)
            self._thread.start()
            self._ready.wait()
        query = _Query(store, self)
        self.queries.append(query)
        query.thread.start()

    def stop(self, after: int | None) -> None:
        """Nobody waits for rows after this one any more."""
        self.stopped_after = after

    def close(self, finished: bool) -> None:
        """Leave nothing behind; what still runs where nobody wants it is told to stop, and not waited for long."""
        self.cancelled = True
        if self._thread is not None:
            if self._loop is not None and not finished:
                self._call(self._cancel)
            for query in self.queries:
                query.thread.join(PATIENCE)
            self._call(self._end)
            self._thread.join(None if finished else PATIENCE)
        self._pool.shutdown(wait=finished, cancel_futures=True)

    def fail(self, error: BaseException) -> None:
        """Something that is no failure of a row: it ends the run."""
        if self.error is None:
            self.error = error
        self.cancelled = True
        self._call(self._cancel)

    # -- the threads that drive queries

    def drive(self, query: _Query) -> None:
        """Work off a window; told when it is over."""
        try:
            self.work_off(query.store, query)
        except BaseException as error:
            if not self.cancelled:
                self.fail(error)
        finally:
            self.news.put(query)

    def work_off(self, store: Store, query: _Query | None = None) -> None:
        """Run all phases; rows of a query are told of as soon as they are through the last one."""
        told = False
        for number, phase in enumerate(store.plan.phases, 1):
            if self.cancelled:
                return
            if isinstance(phase, Columns):
                if self.plainly:
                    self._work_plainly(store, phase)
                    continue
                told = query is not None and number == len(store.plan.phases)
                self._query(store, phase, told)
            else:
                Inner(phase, store, self.engine.window, self.place).run(self.work_off, self._rows_for(store, phase.at))
                store.passed(phase.at, store.rows)
        if query is not None and not told:
            self._tell(store, range(store.rows))

    def _query(self, store: Store, phase: Columns, tell: bool) -> None:
        columns = {column.at: column for column in phase.columns}

        def work(at: int, rows: list[int]) -> Future[None]:
            return self._ask(self._compute(store, columns[at], rows))

        with serving(work) as token:
            # Where it is known how many rows will come, small windows at the beginning are not cut into crumbs.
            expected = store.rows if store.owners is not None else max(store.rows, self.expected or 0)
            frame = dataframe(token, phase.columns, store.rows, self.engine.rows_of_batch(expected))
            for part in frame.iter_partitions():
                if tell and not self.cancelled:
                    self._tell(store, sorted(part.to_pydict()[ROW]))

    def _work_plainly(self, store: Store, phase: Columns) -> None:
        for column in phase.columns:
            with contextlib.suppress(CancelledError):
                self._ask(self._compute(store, column, list(range(store.rows)))).result()

    def _rows_for(self, store: Store, at: int) -> Sequence[int]:
        """The rows that a step is still to run for."""
        rows: Sequence[int] = store.living(at, range(store.rows))
        if self.stopped_after is not None and store.owners is None:
            last = self.stopped_after - store.first
            rows = [row for row in rows if row <= last]
        return rows

    def _tell(self, store: Store, rows: Sequence[int]) -> None:
        if self.stopped_after is not None:
            rows = [row for row in rows if store.first + row <= self.stopped_after]
        batches = []
        for some in _neighbours(rows):
            failures = {
                at: failed for at, row in enumerate(some) if store.failed and (failed := store.failure(row)) is not None
            }
            if failures:
                values: list[tuple[Any, ...] | None] = [
                    None if at in failures else store.outputs([row])[0] for at, row in enumerate(some)
                ]
            else:
                values = list(store.outputs(some))
            batches.append(Batch(store.first + some[0], values, failures))
        self.news.put(batches)

    def _ask(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        """Have the loop run a coroutine; the future ends whatever becomes of the loop."""
        assert self._loop is not None
        with self._asking:
            if not self._closed:
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
                self._asked.add(future)
                future.add_done_callback(self._asked.discard)
                return future
        coroutine.close()
        future = Future()
        future.set_result(None)
        return future

    # -- the loop that computes columns

    def _serve(self) -> None:
        try:
            with as_worker():
                run_coroutine(self._stay())
        except BaseException as error:
            self.fail(error)
        finally:
            self._ready.set()
            with self._asking:
                self._closed = True
            for future in list(self._asked):
                future.cancel()

    async def _stay(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._over.wait()

    def _call(self, function: Any) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(function)
            except RuntimeError:
                # It is closed: what was to be ended has ended.
                return

    def _end(self) -> None:
        if self._over is not None:
            self._over.set()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _compute(self, store: Store, column: Column, rows: list[int]) -> None:
        """Run a column's step for these rows."""
        living = store.living(column.at, rows)
        if self.stopped_after is not None and store.owners is None:
            last = self.stopped_after - store.first
            living = [row for row in living if row <= last]
        try:
            if not self.cancelled and living:
                await (
                    self._await_all(store, column, living) if column.is_async else self._call_all(store, column, living)
                )
            store.passed(column.at, len(rows))
        except asyncio.CancelledError:
            # The run was told to end, or the loop ends under it: Daft is told neither, it only sees rows go on.
            self.cancelled = True
        except BaseException as error:
            self.fail(error)

    async def _call_all(self, store: Store, column: Column, rows: Sequence[int]) -> None:
        """In threads, in chunks that follow the measured time."""
        pace = self._paces.get(column.alone)
        if pace is None:
            pace = self._paces[column.alone] = Pace(CHUNK_SECONDS, MOST_IN_CHUNK)
        chunks: list[asyncio.Task[None]] = []
        first = 0
        while first < len(rows) and not self.cancelled:
            await self._plain.acquire()
            size = pace.size
            if column.batch:
                size = max(1, size // column.batch) * column.batch
            chunks.append(self._spawn(self._chunk(store, column, rows[first : first + size], pace)))
            first += size
        await _all(chunks)

    async def _chunk(self, store: Store, column: Column, rows: Sequence[int], pace: Pace) -> None:
        try:
            future = self._pool.submit(self.context.copy().run, _call, store, column, rows, self.place)
            seconds, error = await asyncio.wrap_future(future)
            if error is not None:
                self.fail(error)
            else:
                pace.record(len(rows), seconds)
        finally:
            self._plain.release()

    async def _await_all(self, store: Store, column: Column, rows: Sequence[int]) -> None:
        """On this loop, each row by itself, or each batch."""
        size = column.batch or 1
        tasks: list[asyncio.Task[None]] = []
        for first in range(0, len(rows), size):
            await self._awaited.acquire()
            if self.cancelled:
                self._awaited.release()
                break
            tasks.append(self._spawn(self._await(store, column, rows[first : first + size])))
        await _all(tasks)

    async def _await(self, store: Store, column: Column, rows: Sequence[int]) -> None:
        try:
            values = store.take([slot for _, slot in column.alone.inputs], rows)
            store.put(column.at, rows, await run_rows_async(column.alone, values, self.place))
        except (KeyboardInterrupt, SystemExit) as error:
            # A task that lets these go ends the whole loop, under whatever else it runs.
            self.fail(error)
        finally:
            self._awaited.release()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None
        task = self._loop.create_task(coroutine, context=self.context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _call(store: Store, column: Column, rows: Sequence[int], place: str) -> tuple[float, BaseException | None]:
    """In a thread of the pool: how long it took, or what ends the run."""
    try:
        values = store.take([slot for _, slot in column.alone.inputs], rows)
        reply = run_rows(column.alone, values, place)
        store.put(column.at, rows, reply)
    except BaseException as error:
        return 0.0, error
    return reply.seconds, None


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all of them; the first error is raised when all are over."""
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()


def _neighbours(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """Rows in ascending order as runs of such as follow one another."""
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1:
            yield rows[start:at]
            start = at
