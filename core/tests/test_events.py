"""What listeners hear of a run, who hears it, and that nobody who listens can spoil a result."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hypernodes import Callback, Event, LocalBackend, NodeDefinitionError, Pipeline, Run, failure_of, node
from hypernodes.testing import SubprocessBackend

SECRET = "correct horse battery staple"


@node(output_name="a")
def first(x: Any) -> Any:
    return x


@node(output_name="b")
def second(a: Any) -> Any:
    if a == SECRET * 2:
        raise ValueError(f"{a} is refused")
    return a


@node(output_name="later")
async def later(a: Any) -> Any:
    await asyncio.sleep(0)
    return a


def inner(**options: Any) -> Pipeline:
    return Pipeline([second], name="inner", **options)


def told(events: list[Event]) -> list[str]:
    return [f"{event.phase} {event.kind} {event.name}" for event in events if event.kind != "place"]


def check_tree(events: list[Event]) -> None:
    """Every span begins once and ends once, within its parent."""
    open_spans: dict[str, Event] = {}
    seen: set[str] = set()
    for event in events:
        if event.phase == "start":
            assert event.span not in seen
            assert not event.parent or event.parent in open_spans, event
            assert event.seconds is None or event.kind == "place"
            open_spans[event.span] = event
            seen.add(event.span)
        else:
            begun = open_spans.pop(event.span)
            assert (begun.kind, begun.path, begun.items, begun.parent) == (
                *(event.kind, event.path, event.items),
                event.parent,
            )
            assert not [child for child in open_spans.values() if child.parent == event.span]
            assert event.seconds is not None
            assert event.seconds >= 0
            assert event.status in ("ok", "error", "cached", "stopped")
    assert not open_spans
    assert events[0].parent == events[-1].parent == ""


BACKENDS = {
    "sequential": lambda: LocalBackend(),
    "async": lambda: LocalBackend(engine="async"),
    "subprocess": lambda: SubprocessBackend(machines=1),
}


@pytest.mark.parametrize("where", BACKENDS)
def test_events_make_a_tree(where: str) -> None:
    events: list[Event] = []
    nested = inner().as_node({"as_": "a"}, {"b": "bs"}, map_over="as_")
    spread = node(lambda a: [a, a], output_name="as_")
    with BACKENDS[where]() as backend:
        pipeline = Pipeline([first, spread, nested, later], name="main", backend=backend, callbacks=[events.append])
        pipeline.map([{"x": 1}, {"x": SECRET * 2}, {"x": 3}], on_error="return")
    check_tree(events)
    assert {event.run for event in events} == {events[0].run}
    nodes = [event for event in events if event.kind == "node" and event.phase == "end"]
    wrong = {event.where for event in nodes if event.status == "error"}
    assert "main (item 1) > inner (item 0) > second" in wrong  # the other row may have run meanwhile
    assert all(where.startswith("main (item 1) > inner") for where in wrong)
    assert all(event.place and event.worker for event in nodes)


def test_a_run_is_told_from_its_beginning_to_its_end() -> None:
    events: list[Event] = []
    assert Pipeline([first, inner()], name="main", callbacks=[events.append]).run(x=1) == {"a": 1, "b": 1}
    assert told(events) == [
        *("start pipeline main", "start node first", "end node first", "start nested inner", "start node second"),
        *("end node second", "end nested inner", "end pipeline main"),
    ]
    check_tree(events)


def test_an_item_of_a_map_knows_its_index_and_the_map_its_length() -> None:
    events: list[Event] = []
    Pipeline([first], name="main", callbacks=[events.append]).map([{"x": 1}, {"x": 2}])
    assert [event.items for event in events if event.kind == "item" and event.phase == "end"] == [(0,), (1,)]
    assert [event.total for event in events if event.kind == "map"] == [2, 2]


def test_a_node_is_told_of_before_its_own_code_runs() -> None:
    order: list[str] = []

    @node(output_name="made")
    def make(x: Any) -> Any:
        order.append("runs")
        return x

    def listen(event: Event) -> None:
        if event.kind == "node":
            order.append(event.phase)

    Pipeline([make], callbacks=[listen]).run(x=1)
    assert order == ["start", "runs", "end"]


@pytest.mark.parametrize("where", BACKENDS)
def test_no_event_holds_a_value_or_a_message(where: str) -> None:
    events: list[Event] = []
    with BACKENDS[where]() as backend:
        pipeline = Pipeline([first, second], name="main", backend=backend, callbacks=[events.append])
        pipeline.map([{"x": SECRET}, {"x": SECRET * 2}], on_error="return")
    assert SECRET not in repr(events)
    (failed,) = [event for event in events if event.kind == "item" and event.status == "error"]
    assert failed.error == "ValueError"
    assert failed.failure is not None
    assert SECRET in failed.failure.message


# who hears


def test_callbacks_are_inherited_and_an_empty_list_is_silence() -> None:
    outer, own = [], []  # type: ignore[var-annotated]
    silent = inner(callbacks=[])
    Pipeline([first, silent], name="main", callbacks=[outer.append]).run(x=1)
    assert "end node second" not in told(outer)
    assert told(outer)[-3:] == ["start nested inner", "end nested inner", "end pipeline main"]
    outer.clear()
    Pipeline([first, inner(callbacks=[own.append])], name="main", callbacks=[outer.append]).run(x=1)
    assert told(own) == [
        *("start pipeline main", "start nested inner", "start node second"),
        *("end node second", "end nested inner", "end pipeline main"),
    ]
    assert "start node second" not in told(outer)
    assert "end nested inner" in told(outer)


def test_a_callback_of_a_nested_pipeline_alone_hears_that_pipeline() -> None:
    events: list[Event] = []
    Pipeline([first, inner(callbacks=[events.append])], name="main").run(x=1)
    assert [event.name for event in events if event.kind == "node"] == ["second", "second"]


def test_a_callback_object_begins_once_for_each_run() -> None:
    runs: list[Run] = []
    events: list[Event] = []

    class Recorder(Callback):
        def begin(self, run: Run) -> Any:
            runs.append(run)
            return events.append if run.kind == "map" else None

    recorder = Recorder()
    pipeline = Pipeline([first, inner(callbacks=[recorder])], name="main", callbacks=[recorder])
    pipeline.run(x=1)
    assert events == []
    pipeline.map([{"x": 1}])
    assert [(run.pipeline, run.kind, run.total) for run in runs] == [("main", "pipeline", None), ("main", "map", 1)]
    assert [path for path, _ in runs[0].steps] == [("main", "first"), ("main", "inner", "second")]
    check_tree(events)


def test_a_callback_that_raises_is_logged_and_heard_no_more(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def explode(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("boom")

    class Unready(Callback):
        def begin(self, run: Run) -> Any:
            raise RuntimeError("not today")

    events: list[Event] = []
    pipeline = Pipeline([first], name="main", callbacks=[explode, Unready(), events.append])
    with caplog.at_level(logging.WARNING, "hypernodes"):
        assert pipeline.map([{"x": 1}, {"x": 2}], output_name="a") == [1, 2]
    assert len(heard) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{Unready.__qualname__} hears nothing of this run: its begin() raised",
        f"{explode.__qualname__} hears no more of this run: it raised",
    ]
    check_tree(events)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (print, "pipeline 'main': callbacks takes a list; write callbacks=[...]"),
        ("print", "pipeline 'main': callbacks takes a list, not a str"),
        ([3], "pipeline 'main': 3 among its callbacks is neither a Callback nor a function of an event"),
        ([Callback], "pipeline 'main': Callback among its callbacks is a class; call it: Callback()"),
    ],
)
def test_what_cannot_listen_is_refused_when_the_pipeline_is_built(callbacks: Any, message: str) -> None:
    with pytest.raises(NodeDefinitionError) as caught:
        Pipeline([first], name="main", callbacks=callbacks)
    assert str(caught.value) == message


# how runs end


def test_a_failing_map_ends_with_its_failure() -> None:
    events: list[Event] = []
    pipeline = Pipeline([first, second], name="main", callbacks=[events.append])
    with pytest.raises(ValueError, match="refused") as caught:
        pipeline.map([{"x": 1}, {"x": SECRET * 2}, {"x": 3}])
    check_tree(events)
    last = events[-1]
    assert (last.kind, last.status, last.error) == ("map", "error", "ValueError")
    found = failure_of(caught.value)
    assert found is not None
    assert last.failure is not None
    assert last.failure.where == found.where == "main (item 1) > second"


def test_a_stream_that_is_closed_early_is_stopped() -> None:
    events: list[Event] = []
    pipeline = Pipeline([first], name="main", callbacks=[events.append])
    stream = pipeline.map_iter({"x": number} for number in range(1000))
    assert next(stream) == {"a": 0}
    stream.close()
    check_tree(events)
    assert events[-1].status == "stopped"


def test_rows_with_other_keys_are_one_map() -> None:
    events: list[Event] = []
    pipeline = Pipeline([first, second], name="main", callbacks=[events.append])
    assert pipeline.map([{"x": 1}, {"a": 2}, {"x": 3}], output_name="b") == [1, 2, 3]
    check_tree(events)
    assert [event.items for event in events if event.kind == "item" and event.phase == "start"] == [(0,), (1,), (2,)]


@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_async_calls_are_told_of_too(engine: str) -> None:
    events: list[Event] = []
    pipeline = Pipeline([first, later], name="main", callbacks=[events.append], backend=LocalBackend(engine=engine))

    async def rows() -> AsyncIterator[dict[str, int]]:
        for number in range(2):
            yield {"x": number}

    async def calls() -> None:
        assert await pipeline.arun(x=1, output_name="later") == 1
        assert await pipeline.amap(rows(), output_name="later") == [0, 1]
        assert [found async for found in pipeline.amap_iter([{"x": 5}], output_name="later")] == [5]

    asyncio.run(calls())
    by_run: dict[str, list[Event]] = {}
    for event in events:
        by_run.setdefault(event.run, []).append(event)
    assert len(by_run) == 3
    for one in by_run.values():
        check_tree(one)
        assert one[-1].status == "ok"


def test_runs_of_two_threads_do_not_mix() -> None:
    events: list[Event] = []
    pipeline = Pipeline([first, inner()], name="main", callbacks=[events.append])
    both = threading.Barrier(2)

    def call() -> None:
        both.wait(30)
        pipeline.map([{"x": number} for number in range(200)])

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    runs = {event.run for event in events}
    assert len(runs) == 2
    for run in runs:
        check_tree([event for event in events if event.run == run])
