"""The engine for anything like `concurrent.futures.Executor`: give `make_executor`, core does the rest."""

from __future__ import annotations

import contextvars
import os
from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ClassVar, NamedTuple

from hypernodes import _observers
from hypernodes._blueprint import blueprint_of
from hypernodes._context import Context
from hypernodes._drive import drive
from hypernodes._engine import Engine, Feed, Site, run_in_line
from hypernodes._ledger import Dispatch
from hypernodes._line import Line
from hypernodes._loops import run_coroutine
from hypernodes._overlap import DEFAULT_CONCURRENCY, run_rows_overlapped
from hypernodes._pace import Pace
from hypernodes._payload import Buffer, payload_of, split
from hypernodes._runs import Run
from hypernodes._schedule import Scheduler
from hypernodes._strategy import chosen_strategy
from hypernodes._task import Batch, Outcome, Reply, Stage, run_rows
from hypernodes._wire import Packer, Request, receive, receive_frames, unpack_reply
from hypernodes._worker import as_worker, inside_worker, mark_worker

__all__ = ["ExecutorEngine"]

AWAITED_A_SECOND = 400
"""How many chunks a second may go out where workers await them: each costs this process about half a millisecond."""
PLENTY = 4
"""Items a worker from which on whole items keep the workers busy, and cutting them up only costs."""


