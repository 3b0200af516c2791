"""The driver for an event loop: rows and nodes overlap while they await, within one bound."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from hypernodes._acquire import aside
from hypernodes._blueprint import Blueprint, blueprint_of
from hypernodes._engine import Feed
from hypernodes._ledger import Dispatch
from hypernodes._pace import Pace
from hypernodes._record import cancelled
from hypernodes._schedule import Scheduler
from hypernodes._task import Batch, Reply, Stage, Task, failed_row, run_rows_async
from hypernodes._threads import ThreadPool

__all__ = ["DEFAULT_CONCURRENCY", "in_thread", "overlap", "run_rows_overlapped"]

DEFAULT_CONCURRENCY = 100
"""How many things may be awaited at once when `max_workers` is not named."""

_pool: contextvars.ContextVar[ThreadPool] = contextvars.ContextVar("hypernodes_thread_pool")


async def in_thread(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a plain function in a helper thread of the run, so that its waiting does not hold up the loop."""
    context = contextvars.copy_context()
    value, error = await asyncio.wrap_future(_pool.get().submit(_outcome, context, function, args, kwargs))
    if error is not None:
        raise error
    return value


def _outcome(
    context: contextvars.Context, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, BaseException | None]:
    """What the function returned or raised; a future of asyncio's cannot hold a StopIteration."""
    try:
        return context.run(function, *args, **kwargs), None
    except BaseException as error:
        return None, error


async def overlap(
    blueprint: Blueprint, feed: Feed, *, limit: int, items: bool, place: str, staged: bool = False
) -> AsyncGenerator[list[Batch], None]:
    """Run the blueprint for each task of the feed on the running loop; batches come as they are ready.

    `limit` bounds what runs at once. `items` lets items overlap; what may of one item is for the blueprint to say.
    `staged` is as in a `Scheduler`.
    """
    pool = ThreadPool(limit, "hypernodes-async")
    token = _pool.set(pool)
    plain = aside.set((asyncio.get_running_loop(), in_thread))
    done: list[Batch] = []
    news = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        # A feed may be closed once more when all its rows are done and the loop is gone.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(news.set)

    feed.on_more(wake)
    finished = False
    try:
        work: _Work
        whole = blueprint.single
        if whole is not None and not whole.block and whole.at_most is None:
            work = _Rows(whole, feed, limit if items else 1, done, news, tasks, place)
        else:
            work = _Units(blueprint, feed, limit, items, staged, done, news, tasks, place)
        while True:
            news.clear()
            work.check()
            work.advance()
            if done:
                batch, done[:] = list(done), []
                yield batch
                continue
            if work.over():
                break
            await news.wait()
        finished = True
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        pool.shutdown(wait=finished, cancel_futures=True)
        # Where the generator is closed from another context, this variable was never set there.
        with contextlib.suppress(ValueError):
            _pool.reset(token)
            aside.reset(plain)
    if feed.error is not None:
        raise feed.error


async def run_rows_overlapped(
    stage: Stage,
    rows: Sequence[tuple[Any, ...]],
    place: str,
    limit: int = DEFAULT_CONCURRENCY,
    *,
    nodes: bool = True,
    items: bool = False,
) -> Reply:
    """Run the stage for each row, in a pool's worker; up to `limit` things overlap, of a row's nodes and of `items`."""
    import time

    started = time.perf_counter()
    values: list[tuple[Any, ...] | None] = [None] * len(rows)
    failures = {}
    blueprint = blueprint_of(stage, fine=nodes, fans=nodes, apart=True)
    async for batches in overlap(blueprint, Feed(rows), limit=limit, items=items, place=place):
        for batch in batches:
            values[batch.first : batch.first + len(batch.values)] = batch.values
            failures.update({batch.first + at: failed for at, failed in batch.failures.items()})
    return Reply(values, failures, time.perf_counter() - started)


def _stops(error: BaseException) -> bool:
    """Whether this stops the task from outside; what a node in a helper thread raises stops only its item."""
    return isinstance(error, KeyboardInterrupt) or cancelled(error)


class _Work:
    """What both ways of working share: the tasks that run, and an error that stops everything."""

    def __init__(self, done: list[Batch], news: asyncio.Event, tasks: set[asyncio.Task[None]], place: str) -> None:
        self.done, self.news, self.tasks, self.place = done, news, tasks, place
        self.stopped_by: BaseException | None = None

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.stopped_by = self.stopped_by or error
        self.news.set()

    def check(self) -> None:
        if self.stopped_by is not None:
            raise self.stopped_by

    def advance(self) -> None:
        raise NotImplementedError

    def over(self) -> bool:
        raise NotImplementedError


class _Rows(_Work):
    """Whole rows, each one coroutine: a few long-lived tasks take one row after another."""

    def __init__(self, stage: Stage, feed: Feed, limit: int, *shared: Any) -> None:
        super().__init__(*shared)
        self.stage, self.feed, self.limit = stage, feed, limit
        self.program = stage.program("threads", in_thread)
        self.next: list[Task] = []
        self.ahead = 4 * limit

    def advance(self) -> None:
        while len(self.tasks) < self.limit and self._draw():
            self.spawn(self._worker(self.next.pop()))

    def _draw(self) -> bool:
        if not self.next and not self.feed.ended and self.feed.held < self.ahead:
            self.next = self.feed.take(1)
        return bool(self.next)

    async def _worker(self, task: Task) -> None:
        call, append, news = self.program.call, self.done.append, self.news
        while True:
            try:
                append(Batch(task.index, [await call(*task.values)], {}))
            except BaseException as error:
                if _stops(error):
                    raise
                append(Batch(task.index, [None], {0: failed_row(self.stage, self.program, error, self.place)}))
                if isinstance(error, GeneratorExit):
                    # Raised by a node, or this coroutine is being closed: then it must not await again.
                    news.set()
                    return
            news.set()
            if len(self.done) > self.ahead or not self._draw():
                return
            task = self.next.pop()

    def over(self) -> bool:
        return self.feed.ended and not self.tasks and not self.next


class _Units(_Work):
    """Rows cut into units: each chunk of a unit is one coroutine, and the scheduler says which may start."""

    def __init__(self, blueprint: Blueprint, feed: Feed, limit: int, items: bool, staged: bool, *shared: Any) -> None:
        super().__init__(*shared)
        self.feed, self.limit = feed, limit
        self.scheduler = Scheduler(
            blueprint,
            workers=limit,
            pace=lambda _: Pace(0.0, 1),
            width=None if items else 1,
            place=self.place,
            staged=staged,
        )

    def advance(self) -> None:
        scheduler = self.scheduler
        scheduler.draw(self.feed, min(scheduler.room(), scheduler.ahead() - self.feed.held))
        while len(self.tasks) < self.limit and (dispatch := scheduler.take()) is not None:
            self.spawn(self._run(dispatch))
        self.done += scheduler.batches()

    async def _run(self, dispatch: Dispatch) -> None:
        if dispatch.stage.block:
            reply = await run_rows_async(dispatch.stage, dispatch.rows, self.place, in_thread)
            self.scheduler.done(dispatch.id, reply)
            return
        program = dispatch.stage.program("threads", in_thread)
        values: list[tuple[Any, ...] | None] = [None]
        failures = {}
        try:
            values[0] = await program.call(*dispatch.tasks[0].values)
        except BaseException as error:
            if _stops(error):
                raise
            failures[0] = failed_row(dispatch.stage, program, error, self.place)
        self.scheduler.done(dispatch.id, Reply(values, failures))

    def over(self) -> bool:
        return self.feed.ended and not self.tasks and self.scheduler.idle
