"""The scheduler: rows of a pipeline, cut into units, handed out as chunks and put together again.

A pure state machine over the ledger: rows and replies go in, chunks and outcomes come out. It has no clock, no
threads and does no I/O, so a simulator can drive it through worker deaths, late and doubled messages, and
interrupts, by the tens of thousands (tests/test_simulation.py). Where one stage is all there is, `_line` schedules.

A failure is chosen as a run of one step after another would meet it: when a step fails, later ones of its row are
dropped while earlier ones go on, and the earliest failure is the row's. The same holds for the rows of a fan.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from hypernodes._blueprint import Blueprint, Unit
from hypernodes._engine import Feed
from hypernodes._errors import GraphError
from hypernodes._failure import Failure, describe
from hypernodes._frames import Fan, Frame
from hypernodes._ledger import Dispatch
from hypernodes._lineup import Lineup
from hypernodes._pace import Pace
from hypernodes._plan import MapStep
from hypernodes._recall import Recall
from hypernodes._rows import columns_of, map_rows, with_index
from hypernodes._task import Batch, Reply, Stage, Task

__all__ = ["Scheduler", "common_path"]

WINDOW = 1024
"""Rows that go stage by stage together; two batches, where that is more."""


class Supply(Enum):
    """What the driver says of the rows that are not there yet."""

    OVER = "no more will come"
    DRY = "none is there for the moment"
    HELD = "there are more than there is room for"
    OFFERED = "more come before the driver waits for anything"


def common_path(stage: Stage) -> tuple[str, ...]:
    """The path to a stage's only node, or to the innermost pipeline that holds all of its nodes."""
    if len(stage.steps) == 1:
        return stage.steps[0].path
    paths = [step.path[:-1] for step in stage.steps]
    return tuple(names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, zip(*paths)))  # noqa: B905


