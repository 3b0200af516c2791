"""What computes the columns of dataframes: a loop of ours, and threads beside it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

from hypernodes.plugin import Pace, Stage, ThreadPool, as_worker, run_coroutine, run_rows, run_rows_async
from hypernodes_daft._phases import Column
from hypernodes_daft._store import Store

__all__ = ["PATIENCE", "Computer"]

AWAITED = 100
"""Coroutine nodes that are awaited at once where `max_workers` is not named."""
CHUNK_SECONDS = 0.01
"""How long a thread should be busy with a chunk of rows: longer chunks leave threads idle at the end."""
MOST_IN_CHUNK = 4096
PATIENCE = 2.0
"""Seconds that the end of a run that ends early waits for those who have not noticed."""


class Computer:
    """Runs the steps of one run: plain functions in threads, coroutines on a loop; in one budget where one is named.

    `error` is what ended the run, other than the failure of a row. Once `cancelled` nothing begins any more. Nobody
    waits for rows whose index is higher than `stopped_after`.
    """

    def __init__(self, place: str, most: int | None) -> None:
        self.place = place
        self.error: BaseException | None = None
        self.cancelled = False
        self.stopped_after: int | None = None
        self._context = contextvars.copy_context()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = most or min(32, cores + 4)
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

    # -- for other threads

    def start(self) -> None:
        """Start the loop, the first time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="hypernodes-daft-loop", daemon=True)
            self._thread.start()
            self._ready.wait()

    def ask(self, store: Store, column: Column, rows: list[int]) -> Future[None]:
        """Have a column's step run for these rows; the future ends whatever becomes of it, and tells nothing."""
        assert self._loop is not None
        future: Future[None]
        with self._asking:
            if not self._closed:
                work = self._compute(store, column, rows)
                try:
                    future = asyncio.run_coroutine_threadsafe(work, self._loop)
                except RuntimeError:
                    work.close()  # the loop has just ended
                else:
                    self._asked.add(future)
                    future.add_done_callback(self._asked.discard)
                    return future
        future = Future()
        future.set_result(None)
        return future

    def living(self, store: Store, at: int, rows: Sequence[int]) -> Sequence[int]:
        """Those of the rows for which a step is still to run."""
        living = store.living(at, rows)
        if self.stopped_after is not None and store.owners is None:
            last = self.stopped_after - store.first
            living = [row for row in living if row <= last]
        return living

    def fail(self, error: BaseException) -> None:
        """Something that is no failure of a row: it ends the run."""
        if self.error is None:
            self.error = error
        self.cancel()

    def cancel(self) -> None:
        """Begin nothing more, and stop what is awaited."""
        self.cancelled = True
        self._call(self._cancel_tasks)

    def close(self, finished: bool) -> None:
        """End the loop and the threads; those that are busy where nobody wants it any more are let go of."""
        if self._thread is not None:
            self._call(self._end)
            self._thread.join(None if finished else PATIENCE)
        self._pool.shutdown(wait=finished, cancel_futures=True)

    def _call(self, function: Any) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(function)
            except RuntimeError:
                # It is closed: what was to be ended has ended.
                return

    # -- the loop

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

    def _end(self) -> None:
        if self._over is not None:
            self._over.set()

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _compute(self, store: Store, column: Column, rows: list[int]) -> None:
        """Run a column's step for these rows."""
        living = self.living(store, column.at, rows)
        run = self._await_all if column.is_async else self._call_all
        try:
            if not self.cancelled and living:
                await run(store, column, living)
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
        while first < len(rows):
            await self._plain.acquire()
            if self.cancelled:
                self._plain.release()
                break
            size = pace.size
            if column.batch:
                size = max(1, size // column.batch) * column.batch
            chunks.append(self._spawn(self._chunk(store, column, rows[first : first + size], pace)))
            first += size
        await _all(chunks)

    async def _chunk(self, store: Store, column: Column, rows: Sequence[int], pace: Pace) -> None:
        try:
            future = self._pool.submit(self._context.copy().run, _call, store, column, rows, self.place)
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
            values = store.take(column.reads, rows)
            store.put(column.at, rows, await run_rows_async(column.alone, values, self.place))
        except (KeyboardInterrupt, SystemExit) as error:
            # A task that lets these go ends the whole loop, under whatever else it runs.
            self.fail(error)
        finally:
            self._awaited.release()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None
        task = self._loop.create_task(coroutine, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _call(store: Store, column: Column, rows: Sequence[int], place: str) -> tuple[float, BaseException | None]:
    """In a thread of the pool: how long it took, or what ends the run."""
    try:
        values = store.take(column.reads, rows)
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
