"""Lanes: the rows of a plan on their way through several places, one lane for each stage."""

from __future__ import annotations

import contextvars
import threading
from collections import Counter, deque
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hypernodes._backend import Backend
from hypernodes._engine import Feed, QueueFeed
from hypernodes._execute import execute
from hypernodes._failure import Failure
from hypernodes._ledger import Dispatch
from hypernodes._local import LocalBackend, core_engine
from hypernodes._pace import Pace
from hypernodes._places import Told, using
from hypernodes._schedule import Scheduler
from hypernodes._task import Batch, Reply, Stage, Task, run_rows
from hypernodes._worker import as_here

if TYPE_CHECKING:
    from hypernodes._hub import Route

__all__ = ["Lanes"]


MOST_OPEN = 1024
"""Rows of a plan that crosses borders that may be under way at once."""

MOST_LANES = 16
"""Lanes that may be open at once, beyond one for each place: with caches there may be one for each choice of steps."""


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
                for batch in execute(place, self.stage, self.feed):
                    self.arrivals.put((self, batch))
        except BaseException as error:
            self.arrivals.put(error)

    def end(self, *, cancel: bool) -> None:
        if cancel:
            self.feed.cancel()
        else:
            self.feed.close()
        self.thread.join(5.0 if cancel else None)


class Lanes:
    """The rows of a plan on their way through several places."""

    def __init__(self, route: Route, told: Told | None) -> None:
        self.places, self.told = route.plan.places, told
        # One place that takes one item after another takes each to its end.
        one_by_one = route.sole is not None and _takes_turns(route.sole)
        self.scheduler = Scheduler(
            route.blueprint,
            workers=1 if one_by_one else MOST_OPEN,
            pace=lambda _: Pace(0.0, 1),
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