class Scheduler:
    """Rows in, chunks out, replies in, outcomes out.

    `workers` is how many chunks can run at once. `width` bounds how many rows of one map may be under way together;
    None leaves it to the pace of the work. `pace` makes the rule for the size of chunks.

    A batch that is not full waits as long as rows may come to it. Under a `width`, as many rows are under way as fill
    the batches, and still those of one map take turns: only a batch has several out. If `staged`, nothing of a
    later unit begins while an earlier one has work, for a window of rows after another.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        workers: int,
        pace: Callable[[Stage], Pace],
        width: int | None = None,
        place: str = "",
        staged: bool = False,
    ) -> None:
        self.workers, self.place = workers, place
        sizes = blueprint.gathers.values()
        self.width = width if width is None else max(width, sum(sizes))
        self.turns = width is not None and bool(sizes)
        # Room for every batch to fill while another of the same node is out.
        self.hold = 2 * sum(sizes)
        self.window = max(WINDOW, 2 * max(sizes, default=0)) if staged and blueprint.single is None else None
        self._filling, self._filled = True, 0
        self._root = Fan(blueprint)
        self._owners: dict[int, tuple[Fan, int] | tuple[Frame, Unit]] = {}
        self._fans: deque[Fan] = deque()
        self._serial = 0
        self._batches: list[Batch] = []
        self._stopped_at: int | None = None
        self._open = 0
        self._supply = Supply.OVER
        self._awaited: Counter[int] = Counter()
        self.ledger = Lineup(
            workers,
            pace,
            self._living,
            fills=self._fills,
            fits=self._fits if self.turns else None,
            ranks=blueprint.ranks() if sizes or staged else {},
            staged=self.window is not None,
        )

    # -- what the driver asks

    @property
    def open(self) -> int:
        """How many of the run's own rows are under way."""
        return self._open

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing is out and every outcome has been collected."""
        return self._open == 0 and not self._batches

    def room(self) -> int:
        """How many more rows it would take now: enough to keep the workers busy and to fill batches, not more."""
        if self._stopped_at is not None:
            return 0
        if self.width is not None:
            return max(0, self.width - self._open)
        if self.window is not None:
            if not self._open:
                self._filling, self._filled = True, 0
            return max(0, self.window - self._filled) if self._filling else 0
        return max(0, 2 * self.workers + self.hold - self.ledger.waiting)

    def ahead(self) -> int:
        """How many outcomes may wait for an earlier one before no more rows are drawn."""
        return max(16 * self.workers + self.hold, self.window or 0)

    def draw(self, feed: Feed, room: int) -> None:
        """Begin up to `room` rows of a feed, and note whether more will come."""
        dry = False
        while room > 0 and not feed.ended and not dry:
            # To fill batches rows come in pieces, so that a slow source does not hold back what it gave.
            tasks = feed.take_run(room, min(room, 2 * self.workers)) if self.hold else feed.take(room)
            self.admit(tasks)
            dry = feed.pushed and len(tasks) < room
            if self._batches or (len(tasks) < room and (self.ledger.out or self.ledger.has_work())):
                break
            room = min(room - len(tasks), self.room(), self.ahead() - feed.held)
        if feed.ended:
            self._supply = Supply.OVER
        else:
            self._supply = Supply.DRY if dry else Supply.OFFERED if self._batches else Supply.HELD

    def admit(self, tasks: Iterable[Task]) -> None:
        """Begin rows; each task's index names its outcome."""
        for task in tasks:
            self._open += 1
            self._filled += 1
            self._begin(self._root, task.index, task.values)

    def take(self) -> Dispatch | None:
        """The next chunk for a worker, or None."""
        while self._fans and self.ledger.waiting < self._enough(self._fans[0]):
            self._spread(self._fans[0])
        dispatch = self.ledger.take()
        while dispatch is None and self._fans and not self.ledger.out:
            self._spread(self._fans[0])
            dispatch = self.ledger.take()
        if dispatch is None and self.ledger.waiting and not self.ledger.out and self._supply is not Supply.OFFERED:
            self.ledger.close_batch()
            dispatch = self.ledger.take()
        if dispatch is not None and self.window is not None and self.ledger.rank(dispatch.stage):
            self._filling = False
        return dispatch

    def batches(self) -> list[Batch]:
        """The rows that came to an end since the last call, in the order in which they did."""
        done, self._batches = self._batches, []
        return done

    def stop(self, after: int) -> None:
        """Take no more rows, and drop those with a higher index than `after` that are not out yet."""
        self._stopped_at = after if self._stopped_at is None else min(after, self._stopped_at)
        self._root.failed = self._stopped_at

    def unwanted(self, dispatch_id: int) -> bool:
        """Whether nobody waits for anything in a chunk that is out: here it finds its end by itself."""
        return False

    # -- what the driver tells

    def done(self, dispatch_id: int, reply: Reply) -> None:
        """A chunk came back."""
        dispatch = self.ledger.done(dispatch_id, reply.seconds)
        if dispatch is None:
            return
        for at, (task, values) in enumerate(zip(dispatch.tasks, reply.values, strict=True)):
            self._settle(dispatch.stage, task, values, reply.failures.get(at))

    def lost(self, dispatch_id: int, error: BaseException) -> None:
        """The worker of a chunk died while it ran it."""
        dispatch = self.ledger.dispatched(dispatch_id)
        task = self.ledger.lost(dispatch_id)
        if task is not None and dispatch is not None:
            self._blame(dispatch.stage, task, error)

    def refused(self, dispatch_id: int, error_of: Callable[[Stage, Task], BaseException]) -> None:
        """A chunk could not be carried there or back; it is divided until the row at fault is alone."""
        dispatch = self.ledger.dispatched(dispatch_id)
        task = self.ledger.divide(dispatch_id)
        if task is not None and dispatch is not None:
            self._blame(dispatch.stage, task, error_of(dispatch.stage, task))

    def returned(self, dispatch_id: int) -> None:
        """A chunk comes back unbegun."""
        self.ledger.returned(dispatch_id)

    # -- rows of blueprints

    def _enough(self, fan: Fan) -> int:
        """How many waiting tasks keep the workers busy with this fan's rows."""
        if self.window is not None:
            return self.window
        stage = fan.blueprint.single
        return 2 * self.workers * (self.ledger.pace_of(stage).size if stage is not None else 1) + self.hold

    def _blame(self, stage: Stage, task: Task, error: BaseException) -> None:
        path = common_path(stage)
        failure = describe(error, path, (None,) * len(path), self.place)
        self._settle(stage, task, None, (failure, 0))

    def _fills(self, stage: Stage) -> bool:
        """Whether rows may still come to a stage whose batch is not full."""
        if any(self._awaited[node] for node in stage.gathers):
            return True
        if self._supply is Supply.OVER or self._stopped_at is not None or not self._filling:
            return False
        # Whoever gives rows may be waiting for what comes of those that wait here.
        return self._supply is not Supply.DRY or self.ledger.out_of(stage) > 0

    def _fits(self, tasks: Sequence[Task]) -> bool:
        """Whether tasks may be out with what is out, where the rows of each map take turns."""
        if not self.ledger.out:
            return True
        if len(tasks) > 1:
            return False
        turns: dict[Fan, int] = {}
        return all(
            turns.setdefault(fan, index) == index
            for task in itertools.chain(self.ledger.tasks_out(), tasks)
            for fan, index in self._rows_of(task)
        )

    def _rows_of(self, task: Task) -> Iterator[tuple[Fan, int]]:
        """The row that a task is of, and those around it."""
        owner, what = self._owners[task.index]
        frame = owner if isinstance(owner, Frame) else None
        if isinstance(owner, Fan) and isinstance(what, int):
            yield owner, what
            frame = owner.frame
        while frame is not None:
            yield frame.fan, frame.index
            frame = frame.fan.frame

    def _living(self, tasks: Sequence[Task]) -> list[Task]:
        return [task for task in tasks if self._is_live(task)]

    def _is_live(self, task: Task) -> bool:
        owner, what = self._owners[task.index]
        if isinstance(owner, Fan):
            assert isinstance(what, int)
            if not owner.dead(what):
                return True
            del self._owners[task.index]
            self._row_over(owner, what, None, None)
        else:
            assert isinstance(what, Unit)
            if not owner.dead(what.first):
                return True
            del self._owners[task.index]
            self._unit_over(owner)
        return False

    def _expect(self, frame: Frame, nodes: Iterable[int]) -> None:
        """A row may come to these batch nodes."""
        frame.awaited = set(nodes)
        self._awaited.update(frame.awaited)

    def _expect_no_more(self, frame: Frame, nodes: Iterable[int]) -> None:
        """A row has come to these batch nodes, or will not come to them."""
        if frame.awaited:
            found = frame.awaited.intersection(nodes)
            frame.awaited -= found
            self._awaited.subtract(found)

    def _send(self, stage: Stage, values: tuple[Any, ...], owner: Any, what: Any) -> None:
        self._serial += 1
        self._owners[self._serial] = (owner, what)
        self.ledger.put(stage, (Task(self._serial, values),))

    def _begin(self, fan: Fan, index: int, values: tuple[Any, ...]) -> None:
        fan.open += 1
        blueprint = fan.blueprint
        if blueprint.memo is not None:
            self._go_on(fan, index, blueprint.memo.row(values, fan.keys))
        elif blueprint.single is not None:
            self._send(blueprint.single, values, fan, index)
        else:
            self._begin_units(Frame(blueprint, fan, index, values))

    def _go_on(self, fan: Fan, index: int, recall: Recall) -> None:
        """Begin what a row has to run next, now that more of it is known."""
        todo = recall.next()
        if todo is None:
            self._row_over(fan, index, recall.outputs(), None)
        else:
            frame = Frame(todo[0], fan, index, todo[1], recall)
            if fan.blueprint.gathers:
                self._expect(frame, (*todo[0].gathers, *recall.later_gathers()))
            self._begin_units(frame)

    def _begin_units(self, frame: Frame) -> None:
        blueprint = frame.blueprint
        if frame.awaited is None and blueprint.gathers:
            self._expect(frame, blueprint.gathers)
        frame.running += 1
        for unit in blueprint.units:
            if not unit.waits:
                self._start(frame, unit)
        self._unit_over(frame)

    def _start(self, frame: Frame, unit: Unit) -> None:
        if frame.dead(unit.first):
            return
        frame.running += 1
        values = tuple([frame.values[slot] for slot in unit.reads])
        if unit.stage is not None:
            self._send(unit.stage, values, frame, unit)
            self._expect_no_more(frame, unit.stage.gathers)
            return
        assert unit.inner is not None and unit.fan is not None
        fan = Fan(unit.inner, frame, unit)
        if frame.recall is not None and unit.inner.memo is not None:
            fan.keys = frame.recall.inner_keys(unit.fan)
        try:
            fan.rows = map_rows(unit.fan, values)
        except GraphError as error:
            path = unit.fan.path
            self._unit_failed(frame, describe(error, path, (None,) * len(path), self.place), unit.first)
            self._unit_over(frame)
            return
        self._fans.appendleft(fan)

    def _spread(self, fan: Fan) -> None:
        """Begin the next row of a fan; the fan leaves the line when it has no more or may not have more now."""
        if fan.rows is not None and self.width is not None and fan.open >= self.width:
            self._fans.remove(fan)
            return
        assert fan.frame is not None
        index = len(fan.results)
        row = None if fan.rows is None or fan.dead(index) else next(fan.rows, None)
        if row is None:
            fan.rows = None
            self._fans.remove(fan)
            self._expect_no_more(fan.frame, fan.blueprint.gathers)
            if not fan.open:
                self._fan_over(fan)
            return
        fan.results.append(None)
        self._begin(fan, index, row)

    def _settle(
        self, stage: Stage, task: Task, values: tuple[Any, ...] | None, failed: tuple[Failure, int] | None
    ) -> None:
        """What came of a task; a failure with the position of its step in the stage."""
        entry = self._owners.pop(task.index, None)
        if entry is None:
            return
        owner, what = entry
        if isinstance(owner, Fan):
            assert isinstance(what, int)
            self._row_over(owner, what, values, failed and (failed[0], stage.indices[failed[1]]))
            return
        assert isinstance(what, Unit)
        if failed:
            failure, step = failed
            if failure.made:
                self._made(owner, failure.made)
            self._unit_failed(owner, failure, what.members[step])
        else:
            assert values is not None
            self._unit_made(owner, what, values)
        self._unit_over(owner)

    def _unit_made(self, frame: Frame, unit: Unit, values: Iterable[Any]) -> None:
        self._made(frame, dict(zip(unit.writes, values, strict=True)))
        for at in unit.readers:
            frame.waits[at] -= 1
            if not frame.waits[at]:
                self._start(frame, frame.blueprint.units[at])

    @staticmethod
    def _made(frame: Frame, made: dict[int, Any]) -> None:
        """Values are there; what is worth keeping is kept at once, whatever becomes of the row."""
        frame.values.update(made)
        if frame.recall is not None:
            frame.recall.learn(made)

    @staticmethod
    def _unit_failed(frame: Frame, failure: Failure, step: int) -> None:
        if frame.fail_at is None or step < frame.fail_at:
            frame.fail_at, frame.failure = step, failure

    def _unit_over(self, frame: Frame) -> None:
        frame.running -= 1
        if frame.running:
            return
        if frame.awaited:
            self._expect_no_more(frame, tuple(frame.awaited))
        recall, failure = frame.recall, frame.failure
        if failure is not None:
            assert frame.fail_at is not None
            if failure.made is not None:
                made = {slot: frame.values[slot] for slot in frame.blueprint.outputs if slot in frame.values}
                failure = replace(failure, made=made if recall is None else None)
            self._row_over(frame.fan, frame.index, None, (failure, frame.fail_at))
        elif frame.fan.dead(frame.index):
            self._row_over(frame.fan, frame.index, None, None)
        elif recall is not None:
            self._go_on(frame.fan, frame.index, recall)
        else:
            outputs = tuple([frame.values[slot] for slot in frame.blueprint.outputs])
            self._row_over(frame.fan, frame.index, outputs, None)

    def _row_over(
        self, fan: Fan, index: int, values: tuple[Any, ...] | None, failed: tuple[Failure, int] | None
    ) -> None:
        fan.open -= 1
        if fan is self._root:
            self._open -= 1
            if values is not None or failed:
                self._batches.append(Batch(index, [values], {0: failed} if failed else {}))
            return
        if failed:
            if fan.failed is None or index < fan.failed:
                fan.failed, fan.failure = index, failed[0]
        else:
            fan.results[index] = values
        if fan.rows is not None:
            if self.width is not None and fan not in self._fans:
                self._fans.appendleft(fan)
        elif not fan.open:
            self._fan_over(fan)

    def _fan_over(self, fan: Fan) -> None:
        frame, unit = fan.frame, fan.unit
        assert frame is not None and unit is not None and isinstance(unit.fan, MapStep)
        if fan.failure is not None and fan.failed is not None:
            failure = fan.failure
            depth = len(unit.fan.path) - 1
            items = with_index(failure.items, depth, fan.failed) if len(failure.items) > depth else failure.items
            made: dict[int, Any] | None = None if failure.made is None else {}
            self._unit_failed(frame, replace(failure, items=items, made=made), unit.first)
        elif not frame.dead(unit.first):
            done = [row for row in fan.results if row is not None]
            self._unit_made(frame, unit, columns_of(done, len(unit.writes)))
        self._unit_over(frame)
