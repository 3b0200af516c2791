"""Rows on the flat road: drawn as tables, kept in runs, handed out in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from hypernodes import Failure, LocalBackend, Pipeline, node
from hypernodes._blueprint import blueprint_of
from hypernodes._compile import compile_plan
from hypernodes._drive import drive
from hypernodes._engine import Feed
from hypernodes._errors import GraphError
from hypernodes._ledger import Dispatch
from hypernodes._line import Line
from hypernodes._pace import Pace
from hypernodes._runs import Run, RunQueue
from hypernodes._schedule import Scheduler
from hypernodes._supply import ReadyColumns, ReadyRows
from hypernodes._table import Table
from hypernodes._task import Reply, Stage, Task, run_rows


@node(output_name="half")
def halve(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x // 2


@node(output_name=("low", "high"))
def around(x: int, k: int = 1) -> tuple[int, int]:
    return x - k, x + k


def stage_of(*nodes: Any) -> Stage:
    pipeline = Pipeline(list(nodes), name="main")
    plan = compile_plan(pipeline, sorted(pipeline.input_names), pipeline.output_names, LocalBackend())
    return Stage("main", plan.steps, plan.inputs, plan.outputs)


def line_of(stage: Stage, *, workers: int = 2, most: int = 8) -> Line:
    return Line(stage, workers=workers, pace=lambda _: Pace(0.01, most))


def test_table_is_a_sequence_of_its_rows() -> None:
    rows = [(at, str(at)) for at in range(7)]
    table = Table.of(rows)
    assert list(table) == rows
    assert (table[2], table[-1], list(table[2:5]), len(table[5:99])) == (rows[2], rows[6], rows[2:5], 2)
    assert list(Table.joined([table[:3], table[3:3], table[3:]])) == rows
    assert list(Table([], 3)) == [(), (), ()]
    with pytest.raises(IndexError, match="row 7 of a table of 7"):
        table[7]


def test_rows_that_are_none_are_none_in_each_column() -> None:
    assert Table.of([None, (1, 2)], 2).columns == [[None, 1], [None, 2]]


def test_runs_are_drawn_in_pieces_of_any_size_and_in_order() -> None:
    queue = RunQueue()
    for first, count in ((0, 3), (3, 1), (4, 6)):
        queue.extend(Run(first, Table.of([(at,) for at in range(first, first + count)])))
    found = [queue.draw(count) for count in (2, 4, 1, 3)]
    assert [task for run in found for task in run] == [Task(at, (at,)) for at in range(10)]
    assert [run.first for run in found] == [0, 2, 6, 7]
    assert len(queue) == 0


def test_run_ends_where_nobody_waits_any_more() -> None:
    run = Run(5, Table.of([(at,) for at in range(5, 9)]))
    assert [len(run.up_to(last)) for last in (4, 5, 7, 8, 99)] == [0, 1, 3, 4, 4]


@pytest.mark.parametrize("how", ["take", "take_run"])
def test_feed_keeps_what_came_before_an_error(how: str) -> None:
    def rows() -> Iterator[tuple[int]]:
        yield (0,)
        yield (1,)
        raise OSError("the file is gone")

    feed = Feed(rows())
    assert list(getattr(feed, how)(5)) == [Task(0, (0,)), Task(1, (1,))]
    assert feed.ended
    assert isinstance(feed.error, OSError)


@pytest.mark.parametrize("ready", [False, True])
def test_looking_whether_there_is_a_row_loses_none(ready: bool) -> None:
    rows = [(at,) for at in range(5)]
    for draw in (lambda feed: list(feed.take(2)), lambda feed: list(feed.take_run(2))):
        feed = Feed(Table.of(rows) if ready else iter(rows))
        assert feed.peek()
        assert feed.peek()
        found = []
        while not feed.ended:
            found += draw(feed)
        assert found == [Task(at, (at,)) for at in range(5)]
        assert not feed.peek()


def test_row_that_was_looked_at_stays_the_same_object() -> None:
    row = (object(),)
    feed = Feed([row])
    assert feed.peek()
    assert feed.take(1)[0].values is row


def test_slow_source_is_not_waited_for_once_a_batch_can_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypernodes._engine.DRAWING", -1.0)  # every moment of drawing is too long
    feed = Feed((at,) for at in range(100))
    assert len(feed.take_run(50)) == 1
    assert len(feed.take_run(50, 8)) == 8
    assert feed.take_run(1)[0].index == 9


def test_rows_that_lie_ready_say_how_many_are_left() -> None:
    feed = Feed(ReadyRows([{"x": at} for at in range(9)], ["x"], ["k", "x"], {"k": 3}))
    assert feed.left == 9
    assert list(feed.take_run(4)) == [Task(at, (3, at)) for at in range(4)]
    assert feed.left == 5
    feed.take_run(99)
    assert (feed.left, feed.ended) == (0, True)


def test_rows_that_lie_ready_end_before_a_row_of_other_keys() -> None:
    ready = ReadyRows([{"x": 0}, {"x": 1}, {"y": 2}], ["x"], ["x"], {})
    assert list(ready.draw(2)) == [(0,), (1,)]
    assert (len(ready.draw(2)), ready.read, ready.left) == (0, 2, 0)


def test_list_that_changes_in_length_while_it_is_mapped_over_is_told_by_name() -> None:
    xs = [1, 2, 3]
    ready = ReadyColumns({"x": xs}, ["x"], {})
    assert len(ready.draw(2)) == 2
    xs.pop()
    with pytest.raises(GraphError, match="'x' changed in length while it was mapped over"):
        ready.draw(2)


def test_failing_row_does_not_stop_its_neighbours_in_a_loop() -> None:
    reply = run_rows(stage_of(halve), Table.of([(at,) for at in (0, 1, 3, 4)]), "here")
    assert [row for at, row in enumerate(reply.values) if at not in reply.failures] == [(0,), (2,)]
    assert {at: failure.message for at, (failure, _) in reply.failures.items()} == {1: "1 is odd", 2: "3 is odd"}
    wide = run_rows(stage_of(around, halve), [(1, 5), (1, 8)])
    assert wide.failures.keys() == {0}
    assert wide.values[1] == (7, 9, 4)


def test_no_more_is_drawn_than_the_next_chunk_needs() -> None:
    line, feed = line_of(stage_of(halve)), Feed((at,) for at in range(100))
    sizes = []
    for _ in range(4):
        line.draw(feed, line.room())
        assert line.room() == 0
        dispatch = line.take()
        assert dispatch is not None
        sizes.append(len(dispatch.tasks))
        line.done(dispatch.id, Reply([(0,)] * sizes[-1], {}, 0.0))
    assert sizes == [1, 4, 8, 8]


def test_chunks_shrink_towards_a_known_end() -> None:
    line = line_of(stage_of(halve), most=16)
    line.ledger.pace_of(line.stage).record(4, 0.004)
    feed, sizes = Feed(Table.of([(at,) for at in range(40)])), list[int]()
    while not feed.ended or line.open > sum(sizes):
        line.draw(feed, line.room())
        dispatch = line.take()
        assert dispatch is not None
        sizes.append(len(dispatch.tasks))
        if sum(sizes) == 40:
            break
    assert sizes[0] == 10
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


def test_chunk_is_a_multiple_of_the_batch_and_never_less_for_fairness() -> None:
    stage = stage_of(halve)
    stage.batch = 3
    line, feed = line_of(stage, workers=4), Feed(Table.of([(at,) for at in range(11)]))
    sizes = []
    for _ in range(4):
        assert line.room() >= 3 or feed.ended
        line.draw(feed, line.room())
        dispatch = line.take()
        assert dispatch is not None
        sizes.append(len(dispatch.tasks))
    assert sizes == [3, 3, 3, 2]


def test_batch_that_is_not_full_waits_while_something_is_out_and_more_may_come() -> None:
    stage = stage_of(halve)
    stage.batch = 3
    line = line_of(stage)
    line.admit(Run(0, Table.of([(0,), (1,)])))
    first = line.take()
    assert first is not None, "nothing is out: somebody may wait for these"
    line.admit(Run(2, Table.of([(2,), (3,)])))
    assert line.take() is None
    line.done(first.id, Reply([(0,), (0,)], {}))
    second = line.take()
    assert second is not None
    assert len(second.tasks) == 2


class Recorded(Future[Any]):
    """A future that notes when it is cancelled."""

    def __init__(self, number: int, cancelled: list[int]) -> None:
        super().__init__()
        self.number, self.order = number, cancelled

    def cancel(self) -> bool:
        self.order.append(self.number)
        return super().cancel()


class Wire:
    """An executor that begins nothing but the first chunk, in which the row fails."""

    def __init__(self, failure: Failure) -> None:
        self.failure, self.sent, self.cancelled = failure, 0, list[int]()

    def send(self, dispatch: Dispatch) -> Future[Any]:
        future = Recorded(self.sent, self.cancelled)
        self.sent += 1
        if not dispatch.tasks[0].index:
            future.set_result(Reply([None], {0: (self.failure, 0)}))
        return future

    def reply(self, result: Any) -> Reply:
        reply: Reply = result
        return reply

    def renew(self) -> None:
        raise AssertionError("nothing broke")

    def abort(self) -> None:
        raise AssertionError("nothing runs that nobody waits for")


def test_stop_takes_back_the_newest_first() -> None:
    wire = Wire(Failure(("main", "halve"), (None, None), "ValueError", "odd", ValueError("odd"), "there"))
    feed = Feed((at,) for at in range(100))
    batches = drive(line_of(stage_of(halve)), feed, wire, in_flight=4)
    batch = next(batches)
    assert batch.failures
    feed.stop(batch.first)
    assert list(batches) == []
    assert wire.cancelled == [3, 2, 1]


class AtOnce(Wire):
    """An executor that has run a chunk before it says that it took it."""

    def __init__(self) -> None:
        super().__init__(Failure(("main",), (None,), "ValueError", "", ValueError(), ""))

    def send(self, dispatch: Dispatch) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(run_rows(dispatch.stage, dispatch.rows))
        return future


@pytest.mark.timeout(30)
@pytest.mark.parametrize("fine", [False, True])
def test_what_an_early_reply_makes_ready_goes_out_at_once(fine: bool) -> None:
    stage = stage_of(
        around, node(lambda low: low * 2, output_name="left"), node(lambda high: -high, output_name="right")
    )
    blueprint = blueprint_of(stage, fine=fine, fans=False)
    assert (blueprint.single is None) is fine
    scheduler: Any = (
        line_of(stage)
        if blueprint.single is not None
        else Scheduler(blueprint, workers=2, pace=lambda _: Pace(0.01, 8))
    )
    feed = Feed((at, 1) for at in range(20))
    found = [outcome for batch in drive(scheduler, feed, AtOnce(), in_flight=4) for outcome in batch.outcomes()]
    assert sorted(outcome.index for outcome in found) == list(range(20))
    assert all(outcome.failure is None for outcome in found)
