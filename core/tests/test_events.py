"""What is told of runs: to whom, in which order, and with which end, whatever becomes of the run."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hypernodes import Callback, Event, LocalBackend, MemoryCache, NodeDefinitionError, Pipeline, Run, node
from hypernodes.testing import EventLog, SubprocessBackend, normalised
from hypernodes.testing._event_tree import Branch, event_problems, outline


@node(output_name="a")
def first(x: Any) -> Any:
    return x


@node(output_name="b")
def second(a: Any) -> Any:
    return a


@node(output_name="c")
def refuse_one(a: Any) -> Any:
    if a == 1:
        raise ValueError("a secret that nobody may log")
    return a


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def ends(log: EventLog, kind: str) -> list[tuple[str, str, str]]:
    found = [event for event in log.events if (event.kind, event.phase) == (kind, "end")]
    return [(event.where, event.status, event.error) for event in found]


# who hears -------------------------------------------------------------------------------------------------------


def test_functions_and_callbacks_hear_the_same() -> None:
    heard: list[Event] = []
    log = EventLog()
    Pipeline([first], callbacks=[heard.append, log]).run(x=1)
    assert heard == log.events
    assert [event.kind for event in heard if event.phase == "end"] == ["node", "place", "pipeline"]


def test_listeners_hear_in_the_order_of_the_list() -> None:
    heard: list[str] = []
    callbacks = [lambda event: heard.append("one"), lambda event: heard.append("two")]
    Pipeline([first], callbacks=callbacks).run(x=1)
    assert heard == ["one", "two"] * (len(heard) // 2)


def test_nested_pipeline_inherits_callbacks_and_its_events_are_told_once() -> None:
    log = EventLog()
    inner = Pipeline([second], name="inner", callbacks=[log])
    for pipeline in (Pipeline([first, inner], callbacks=[log]), Pipeline([first, Pipeline([inner])], callbacks=[log])):
        pipeline.run(x=1)
        assert not event_problems(log.events)
        assert log.statuses() == {"first": ["ok"], "second": ["ok"]}


def test_nested_pipeline_with_callbacks_of_its_own_is_heard_by_them_and_its_ends_by_those_around() -> None:
    outer, own = EventLog(), EventLog()
    inner = Pipeline([second], name="inner", callbacks=[own])
    Pipeline([first, inner], name="main", callbacks=[outer]).run(x=1)
    assert (outer.statuses(), own.statuses()) == ({"first": ["ok"]}, {"second": ["ok"]})
    assert ends(outer, "nested") == ends(own, "nested") == [("main > inner", "ok", "")]
    assert not event_problems(own.events) + event_problems(outer.events)


def test_empty_list_of_callbacks_is_silence_inside() -> None:
    log = EventLog()
    silent = Pipeline([second], name="silent", callbacks=[])
    Pipeline([first, silent], callbacks=[log]).run(x=1)
    assert log.statuses() == {"first": ["ok"]}
    assert not event_problems(log.events)


def test_pipeline_that_is_not_watched_tells_nothing_and_costs_nothing() -> None:
    assert Pipeline([first], callbacks=[])._prepare(("x",), _wanted("a")).inline is not None


def _wanted(name: str) -> Any:
    from hypernodes._calls import wanted

    return wanted(Pipeline([first]).graph, name, None)


def test_plugin_that_subscribes_hears_everything_though_callbacks_are_off(place: Any) -> None:
    place.plugin(
        "ears",
        """
        heard = []
        @hookimpl
        def subscribe(run): return heard.append
        """,
    )
    answer = place.python(
        """
        from hypernodes import Pipeline, node
        inner = Pipeline([node(lambda a: a, output_name="b")], name="inner", callbacks=[])
        Pipeline([node(lambda x: x, output_name="a"), inner], name="main", callbacks=[]).run(x=1)
        import ears_manifest
        answer = [event.where for event in ears_manifest.heard if event.phase == "end" and event.kind != "place"]
        """
    )
    assert answer == ["main > a", "main > inner > b", "main > inner", "main"]


# listeners that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_listener_that_raises_is_logged_once_and_dropped_and_nobody_else_notices(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Event] = []
    log = EventLog()

    def broken(event: Event) -> None:
        calls.append(event)
        raise ZeroDivisionError("mine")

    pipeline = Pipeline([first, second], callbacks=[broken, log], backend=LocalBackend(engine=engine))
    with caplog.at_level(logging.WARNING, "hypernodes"):
        assert pipeline.map(rows(5), output_name="b") == [0, 1, 2, 3, 4]
    assert len(calls) == len(caplog.records) == 1
    assert "broken" in caplog.text
    assert log.statuses() == {"first": ["ok"] * 5, "second": ["ok"] * 5}


def test_callback_whose_begin_raises_hears_nothing_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Callback):
        def begin(self, run: Run) -> Any:
            raise ZeroDivisionError("mine")

    class Deaf(Callback):
        def begin(self, run: Run) -> Any:
            return None

    log = EventLog()
    assert Pipeline([first], callbacks=[Broken(), Deaf(), log]).run(x=1) == {"a": 1}
    assert "Broken hears nothing of this run" in caplog.text
    assert log.statuses() == {"first": ["ok"]}


# the tree --------------------------------------------------------------------------------------------------------


def nested() -> Pipeline:
    inmost = Pipeline([refuse_one], name="inmost")
    inner = Pipeline([second, inmost], name="inner")
    return Pipeline([first, inner.as_node(input_mapping={"xs": "a"}, map_over="xs")], name="main")


def close_early(pipeline: Pipeline) -> None:
    stream = pipeline.map_iter({"x": number, "xs": [2]} for number in range(1_000))
    next(stream)
    stream.close()


def run_in_a_loop(pipeline: Pipeline) -> None:
    async def main() -> None:
        await pipeline.arun(x=1, xs=[0, 2])
        await pipeline.amap([{"x": 1, "xs": [0, 2]}])
        async for _ in pipeline.amap_iter([{"x": 1, "xs": [0, 2]}] * 3):
            break

    asyncio.run(main())


CALLS: dict[str, Callable[[Pipeline], Any]] = {
    "run": lambda pipeline: pipeline.run(x=1, xs=[0, 2]),
    "failing run": lambda pipeline: pipeline.run(x=1, xs=[0, 1, 2]),
    "map": lambda pipeline: pipeline.map([{"x": 1, "xs": xs} for xs in ([0], [], [2, 3])]),
    "map that returns failures": lambda pipeline: pipeline.map([{"x": 1, "xs": [0, 1]}] * 3, on_error="return"),
    "map that raises": lambda pipeline: pipeline.map([{"x": 1, "xs": [0, 1]}] * 3),
    "columns": lambda pipeline: pipeline.map(inputs={"x": [1, 2], "xs": [2]}, map_over="x"),
    "rows of other keys": lambda pipeline: pipeline.map([{"x": 1, "xs": [2]}, {"a": 1, "xs": [2], "x": 0}]),
    "unordered stream": lambda pipeline: list(pipeline.map_iter([{"x": 1, "xs": [2]}] * 20, ordered=False)),
    "stream closed early": close_early,
    "in a loop": run_in_a_loop,
}
BACKENDS: dict[str, Callable[[], Any]] = {
    "sequential": lambda: LocalBackend(),
    "async": lambda: LocalBackend(engine="async", max_workers=3),
    "elsewhere": lambda: SubprocessBackend(machines=2),
}


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("where", BACKENDS)
@pytest.mark.parametrize("what", CALLS)
def test_every_start_has_an_end_and_parents_enclose_their_children(what: str, where: str, cache: bool) -> None:
    runs: dict[str, list[Event]] = {}

    def listen(event: Event) -> None:
        runs.setdefault(event.run, []).append(event)

    with BACKENDS[where]() as backend:
        pipeline = nested().with_options(backend=backend, callbacks=[listen], cache=MemoryCache() if cache else None)
        for _ in range(2):
            try:
                CALLS[what](pipeline)
            except ValueError:
                assert what in ("failing run", "map that raises")
    assert len(runs) in (2, 6)
    for events in runs.values():
        assert event_problems(events) == []


def test_node_that_nobody_waits_for_any_more_ends_once_with_the_call() -> None:
    begun, held, log = threading.Event(), threading.Event(), EventLog()

    @node(output_name="a")
    def wait(x: int) -> bool:
        if x == 0:
            return begun.wait(60)
        begun.set()
        return held.wait(60)

    stream = Pipeline([wait], backend=LocalBackend(engine="async", max_workers=3), callbacks=[log]).map_iter(
        {"x": number} for number in range(100)
    )
    next(stream)
    stream.close()
    held.set()
    for thread in threading.enumerate():
        if thread.name.startswith("hypernodes-async"):
            thread.join(60)
    assert event_problems(log.events) == []
    assert set(log.statuses()["wait"]) == {"ok", "stopped"}


def test_failures_are_told_at_every_level_with_the_type_of_the_failing_node() -> None:
    log = EventLog()
    pipeline = nested().with_options(callbacks=[log])
    with pytest.raises(ValueError, match="secret"):
        pipeline.map([{"x": 5, "xs": [0]}, {"x": 5, "xs": [0, 1, 2]}])
    failed = [(event.kind, event.where) for event in log.events if event.status == "error"]
    assert failed == [
        ("node", "main (item 1) > inner (item 1) > inmost > refuse_one"),
        ("nested", "main (item 1) > inner (item 1) > inmost"),
        ("item", "main (item 1) > inner (item 1)"),
        ("nested", "main (item 1) > inner"),
        ("item", "main (item 1)"),
        ("map", "main"),
    ]
    assert {event.error for event in log.events if event.status == "error"} == {"ValueError"}
    *_, item, root = (event for event in log.events if event.status == "error")
    assert item.failure is not None
    assert root.failure is not None
    assert root.failure.where == "main (item 1) > inner (item 1) > inmost > refuse_one"


def test_pipeline_that_was_over_when_a_later_node_failed_ends_ok() -> None:
    log = EventLog()
    cells = Pipeline([second], name="cells").as_node(input_mapping={"xs": "a"}, map_over="xs")
    with pytest.raises(ValueError, match="secret"):
        Pipeline([cells, refuse_one], name="main", callbacks=[log]).run(xs=[1, 2], a=1)
    assert ends(log, "nested") == [("main > cells", "ok", "")]
    assert ends(log, "pipeline") == [("main", "error", "ValueError")]


def test_stream_closed_early_is_stopped_at_the_root_and_in_what_was_under_way() -> None:
    log = EventLog()
    at_work, go_on = threading.Event(), threading.Event()

    @node(output_name="b")
    async def wait(a: Any) -> Any:
        if a:
            at_work.set()
            await asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        return a

    pipeline = Pipeline(
        [first, wait], name="main", callbacks=[log], backend=LocalBackend(engine="async", max_workers=2)
    )
    stream = pipeline.map_iter(({"x": x} for x in range(10)), ordered=False)
    assert next(stream) == {"a": 0, "b": 0}
    assert at_work.wait(10)
    go_on.set()
    stream.close()
    assert event_problems(log.events) == []
    assert ends(log, "map") == [("main", "stopped", "")]
    statuses = {where: status for where, status, _ in ends(log, "item")}
    assert statuses["main (item 0)"] == "ok"
    assert set(statuses.values()) <= {"ok", "stopped"}


def test_interrupt_is_told_as_stopped() -> None:
    log = EventLog()

    @node(output_name="y")
    def interrupt(x: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([interrupt], name="main", callbacks=[log]).map(rows(3))
    assert event_problems(log.events) == []
    assert {status for kind in ("node", "item", "map") for _, status, _ in ends(log, kind)} == {"stopped"}


def test_items_that_raise_end_the_map_with_their_error() -> None:
    def items() -> Iterator[dict[str, Any]]:
        yield {"x": 1}
        raise LookupError("no more")

    log = EventLog()
    with pytest.raises(LookupError):
        Pipeline([first], name="main", callbacks=[log]).map(items())
    assert ends(log, "map") == [("main", "error", "LookupError")]
    assert ends(log, "item") == [("main (item 0)", "ok", "")]


def test_runs_at_once_are_told_apart() -> None:
    runs: dict[str, list[Event]] = {}

    def listen(event: Event) -> None:
        runs.setdefault(event.run, []).append(event)

    pipeline = Pipeline([first, second], callbacks=[listen])
    threads = [threading.Thread(target=pipeline.map, args=(rows(20),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 4
    spans = [event.span for events in runs.values() for event in events if event.phase == "start"]
    assert len(spans) == len(set(spans))
    for events in runs.values():
        assert event_problems(events) == []
        assert len([event for event in events if event.kind == "node"]) == 80


def test_node_of_this_process_is_told_of_before_its_own_code_runs() -> None:
    order: list[str] = []
    speak = node(lambda x: order.append("the node"), output_name="y")
    Pipeline([speak], callbacks=[lambda event: order.append(f"{event.kind} {event.phase}")]).run(x=1)
    assert order.index("node start") < order.index("the node") < order.index("node end")


def test_items_know_their_index_and_the_map_its_total() -> None:
    log = EventLog()
    pipeline = Pipeline([first], name="main", callbacks=[log])
    for items, total in ((rows(3), 3), (iter(rows(3)), None)):
        pipeline.map(items)
        assert [event.total for event in log.events if event.kind == "map"] == [total] * 2
        assert [event.items for event in log.events if event.kind == "item" and event.phase == "end"] == [
            (0,),
            (1,),
            (2,),
        ]


def test_run_says_beforehand_which_nodes_may_run_and_where() -> None:
    log = EventLog()
    nested().with_options(callbacks=[log]).run(x=1, xs=[2])
    assert log.run is not None
    assert [path[-1] for path, _ in log.run.steps] == ["first", "second", "refuse_one"]
    assert {place for _, place in log.run.steps} == {"local:sequential"}


# places ----------------------------------------------------------------------------------------------------------


def test_places_that_a_call_opens_begin_and_end_with_it() -> None:
    log = EventLog()
    far = SubprocessBackend()
    pipeline = Pipeline([Pipeline([first], name="far", backend=far), second], name="main", callbacks=[log])
    pipeline.run(x=1)
    places = [(event.phase, event.place) for event in log.events if event.kind == "place"]
    assert places == [("start", "subprocess:sequential"), ("end", "subprocess:sequential")]
    with far:
        pipeline.run(x=1)
        assert not [event for event in log.events if event.kind == "place"]


def test_place_that_stays_open_ends_with_the_call_that_opened_it() -> None:
    pytest.importorskip("hypernodes_local_multiprocess")
    log = EventLog()
    backend = LocalBackend(engine="multiprocess", max_workers=1)
    pipeline = Pipeline([first], callbacks=[log], backend=backend)
    try:
        pipeline.run(x=1)
        start, end = (event for event in log.events if event.kind == "place")
        assert (start.span, start.phase, end.phase, end.status) == (end.span, "start", "end", "ok")
        assert end.seconds is not None
        assert end.seconds >= 0
        pipeline.run(x=1)
        assert not [event for event in log.events if event.kind == "place"]
    finally:
        backend.close()


# what is not in them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", BACKENDS)
def test_no_value_is_in_any_event(where: str) -> None:
    canary = "canary-7f3a9"
    seen: list[str] = []

    class Watching(Callback):
        def begin(self, run: Run) -> Any:
            seen.append(repr(run))
            return lambda event: seen.append(repr(event))

    @node(output_name="b")
    def fail(a: Any) -> Any:
        raise ValueError(a)

    with BACKENDS[where]() as backend:
        pipeline = Pipeline([first, fail], callbacks=[Watching()], backend=backend, cache=MemoryCache())
        for _ in range(2):
            pipeline.map([{"x": canary}, {"x": [canary]}], on_error="return")
    assert seen
    assert canary not in "".join(seen)


def test_listening_imports_no_plugin_and_no_loop() -> None:
    code = (
        "import sys\n"
        "from hypernodes import Pipeline, node\n"
        "Pipeline([node(lambda x: x, output_name='y')], callbacks=[lambda event: None])\n"
        "print(sorted({'asyncio', 'pluggy', 'cloudpickle'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


# the tree that is the same everywhere ----------------------------------------------------------------------------


def told(*events: tuple[str, str, str, tuple[str, ...], int | None, str]) -> list[Event]:
    """Events by kind, span, parent, path, item and status; starts first, ends in the opposite order."""
    return [
        Event(kind, phase, "r", span, parent, path, (*(None,) * (len(path) - 1), item), 0.0, *more)
        for phase, rest in (("start", events), ("end", events[::-1]))
        for kind, span, parent, path, item, status in rest
        for more in [(0.0, status, "E" if status == "error" else "") if phase == "end" else ()]
    ]


def test_normalised_leaves_out_what_comes_after_a_failing_node() -> None:
    main = ("main",)
    events = told(
        ("pipeline", "0", "", main, None, "error"),
        ("place", "1", "0", main, None, "ok"),
        ("node", "2", "0", (*main, "late"), None, "ok"),
        ("node", "3", "0", (*main, "bad"), None, "error"),
        ("node", "4", "0", (*main, "early"), None, "ok"),
    )
    steps = [(*main, "early"), (*main, "bad"), (*main, "late")]
    assert outline(normalised(events, steps)) == [
        "pipeline main: error E",
        "  node bad: error E",
        "  node early: ok",
    ]


def test_normalised_leaves_out_items_after_the_one_that_ended_the_map() -> None:
    main = ("main",)
    events = told(
        ("map", "0", "", main, None, "error"),
        ("item", "2", "0", main, 2, "stopped"),
        ("item", "1", "0", main, 1, "error"),
        ("item", "3", "0", main, 0, "ok"),
    )
    tree = normalised(events)
    assert isinstance(tree, Branch)
    assert [(child.item, child.status) for child in tree.children] == [(0, "ok"), (1, "error")]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda events: events[:-1], "does not end"),
        (lambda events: [*events[:-2], events[-1], events[-2]], "ends before what is in it"),
        (lambda events: [events[1], events[0], *events[2:]], "begins outside its parent"),
        (lambda events: [*events, events[-1]], "ends twice"),
        (lambda events: [], "nothing began"),
    ],
)
def test_normalised_refuses_what_is_no_tree(spoil: Callable[[list[Event]], list[Event]], said: str) -> None:
    log = EventLog()
    Pipeline([first], callbacks=[log]).run(x=1)
    events = [event for event in log.events if event.kind != "place"]
    with pytest.raises(ValueError, match=said):
        normalised(spoil(events))


# calls of every kind ---------------------------------------------------------------------------------------------


@node(output_name="later")
async def later(a: Any) -> Any:
    await asyncio.sleep(0)
    return a


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


def test_rows_with_other_keys_are_one_map() -> None:
    events: list[Event] = []
    pipeline = Pipeline([first, second], name="main", callbacks=[events.append])
    assert pipeline.map([{"x": 1}, {"a": 2}, {"x": 3}], output_name="b") == [1, 2, 3]
    assert not event_problems(events)
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
        assert not event_problems(one)
        assert one[-1].status == "ok"