class ExecutorEngine(Engine):
    """An engine over an executor: anything with `submit(fn, *args) -> Future` and `shutdown(wait=, cancel_futures=)`.

    Give `make_executor`. Where workers do not share this process's memory say `shares_memory = False`: functions,
    inputs and results are then pickled for you. `chunk_seconds` is how much work one submission should hold,
    `most_in_chunk` how many items; at most eight such chunks a worker are drawn ahead of what is taken, fewer where
    items are large. A `warm` executor stays open between runs. `by_demand` says that each request is given what its
    nodes ask for in `resources`: nodes that ask for different things then travel apart. `overlaps_items` says that a
    worker awaits the coroutines of many items of its chunk at once, where items may overlap; with `awaits_chunks` it
    awaits many chunks instead, each as if it had a worker of its own. `owns_workers = False` says that worker processes
    run other things besides, in which pools may be opened.
    """

    warm: ClassVar[bool] = False
    by_demand: ClassVar[bool] = False
    overlaps_items: ClassVar[bool] = False
    awaits_chunks: ClassVar[bool] = False
    owns_workers: ClassVar[bool] = True
    chunk_seconds: ClassVar[float] = 0.002
    most_in_chunk: ClassVar[int] = 1024
    queued_per_worker: ClassVar[int] = 1

    @abstractmethod
    def make_executor(self, workers: int) -> Executor:
        """A new executor with this many workers."""

    def open_executor(self, site: Site, workers: int) -> Any:
        """The same where the executor is made of what the place has in `site.handles`: then override this one."""
        return self.make_executor(workers)

    def default_workers(self) -> int:
        """How many workers there are when `max_workers` is not named: one for each core this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def workers(self, max_workers: int | None) -> int:
        return max_workers or self.default_workers()

    def workers_at(self, site: Site) -> int:
        """The same where how many there are is for the place to say."""
        return self.workers(site.max_workers)

    def close_executor(self, executor: Any) -> None:
        executor.shutdown(wait=True)

    def abort_executor(self, executor: Any) -> None:
        """Stop what runs, because a run ended early. A pool that cannot is left behind to finish on its own.

        Another run may be using this executor: its futures must fail with `CancelledError` (its chunks are then sent
        to a new executor, nobody is blamed) or `BrokenExecutor`.
        """
        executor.shutdown(wait=False, cancel_futures=True)

    def submit_request(
        self, executor: Any, frames: Sequence[Buffer], blobs: Mapping[str, bytes]
    ) -> Future[list[Buffer]] | Future[bytes]:
        """Send one request to a worker that shares no memory; the future gives the reply, whole or in frames.

        `blobs` are what it has in common with other requests, by digest: the pickled stage, large inputs that rows
        share. Override where buffers can travel without copies, or where workers can keep what they have once got.
        """
        future: Future[bytes] = executor.submit(receive, payload_of(frames, blobs))
        return future

    def submit_stage(
        self, executor: Any, stage: Stage, frames: Sequence[Buffer], blobs: Mapping[str, bytes]
    ) -> Future[list[Buffer]] | Future[bytes]:
        """The same where what the stage's nodes ask for decides what the request is given: then override this one."""
        return self.submit_request(executor, frames, blobs)

    def submit_awaited(
        self, executor: Any, stage: Stage, frames: Sequence[Buffer], blobs: Mapping[str, bytes], at_once: int
    ) -> Future[bytes]:
        """The same where the stage awaits, and a worker takes `at_once` requests, each by `receive_async`.

        Override where `awaits_chunks` is true.
        """
        raise NotImplementedError(f"{type(self).__qualname__} says awaits_chunks, and has no submit_awaited")

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for batch in self.batches(stage, tasks, site):
            yield from batch.outcomes()

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        place = f"{site.name}:{self.name}" if site.name else self.name
        if inside_worker():
            return run_in_line(stage, tasks, place)
        workers = self.workers_at(site)
        one_by_one = site.map_execution == "sequential"
        fans = not (one_by_one and site.node_execution != "parallel")
        strategy = chosen_strategy(
            stage.steps, site.map_strategy, shares_memory=self.shares_memory, overlaps=not one_by_one
        )
        apart = strategy != "item"
        blueprint = blueprint_of(
            stage, fine=site.node_execution == "parallel", fans=fans, apart=apart, by_demand=self.by_demand
        )
        first: Run | None = None
        if not one_by_one and (blueprint.single is None or site.node_execution == "async"):
            first = tasks.take_run(PLENTY * workers, PLENTY * workers)
            if len(first) == PLENTY * workers:
                blueprint = blueprint_of(stage, fine=False, fans=False, apart=apart, by_demand=self.by_demand)
        most = 1 if one_by_one else self.most_in_chunk
        items = self.overlaps_items and stage.is_async and not one_by_one
        overlap = 0
        if items or site.node_execution == "async":
            # What overlaps inside a worker comes out of the same budget, where one was named.
            known = len(first) if first is not None and tasks.ended and blueprint.single is not None else workers
            at_once = 1 if one_by_one else max(1, min(known, workers))
            overlap = DEFAULT_CONCURRENCY if site.max_workers is None else max(1, site.max_workers // at_once)
        within = _Within(overlap, nodes=site.node_execution == "async", items=items)
        lines, seconds, awaited = workers, self.chunk_seconds, 0
        if items and self.awaits_chunks and blueprint.single is not None:
            lines = site.max_workers or workers * DEFAULT_CONCURRENCY
            awaited, seconds = -(-lines // workers), max(seconds, lines / AWAITED_A_SECOND)
            # A row has its place of the budget to itself; where none was named, its nodes may overlap freely.
            within = within._replace(limit=1 if site.max_workers else overlap, items=False)

        def pace(stage: Stage) -> Pace:
            return Pace(seconds, most, together=overlap if items and stage.is_async and not awaited else 1)

        scheduler: Line | Scheduler
        if blueprint.single is not None:
            scheduler = Line(
                blueprint.single,
                workers=1 if one_by_one else lines,
                pace=pace,
                width=max(1, blueprint.single.batch) if one_by_one else None,
                place=place,
            )
        else:
            scheduler = Scheduler(
                blueprint,
                workers=workers,
                pace=pace,
                width=1 if one_by_one else None,
                place=place,
                staged=strategy == "stage",
            )
        if first is not None:
            scheduler.admit(first)
        carrier: dict[str, str] = {}
        if not self.shares_memory:
            _observers.inject(carrier)
        context = Context(stage.name, place, carrier)
        port = _ExecutorPort(self, site, workers, context, within, tasks.steady, awaited)
        # Where parts of a pipeline overlap, what queues for a worker would be ahead of a batch that is full by then.
        queued = 0 if self.shares_memory and apart and blueprint.single is None else self.queued_per_worker
        return drive(scheduler, tasks, port, in_flight=lines if awaited else workers * (1 + queued))


class _ExecutorPort:
    """Chunks to an executor and back, pickled where it does not share memory."""

    def __init__(
        self,
        engine: ExecutorEngine,
        site: Site,
        workers: int,
        context: Context,
        within: _Within,
        steady: Container[str] | None,
        awaited: int = 0,
    ) -> None:
        self.engine, self.site, self.workers, self.context, self.within = engine, site, workers, context, within
        self.awaited = awaited
        self.packer = None if engine.shares_memory else Packer(context, _Pooled(within, engine.owns_workers), steady)
        self.variables = contextvars.copy_context()
        self.executor = self._open()

    def _open(self) -> Any:
        engine, workers = self.engine, self.workers
        return self.site.once(
            (engine, workers), lambda: engine.open_executor(self.site, workers), engine.close_executor
        )

    def send(self, dispatch: Dispatch) -> Future[Any]:
        stage, rows = dispatch.stage, dispatch.rows
        if self.packer is None:
            try:
                return self._submit_here(stage, rows)
            except RuntimeError:
                # Another run shut this executor down when it was stopped.
                self.renew()
                return self._submit_here(stage, rows)
        request = self.packer.pack(stage, rows)
        try:
            return self._submit(stage, request)
        except RuntimeError:
            self.renew()
            return self._submit(stage, request)

    def _submit(self, stage: Stage, request: Request) -> Future[Any]:
        if self.awaited:
            return self.engine.submit_awaited(self.executor, stage, *request, self.awaited)
        return self.engine.submit_stage(self.executor, stage, *request)

    def _submit_here(self, stage: Stage, rows: Sequence[tuple[Any, ...]]) -> Future[Any]:
        run, place = self.variables.copy().run, self.context.place
        future: Future[Any] = self.executor.submit(run, _run_here, stage, rows, place, self.within)
        return future

    def reply(self, result: Any) -> Reply:
        if self.engine.shares_memory:
            reply: Reply = result
            return reply
        return unpack_reply(split(bytearray(result)) if isinstance(result, bytes) else result)

    def renew(self) -> None:
        self.site.drop((self.engine, self.workers), self.executor)
        self.executor = self._open()

    def abort(self) -> None:
        self.site.drop((self.engine, self.workers), self.executor)
        self.engine.abort_executor(self.executor)


class _Within(NamedTuple):
    """What may overlap inside a worker: up to `limit` things, if it is not 0, among `nodes` of a row and `items`."""

    limit: int
    nodes: bool
    items: bool


def _run_here(stage: Stage, rows: Sequence[tuple[Any, ...]], place: str, within: _Within) -> Reply:
    """Run rows in this worker, one after another, but for what may overlap."""
    with as_worker():
        if within.limit:
            limit, nodes, items = within
            return run_coroutine(run_rows_overlapped(stage, rows, place, limit, nodes=nodes, items=items))
        return run_rows(stage, rows, place)


class _Pooled:
    """Runs a request inside a pool's worker: pools named in there run in line.

    A cluster for tests may have its workers in the caller's own process, which is no worker's for that.
    """

    def __init__(self, within: _Within, owns_process: bool) -> None:
        self.within, self.owns_process, self.caller = within, owns_process, _process()

    def run_rows(self, stage: Stage, rows: Sequence[tuple[Any, ...]], context: Context) -> Reply:
        from hypernodes._loops import keep_thread_loop

        if self.caller != _process():
            keep_thread_loop()
            if self.owns_process:
                mark_worker(process=True)
        return _run_here(stage, rows, context.place, self.within)

    async def run_rows_async(self, stage: Stage, rows: Sequence[tuple[Any, ...]], context: Context) -> Reply:
        if self.caller != _process() and self.owns_process:
            mark_worker(process=True)
        limit, nodes, _ = self.within
        return await run_rows_overlapped(stage, rows, context.place, max(1, limit), nodes=nodes)


def _process() -> tuple[str, int]:
    import platform

    return platform.node(), os.getpid()


def serve(frames: Sequence[Buffer], blobs: Mapping[str, Sequence[Buffer]]) -> tuple[list[Buffer], bool]:
    """The target of our own process pool: the reply's frames, and whether this worker should be replaced."""
    from hypernodes._guard import overran

    return receive_frames(frames, {digest: blob for digest, (blob,) in blobs.items()}), overran()
