"""Traces of real pipelines, on every engine and over every border that core brings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import get_current

from hypernodes import Failure, LocalBackend, MemoryCache, Pipeline, node
from hypernodes.testing import SubprocessBackend
from hypernodes_opentelemetry import TelemetryCallback

SECRET = "hunter2-canary"

HERE: dict[str, Callable[[], Any]] = {
    "sequential": lambda: LocalBackend(),
    "async": lambda: LocalBackend(engine="async"),
    "threaded": lambda: LocalBackend(engine="threaded", max_workers=2),
}
THERE: dict[str, Callable[[], Any]] = {
    "multiprocess": lambda: LocalBackend(engine="multiprocess", max_workers=2),
    "subprocess": lambda: SubprocessBackend(),
    "threads of a subprocess": lambda: SubprocessBackend(engine="threaded"),
}
EVERYWHERE = HERE | THERE


def current_span() -> tuple[int, int]:
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    return found.trace_id, found.span_id


def nodes() -> list[Any]:
    """Made in a function, so that they travel by value."""

    @node(output_name="cleaned")
    def clean(text: str) -> str:
        return text.strip()

    @node(output_name="where")
    def locate(cleaned: str) -> tuple[int, int]:
        from opentelemetry import trace

        found = trace.get_current_span().get_span_context()
        return found.trace_id, found.span_id

    return [clean, locate]


def ids(span: Any) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def tree(traced: Any) -> list[tuple[str, str | None, object]]:
    """Every span but the places' as its name, its parent's and its item; in no order."""
    return sorted(
        (span.name, traced.parent_of(span), span.attributes.get("hypernodes.item", -1))
        for span in traced.spans
        if not span.name.startswith("place ")
    )


@pytest.mark.slow
@pytest.mark.parametrize("where", EVERYWHERE)
def test_the_trace_of_a_map_is_the_same_on_every_engine_and_place(where: str, traced: Any) -> None:
    clean, locate = nodes()
    pipeline = Pipeline(
        [clean, Pipeline([locate], name="inner")],
        name="main",
        backend=EVERYWHERE[where](),
        callbacks=[TelemetryCallback(traced.provider)],
    )
    pipeline.map([{"text": "a"}, {"text": "b"}])
    per_item = [("item main", "map main"), ("nested inner", "item main")]
    per_item += [("node clean", "item main"), ("node locate", "nested inner")]
    expected = [("map main", None, -1)] + [(*pair, item) for item in (0, 1) for pair in per_item]
    assert tree(traced) == sorted(expected)
    assert len(traced.traces()) == 1
    for span in traced.spans:
        assert span.end_time >= span.start_time
        assert ("hypernodes.worker" in span.attributes) == span.name.startswith("node ")


@pytest.mark.slow
@pytest.mark.parametrize("where", HERE)
def test_a_nodes_own_span_is_current_in_this_process(where: str, traced: Any) -> None:
    pipeline = Pipeline(nodes(), name="main", backend=HERE[where](), callbacks=[TelemetryCallback(traced.provider)])
    before = get_current()
    found = pipeline.map([{"text": "a"}, {"text": "b"}, {"text": "c"}], output_name="where")
    assert get_current() is before
    spans = {span.attributes["hypernodes.item"]: ids(span) for span in traced.all_named("node locate")}
    assert found == [spans[0], spans[1], spans[2]]


@pytest.mark.slow
@pytest.mark.parametrize("where", THERE)
def test_the_runs_span_is_current_in_other_processes(where: str, traced: Any) -> None:
    pipeline = Pipeline(nodes(), name="main", backend=THERE[where](), callbacks=[TelemetryCallback(traced.provider)])
    found = pipeline.map([{"text": "a"}, {"text": "b"}], output_name="where")
    assert found == [ids(traced.named("map main"))] * 2


@pytest.mark.slow
@pytest.mark.parametrize("where", THERE)
def test_the_callers_span_crosses_where_nothing_traces_the_run(where: str, traced: Any) -> None:
    pipeline = Pipeline(nodes(), name="main", backend=THERE[where]())
    with traced.provider.get_tracer("mine").start_as_current_span("request") as span:
        found = pipeline.run(text="a", output_name="where")
    context = span.get_span_context()
    assert found == (context.trace_id, context.span_id)
    assert pipeline.run(text="a", output_name="where") == (0, 0)


@pytest.mark.slow
def test_one_trace_spans_here_there_and_here_again(traced: Any) -> None:
    clean, locate = nodes()

    @node(output_name="told")
    def tell(where: tuple[int, int]) -> tuple[int, int]:
        return where

    @node(output_name="back")
    def again(told: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        return told, current_span()

    far = Pipeline([locate, tell], name="far", backend=SubprocessBackend())
    pipeline = Pipeline([clean, far, again], name="main", callbacks=[TelemetryCallback(traced.provider)])
    with traced.provider.get_tracer("mine").start_as_current_span("request"):
        there, here = pipeline.run(text="a", output_name="back")
    assert there == ids(traced.named("pipeline main"))
    assert here == ids(traced.named("node again"))
    assert len(traced.traces()) == 1
    assert [traced.parent(name) for name in ("pipeline main", "node clean", "nested far", "node again")] == [
        *("request", "pipeline main", "pipeline main", "pipeline main")
    ]
    assert [traced.parent(name) for name in ("node locate", "node tell")] == ["nested far", "nested far"]
    places = {
        name: traced.named(f"node {name}").attributes["hypernodes.place"] for name in ("clean", "locate", "again")
    }
    assert places == {"clean": "local:sequential", "locate": "subprocess:sequential", "again": "local:sequential"}


@pytest.mark.slow
def test_spans_made_over_there_have_their_parent_in_this_trace(traced: Any) -> None:
    @node(output_name="ids")
    def query(text: str) -> tuple[int, int]:
        from opentelemetry.sdk.trace import TracerProvider

        with TracerProvider(shutdown_on_exit=False).get_tracer("far").start_as_current_span("SELECT") as span:
            return span.get_span_context().trace_id, span.parent.span_id  # type: ignore[attr-defined]

    pipeline = Pipeline(
        [query], name="main", backend=SubprocessBackend(), callbacks=[TelemetryCallback(traced.provider)]
    )
    assert pipeline.run(text="a", output_name="ids") == ids(traced.named("pipeline main"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_coroutines_that_overlap_keep_their_spans_apart(engine: str, traced: Any) -> None:
    ready = 0

    @node(output_name="found")
    async def wait(text: str) -> tuple[int, int]:
        nonlocal ready
        ready += 1
        with traced.provider.get_tracer("mine").start_as_current_span(f"query {text}"):
            while engine == "async" and ready < 3:
                await asyncio.sleep(0)
        return current_span()

    pipeline = Pipeline(
        [wait], name="main", backend=LocalBackend(engine=engine), callbacks=[TelemetryCallback(traced.provider)]
    )
    found = pipeline.map([{"text": text} for text in "abc"], output_name="found")
    by_item = {span.attributes["hypernodes.item"]: span for span in traced.all_named("node wait")}
    assert found == [ids(by_item[at]) for at in range(3)]
    for at, text in enumerate("abc"):
        assert traced.named(f"query {text}").parent.span_id == by_item[at].context.span_id


def test_a_run_on_a_running_loop_keeps_the_context_of_its_task(traced: Any) -> None:
    pipeline = Pipeline(nodes(), name="main", callbacks=[TelemetryCallback(traced.provider)])

    async def request(name: str) -> tuple[int, int]:
        with traced.provider.get_tracer("mine").start_as_current_span(name):
            before = get_current()
            found: tuple[int, int] = await pipeline.arun(text=name, output_name="where")
            assert get_current() is before
            return found

    async def main() -> list[tuple[int, int]]:
        return await asyncio.gather(request("first"), request("second"))

    found = asyncio.run(main())
    for name, (trace_id, _) in zip(("first", "second"), found, strict=True):
        assert traced.named(name).context.trace_id == trace_id
    assert sorted(str(traced.parent_of(span)) for span in traced.all_named("pipeline main")) == ["first", "second"]


@pytest.mark.slow
def test_a_blocking_run_inside_a_running_loop_crosses_with_its_span(traced: Any) -> None:
    pipeline = Pipeline(
        nodes(), name="main", backend=SubprocessBackend(), callbacks=[TelemetryCallback(traced.provider)]
    )

    async def main() -> Any:
        return pipeline.run(text="a", output_name="where")

    assert asyncio.run(main()) == ids(traced.named("pipeline main"))


@pytest.mark.slow
def test_runs_at_the_same_time_do_not_mix(traced: Any) -> None:
    callback = TelemetryCallback(traced.provider)
    both = threading.Barrier(2, timeout=30)

    @node(output_name="where")
    def meet(text: str) -> tuple[int, int]:
        both.wait()
        return current_span()

    found: dict[str, Any] = {}

    def request(name: str) -> None:
        pipeline = Pipeline([meet], name=name, backend=LocalBackend(engine="threaded"), callbacks=[callback])
        with traced.provider.get_tracer("mine").start_as_current_span(f"request {name}"):
            found[name] = pipeline.run(text=name, output_name="where")

    threads = [threading.Thread(target=request, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        root = traced.named(f"pipeline {name}")
        assert traced.parent_of(root) == f"request {name}"
        [own] = [span for span in traced.all_named("node meet") if ids(span) == found[name]]
        assert own.parent.span_id == root.context.span_id


def test_a_pipeline_called_by_a_node_joins_the_trace_of_that_node(traced: Any) -> None:
    inner = Pipeline(nodes(), name="inner", callbacks=[TelemetryCallback(traced.provider)])

    @node(output_name="found")
    def call(text: str) -> Any:
        return inner.run(text=text, output_name="where")

    outer = Pipeline([call], name="outer", callbacks=[TelemetryCallback(traced.provider)])
    outer.run(text="a")
    assert traced.parent("pipeline inner") == "node call"
    assert len(traced.traces()) == 1


def test_a_callback_of_a_nested_pipeline_traces_that_pipeline(traced: Any) -> None:
    clean, locate = nodes()
    inner = Pipeline([locate], name="inner", callbacks=[TelemetryCallback(traced.provider)])
    with traced.provider.get_tracer("mine").start_as_current_span("request"):
        found = Pipeline([clean, inner], name="main").map([{"text": "a"}, {"text": "b"}], output_name="where")
    assert [span.name for span in traced.spans] == [*("node locate", "nested inner") * 2, "map main", "request"]
    assert [traced.parent_of(span) for span in traced.all_named("nested inner")] == ["map main"] * 2
    assert traced.parent("map main") == "request"
    assert found == [ids(span) for span in traced.all_named("node locate")]


@pytest.mark.slow
@pytest.mark.parametrize("where", EVERYWHERE)
def test_failing_items_are_told_without_values(where: str, traced: Any, caplog: pytest.LogCaptureFixture) -> None:
    @node(output_name="key")
    def open_lock(password: str) -> str:
        if password.startswith("bad"):
            raise ValueError(f"{password} is wrong")
        return password * 2

    pipeline = Pipeline(
        [open_lock], name="main", backend=EVERYWHERE[where](), callbacks=[TelemetryCallback(traced.provider)]
    )
    rows = [{"password": f"good {SECRET}"}, {"password": f"bad {SECRET}"}]
    before = get_current()
    good, bad = pipeline.map(rows, on_error="return", output_name="key")
    assert isinstance(bad, Failure) and SECRET in good
    with pytest.raises(ValueError, match=SECRET):
        pipeline.run(password=f"bad {SECRET}")
    assert get_current() is before

    failed = {span.name for span in traced.spans if span.attributes.get("error.type") == "ValueError"}
    assert failed == {"node open_lock", "item main", "pipeline main"}
    assert [span.attributes.get("hypernodes.item") for span in traced.all_named("item main")].count(1) == 1
    assert "hypernodes.status" not in traced.named("map main").attributes
    assert SECRET not in traced.everything()
    assert SECRET not in caplog.text


@pytest.mark.parametrize("where", HERE)
def test_nodes_taken_from_the_cache_say_so(where: str, traced: Any) -> None:
    clean, _ = nodes()
    cached = Pipeline([clean], name="main", backend=HERE[where](), cache=MemoryCache())
    cached.map([{"text": "a"}])
    pipeline = cached.with_options(callbacks=[TelemetryCallback(traced.provider)])
    pipeline.map([{"text": "a"}, {"text": "b"}])
    facts = {span.attributes["hypernodes.item"]: span.attributes for span in traced.all_named("node clean")}
    assert (facts[0]["hypernodes.status"], facts[0]["hypernodes.cache.hit"]) == ("cached", True)
    assert "hypernodes.cache.hit" not in facts[1]
    assert [traced.parent_of(span) for span in traced.all_named("node clean")] == ["item main"] * 2


def test_messages_are_recorded_where_asked_for(traced: Any) -> None:
    @node(output_name="key")
    def open_lock(password: str) -> str:
        raise ValueError("the lock is jammed")

    with pytest.raises(ValueError, match="jammed"):
        Pipeline([open_lock], name="main", callbacks=[TelemetryCallback(traced.provider, messages=True)]).run(
            password="x"
        )
    [told] = traced.named("pipeline main").events
    assert told.attributes["exception.message"] == "the lock is jammed"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_node_that_is_interrupted_leaves_the_context_as_it_was(stop: type[BaseException], traced: Any) -> None:
    @node(output_name="y")
    def interrupted(x: int) -> int:
        raise stop

    pipeline = Pipeline([interrupted], name="main", callbacks=[TelemetryCallback(traced.provider)])
    before = get_current()
    with pytest.raises(BaseException) as caught:
        pipeline.run(x=1)
    assert not isinstance(caught.value, AssertionError)
    assert get_current() is before
    assert {"node interrupted", "pipeline main"} <= {span.name for span in traced.spans}


@pytest.mark.parametrize("where", HERE)
def test_a_stream_that_is_left_early_leaves_the_context_as_it_was(where: str, traced: Any) -> None:
    clean, _ = nodes()
    pipeline = Pipeline([clean], name="main", backend=HERE[where](), callbacks=[TelemetryCallback(traced.provider)])
    before = get_current()
    stream = pipeline.map_iter(({"text": str(at)} for at in range(100)), output_name="cleaned")
    assert next(stream) == "0"
    assert get_current() is before
    assert not trace.get_current_span().get_span_context().is_valid
    stream.close()
    assert get_current() is before
    assert traced.named("map main").attributes["hypernodes.status"] == "stopped"


def test_a_provider_that_fails_never_costs_the_result(caplog: pytest.LogCaptureFixture) -> None:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    class Broken(SpanProcessor):
        def on_end(self, span: Any) -> None:
            raise OSError("the disk of the collector is full")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken())
    pipeline = Pipeline(nodes(), name="main", callbacks=[TelemetryCallback(provider)])
    assert pipeline.run(text=" a ")["cleaned"] == "a"
    assert [record.name for record in caplog.records] == ["hypernodes"]
