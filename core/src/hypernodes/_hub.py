"""The hub: the process where the user called `run` opens every place and moves the values between them.

A plan that stays in one place is handed to that place's engine whole. A plan that crosses borders is cut into stages,
one lane for each; rows flow through the lanes independently, so that a slow place overlaps with the others, and what
leaves one place comes home before it goes to the next. Backends, sessions and credentials never leave this process.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Container, Generator, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial
from queue import SimpleQueue
from typing import Any

from hypernodes import _observers
from hypernodes._backend import Backend, engine_spec_of
from hypernodes._blueprint import Blueprint, blueprint_of, cut
from hypernodes._bridge import batches_from_thread
from hypernodes._cache_address import open_cache
from hypernodes._context import Context
from hypernodes._drive import drive
from hypernodes._engine import Feed, QueueFeed
from hypernodes._engines import AsyncEngine, on_own_loop
from hypernodes._failure import Failure
from hypernodes._far import FarEngine
from hypernodes._ledger import Dispatch
from hypernodes._line import Line
from hypernodes._local import LocalBackend, core_engine, strategy_of
from hypernodes._memo import Memo, caches_of
from hypernodes._overlap import overlap
from hypernodes._pace import Pace
from hypernodes._places import OpenPlace, Told, using
from hypernodes._plan import MapStep, Plan, Step, leaves
from hypernodes._schedule import Scheduler
from hypernodes._strategy import stands_apart
from hypernodes._task import Batch, Reply, Stage, Task, run_rows
from hypernodes._wire import Packer, join, pack_stage, split, unpack_reply
from hypernodes._worker import as_here

__all__ = ["Route", "Turns", "in_order"]

MOST_OPEN = 1024
"""Rows of a plan that crosses borders that may be under way at once."""

MOST_LANES = 16
"""Lanes that may be open at once, beyond one for each place: with caches there may be one for each choice of steps."""

REMOTE_CHUNK_SECONDS = 0.2


class Route:
    """How the rows of one plan travel: through one place, or through lanes between several."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.caches = [None if one.cache is None else open_cache(one.cache) for one in plan.settings]
        self.memos: list[Memo] = []
        self._inner: dict[int, Blueprint] = {}
        self._alone: dict[Hashable, Stage] = {}
        self._strategies: dict[int, str] = {}
        self.sole = self._sole()
        self.sole_strategy = "stream" if self.sole is None else strategy_of(self.sole, leaves(plan))
        self.here = self.sole if self.sole is not None and core_engine(self.sole) is not None else None
        self.blueprint = self._cut(plan)
        self.single = self.blueprint.single

    def _sole(self) -> LocalBackend | None:
        """The local backend of a plan that it runs from end to end; `here` is the same if the engine is core's."""
        places = {step.place for step in leaves(self.plan)}
        backend = self.plan.places[places.pop()] if len(places) == 1 else None
        return backend if isinstance(backend, LocalBackend) else None

    def _cut(self, plan: Plan) -> Blueprint:
        """The plan as units, or with a memo that cuts for each row what it has to run."""
        maps = {at: step for at, step in enumerate(plan.steps) if isinstance(step, MapStep) and self._is_fan(step)}
        inner = {at: self._inner_of(step) for at, step in maps.items()}
        if any(caches_of(plan, self.caches)):
            memos = {at: blueprint.memo for at, blueprint in inner.items() if blueprint.memo is not None}
            memo = Memo(plan, self.caches, partial(self._cut_steps, plan.path[-1], cached=True), memos)
            self.memos.append(memo)
            return Blueprint((), [slot for _, slot in plan.inputs], [slot for _, slot in plan.outputs], memo)
        return self._cut_steps(plan.path[-1], plan.steps, plan.inputs, plan.outputs)

    def _cut_steps(
        self,
        name: str,
        steps: Sequence[Step | MapStep],
        inputs: Sequence[tuple[str, int]],
        outputs: Sequence[tuple[str, int]],
        spare: frozenset[int] = frozenset(),
        *,
        cached: bool = False,
    ) -> Blueprint:
        def key_of(step: Step | MapStep) -> int | None:
            # In this process each result comes to the cache as soon as it is there.
            return None if cached and core_engine(self.plan.places[step.place]) is not None else step.place

        def is_apart(step: Step) -> bool:
            # Rows of which different parts are kept come here by different ways, and still share batches.
            return cached and stands_apart(step) and self.strategy(step.place) != "item"

        return cut(
            name,
            steps,
            inputs,
            outputs,
            fine=False,
            is_fan=self._is_fan,
            key_of=key_of,
            inner_of=self._inner_of,
            salvages=cached,
            spare=spare,
            in_order=self.sole is not None and self.sole.node_execution == "sequential",
            is_apart=is_apart,
            shared=self._alone,
        )

    def strategy(self, place: int) -> str:
        """How the items of a map go through the part of the plan that runs in one place."""
        found = self._strategies.get(place)
        if found is None:
            steps = [step for step in leaves(self.plan) if step.place == place]
            found = self._strategies[place] = strategy_of(self.plan.places[place], steps)
        return found

    def _is_fan(self, step: MapStep) -> bool:
        """Whether the rows of a mapped pipeline are the hub's to see to: some leave the place, or some are cached."""
        return (
            step.crosses
            or any(caches_of(step.inner, self.caches))
            or any(isinstance(inner, MapStep) and self._is_fan(inner) for inner in step.inner.steps)
        )

    def _inner_of(self, step: MapStep) -> Blueprint:
        found = self._inner.get(id(step.inner))
        if found is None:
            found = self._inner[id(step.inner)] = self._cut(step.inner)
        return found

    def memo_of(self, step: MapStep) -> Memo | None:
        """The memo of a mapped pipeline whose rows are cached."""
        blueprint = self._inner.get(id(step.inner))
        return None if blueprint is None else blueprint.memo

    @contextlib.contextmanager
    def recalling(self, steady: Container[str] | None = None) -> Iterator[None]:
        """Have the memos look at the code of the nodes for one call, and let go of its values afterwards.

        `steady` names the inputs that nobody changes from row to row, as in a `Feed`.
        """
        with contextlib.ExitStack() as stack:
            for memo in self.memos:
                memo.begin(steady if memo.plan is self.plan else None)
                stack.callback(memo.end)
            yield

    def recalled(self, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The outputs of a row that the caches have whole, else None."""
        memo = self.blueprint.memo
        if memo is None:
            return None
        begun: list[Memo] = []
        try:
            for one in self.memos:
                one.begin()
                begun.append(one)
            found: tuple[Any, ...] | None = memo.recalled(row)
        finally:
            for one in begun:
                one.end()
        return found

    def forget(self, row: tuple[Any, ...]) -> None:
        """Let go of what `recalled` found for a row."""
        if self.blueprint.memo is not None:
            self.blueprint.memo.forget(row)

    def batches(self, feed: Feed, told: Told | None = None) -> Generator[Batch, None, None]:
        """Run the rows; what comes of them comes in the order in which it is ready. `told` hears of places."""
        if not self.plan.steps:
            for task in feed:
                yield Batch(task.index, [tuple([task.values[slot] for _, slot in self.plan.outputs])], {})
            if feed.error is not None:
                raise feed.error
            return
        if not feed.peek():
            if feed.error is not None:
                raise feed.error
            return
        if self.single is None and self.here is not None and core_engine(self.here) == "async":
            with using(self.here, told) as place, self.recalling(feed.steady):
                assert isinstance(place.engine, AsyncEngine)
                yield from on_own_loop(place.engine.on_loop(self.blueprint, feed, place.site, self.sole_strategy))
        elif self.single is not None:
            with using(self.plan.places[self.single.steps[0].place], told) as place:
                yield from _execute(place, self.single, feed)
        else:
            with self.recalling(feed.steady):
                yield from _Lanes(self, told).batches(feed)

    async def abatches(self, feed: Feed, told: Told | None = None) -> AsyncGenerator[list[Batch], None]:
        """The same on the running loop: coroutine nodes are awaited on it where the plan's engine allows."""
        if self.here is not None and self.plan.steps:
            with using(self.here, told) as place, self.recalling(feed.steady):
                blueprint = self.blueprint
                if isinstance(place.engine, AsyncEngine) and self.single is not None:
                    batches = place.engine.abatches(self.single, feed, place.site)
                elif isinstance(place.engine, AsyncEngine):
                    batches = place.engine.on_loop(blueprint, feed, place.site, self.sole_strategy)
                else:
                    staged = self.sole_strategy == "stage"
                    batches = overlap(blueprint, feed, limit=1, items=False, place=place.label, staged=staged)
                async with aclosing(batches):
                    async for batch in batches:
                        yield batch
                return
        async with aclosing(batches_from_thread(lambda: self.batches(feed, told))) as found:
            async for batch in found:
                yield batch


def _execute(place: OpenPlace, stage: Stage, feed: Feed) -> Iterator[Batch]:
    """Run a stage's tasks in a place: by its engine here, or packed and sent there."""
    spec = engine_spec_of(place.backend)
    if place.session.here or not spec.requires.isdisjoint(place.session.handles):
        return place.engine.batches(stage, feed, place.site)
    strategy = strategy_of(place.backend, stage.steps)
    blueprint = blueprint_of(stage, fine=False, fans=False, apart=strategy != "item")
    whole, workers = blueprint.single, place.session.workers

    def pace() -> Pace:
        return Pace(REMOTE_CHUNK_SECONDS)

    scheduler: Line | Scheduler
    if whole is not None:
        scheduler = Line(whole, workers=workers, pace=pace, place=place.label)
    else:
        scheduler = Scheduler(blueprint, workers=workers, pace=pace, place=place.label, staged=strategy == "stage")
    return drive(scheduler, feed, _PlacePort(place, stage.name), in_flight=2 * workers)


class _PlacePort:
    """Chunks to a place that carries bytes."""

    def __init__(self, place: OpenPlace, pipeline: str) -> None:
        self.place = place
        carrier: dict[str, str] = {}
        _observers.inject(carrier)
        site = place.site
        engine = FarEngine(
            place.engine,
            place.backend.name,
            site.node_execution,
            site.map_execution,
            site.max_workers,
            site.map_strategy,
        )
        self.packer = Packer(Context(pipeline=pipeline, place=place.label, carrier=carrier), engine)

    def send(self, dispatch: Dispatch) -> Future[bytes]:
        _, blob = pack_stage(dispatch.stage)
        frames = self.packer.pack(dispatch.stage, dispatch.rows)
        return self.place.session.submit(join([blob, *frames]))

    def reply(self, result: bytes) -> Reply:
        return unpack_reply(split(bytearray(result)))

    def renew(self) -> None:
        """A session renews itself, or its futures say why it cannot."""

    def abort(self) -> None:
        self.place.session.abort()


def _takes_turns(backend: Backend) -> bool:
    """Whether a place of this machine takes one item after another."""
    return isinstance(backend, LocalBackend) and backend.map_execution == "sequential"


class _Chunk:
    """Rows that went into a lane together, the first of them under the number `first`."""

    def __init__(self, dispatch: Dispatch, first: int) -> None:
        self.id, self.first, self.left = dispatch.id, first, len(dispatch.tasks)
        self.values: list[tuple[Any, ...] | None] = [None] * self.left
        self.failures: dict[int, tuple[Failure, int]] = {}

    def over(self, row: int, values: tuple[Any, ...] | None, failed: tuple[Failure, int] | None) -> Reply | None:
        """What came of one row; the whole reply with the last of them."""
        self.left -= 1
        self.values[row - self.first] = values
        if failed is not None:
            self.failures[row - self.first] = failed
        return None if self.left else Reply(self.values, self.failures)


class _Lane:
    """One stage in one place, worked off by a thread of its own.

    Its rows are numbered on their own, as engines give what comes of consecutive rows in one batch; `out` has, by these
    numbers, which chunk they are of.
    """

    def __init__(self, stage: Stage, backend: Any, arrivals: SimpleQueue[Any], told: Told | None) -> None:
        self.feed = QueueFeed()
        self.told = told
        self.out: dict[int, _Chunk] = {}
        self._count = 0
        self.stage, self.backend, self.arrivals = stage, backend, arrivals
        context = contextvars.copy_context()
        self.thread = threading.Thread(
            target=context.run, args=(as_here(self._run),), name=f"hypernodes-lane-{stage.name}", daemon=True
        )
        self.thread.start()

    def put(self, dispatch: Dispatch) -> None:
        first = self._count
        self._count += len(dispatch.tasks)
        chunk = _Chunk(dispatch, first)
        self.out.update(dict.fromkeys(range(first, self._count), chunk))
        self.feed.put(*[Task(at, values) for at, values in enumerate(dispatch.rows, first)])

    def _run(self) -> None:
        try:
            with using(self.backend, self.told) as place:
                for batch in _execute(place, self.stage, self.feed):
                    self.arrivals.put((self, batch))
        except BaseException as error:
            self.arrivals.put(error)

    def end(self, *, cancel: bool) -> None:
        if cancel:
            self.feed.cancel()
        else:
            self.feed.close()
        self.thread.join(5.0 if cancel else None)


class _Lanes:
    """The rows of a plan on their way through several places."""

    def __init__(self, route: Route, told: Told | None) -> None:
        self.places, self.told = route.plan.places, told
        # One place that takes one item after another takes each to its end.
        one_by_one = route.sole is not None and _takes_turns(route.sole)
        self.scheduler = Scheduler(
            route.blueprint,
            workers=1 if one_by_one else MOST_OPEN,
            pace=lambda: Pace(0.0, 1),
            width=1 if one_by_one else None,
            staged=route.sole_strategy == "stage",
        )
        self.most_open = self.scheduler.width or max(MOST_OPEN, self.scheduler.hold)
        self.lanes: dict[int, _Lane] = {}  # by stage, the one that was not used for longest first
        self.ended: list[_Lane] = []
        self.arrivals: SimpleQueue[tuple[_Lane, Batch] | BaseException] = SimpleQueue()
        self.inline: deque[Dispatch] = deque()
        self.waiting: dict[int, deque[Dispatch]] = {}  # by place, for places that take one item after another
        self.busy: set[int] = set()
        self.later: deque[Dispatch] = deque()  # for lanes that there is no room for now

    def batches(self, feed: Feed) -> Iterator[Batch]:
        scheduler = self.scheduler
        finished = False
        try:
            while True:
                room = min(scheduler.room(), self.most_open - scheduler.open - feed.held)
                scheduler.draw(feed, min(room, max(64, scheduler.hold)))
                while (dispatch := scheduler.take()) is not None:
                    self._send(dispatch)
                batches = scheduler.batches()
                if batches:
                    yield from batches
                    continue
                if feed.ended and scheduler.idle:
                    break
                if self.inline and self.arrivals.empty():
                    self._run_inline(self.inline.popleft())
                elif scheduler.ledger.out:
                    self._land(self.arrivals.get())
            finished = True
        finally:
            for lane in (*self.ended, *self.lanes.values()):
                lane.end(cancel=not finished)
        if feed.error is not None:
            raise feed.error

    def _send(self, dispatch: Dispatch) -> None:
        stage = dispatch.stage
        backend = self.places[stage.steps[0].place]
        if core_engine(backend) == "sequential":
            self.inline.append(dispatch)
            return
        if _takes_turns(backend):
            place = stage.steps[0].place
            if place in self.busy:
                self.waiting.setdefault(place, deque()).append(dispatch)
                return
            self.busy.add(place)
        self._send_by_lane(dispatch, stage, backend)

    def _send_by_lane(self, dispatch: Dispatch, stage: Stage, backend: Any) -> None:
        lane = self.lanes.pop(id(stage), None)
        if lane is None:
            if not self._has_room():
                self.later.append(dispatch)
                return
            lane = _Lane(stage, backend, self.arrivals, self.told)
        self.lanes[id(stage)] = lane
        lane.put(dispatch)

    def _next_turn(self, place: int) -> None:
        self.busy.discard(place)
        if self.waiting.get(place):
            self._send(self.waiting[place].popleft())

    def _has_room(self) -> bool:
        """Whether one more lane may open, perhaps in the place of an idle one.

        The last lane of a place stays, since the place would close and open again; beyond those there is no more than
        MOST_LANES.
        """
        if len(self.lanes) < MOST_LANES:
            return True
        places = Counter(id(lane.backend) for lane in self.lanes.values())
        others = [stage for stage, lane in self.lanes.items() if places[id(lane.backend)] > 1]
        for stage in others:
            if not self.lanes[stage].out:
                lane = self.lanes.pop(stage)
                lane.feed.close()  # its thread ends by itself
                self.ended = [other for other in self.ended if other.thread.is_alive()]
                self.ended.append(lane)
                return True
        return not others

    def _run_inline(self, dispatch: Dispatch) -> None:
        """What runs one after another on this machine runs in the caller's own thread."""
        self.scheduler.done(dispatch.id, run_rows(dispatch.stage, dispatch.rows, "local:sequential"))

    def _land(self, arrival: tuple[_Lane, Batch] | BaseException) -> None:
        if isinstance(arrival, BaseException):
            raise arrival
        lane, batch = arrival
        for at, values in enumerate(batch.values):
            row = batch.first + at
            chunk = lane.out.pop(row)
            reply = chunk.over(row, values, batch.failures.get(at))
            if reply is None:
                continue
            self._next_turn(lane.stage.steps[0].place)
            if self.later and not lane.out:
                waiting = self.later.popleft()
                self._send_by_lane(waiting, waiting.stage, self.places[waiting.stage.steps[0].place])
            self.scheduler.done(chunk.id, reply)


class Turns:
    """Puts batches into the order of their rows, and tells the feed how many rows wait for an earlier one."""

    def __init__(self, feed: Feed, *, stop_at_failure: bool = False) -> None:
        self.feed, self.stop_at_failure = feed, stop_at_failure
        self._waiting: dict[int, Batch] = {}
        self._turn = 0

    def ready(self, batch: Batch) -> list[Batch]:
        """The batches whose turn has come with this one."""
        if batch.failures and self.stop_at_failure:
            # Whatever comes later will not be asked for; what came earlier is still awaited.
            self.feed.stop(batch.first + min(batch.failures))
        waiting = self._waiting
        if batch.first != self._turn:
            waiting[batch.first] = batch
            self.feed.held += len(batch.values)
            return []
        found = [batch]
        self._turn += len(batch.values)
        while self._turn in waiting:
            batch = waiting.pop(self._turn)
            self.feed.held -= len(batch.values)
            self._turn += len(batch.values)
            found.append(batch)
        return found


def in_order(batches: Iterator[Batch], feed: Feed, *, stop_at_failure: bool = False) -> Iterator[Batch]:
    """Batches in the order of their rows."""
    turns = Turns(feed, stop_at_failure=stop_at_failure)
    for batch in batches:
        yield from turns.ready(batch)
