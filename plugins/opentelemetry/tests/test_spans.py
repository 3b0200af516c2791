"""What a run's events become: spans with the right parents, names, times and attributes, and no values."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from hypernodes import Failure
from hypernodes_opentelemetry import TelemetryCallback

SECRET = "hunter2-canary"
FAR = {"worker": "9/elsewhere", "place": "subprocess:threaded"}


def failure(error: Exception) -> Failure:
    return Failure(
        path=("main",), items=(None,), place="", type_name=type(error).__name__, message=str(error), error=error
    )


def test_every_part_of_a_run_is_a_span_below_the_part_around_it(traced: Any, tell: Any) -> None:
    run = tell(TelemetryCallback(traced.provider), "map", 2)
    root = run.start("map", ("main",))
    place = run.start("place", ("main",), root, place="subprocess:threaded")
    item = run.start("item", ("main",), root, items=(1,))
    nested = run.start("nested", ("main", "inner"), item, items=(1, None))
    inner_item = run.start("item", ("main", "inner"), nested, items=(1, 4))
    node = run.start("node", ("main", "inner", "clean"), inner_item, items=(1, 4, None), **FAR)
    run.end(node, **FAR)
    for span in (inner_item, nested, item, place, root):
        run.end(span)

    assert {span.name for span in traced.spans} == {
        *("map main", "place subprocess:threaded", "item main", "nested inner", "item inner", "node clean")
    }
    assert traced.parent("map main") is None
    assert traced.parent("place subprocess:threaded") == "map main"
    assert traced.parent("item main") == "map main"
    assert traced.parent("nested inner") == "item main"
    assert traced.parent("item inner") == "nested inner"
    assert traced.parent("node clean") == "item inner"
    assert len(traced.traces()) == 1
    assert traced.named("map main").attributes == {
        "hypernodes.path": "main",
        "hypernodes.run": "r" * 16,
        "hypernodes.total": 2,
    }
    assert traced.named("node clean").attributes == {
        "hypernodes.path": "main > inner > clean",
        "hypernodes.item": 4,
        "hypernodes.items": (1, 4),
        "hypernodes.place": "subprocess:threaded",
        "hypernodes.engine": "threaded",
        "hypernodes.worker": "9/elsewhere",
    }
    assert traced.named("item main").attributes["hypernodes.item"] == 1


def test_spans_begin_and_end_when_the_events_say(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    for worker in (here, "9/elsewhere"):
        node = run.start("node", ("main", "clean"), root, worker=worker)
        run.end(node)
    run.end(root)
    second = 1_000_000_000
    times = [(span.start_time - 1_800_000_000 * second, span.end_time - span.start_time) for span in traced.spans]
    assert times == [(2 * second, second), (4 * second, second), (second, 5 * second)]


def test_a_clock_that_is_behind_gives_no_negative_duration(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    node = run.start("node", ("main", "clean"), root, worker=here)
    run.clock -= 100
    run.end(node)
    run.end(root)
    assert all(span.start_time <= span.end_time for span in traced.spans)


@pytest.mark.parametrize("far", [True, False])
def test_cached_failed_and_stopped_nodes_say_so(traced: Any, tell: Any, here: str, far: bool) -> None:
    run = tell(TelemetryCallback(traced.provider))
    worker = "9/elsewhere" if far else here
    root = run.start("pipeline", ("main",))
    for status, error in (("ok", ""), ("cached", ""), ("error", "ValueError"), ("stopped", "")):
        run.end(run.start("node", ("main", status), root, worker=worker), status, error=error)
    run.end(root, "error", error="ValueError")
    attributes = {span.name: dict(span.attributes) for span in traced.spans}
    assert [
        attributes[f"node {status}"].get("hypernodes.status") for status in ("ok", "cached", "error", "stopped")
    ] == [*(None, "cached", "error", "stopped")]
    assert [name for name, facts in attributes.items() if "hypernodes.cache.hit" in facts] == ["node cached"]
    assert {name for name, facts in attributes.items() if facts.get("error.type") == "ValueError"} == {
        *("node error", "pipeline main")
    }
    failed = traced.named("node error").status
    assert (failed.status_code, failed.description) == (StatusCode.ERROR, "ValueError")
    assert traced.named("node ok").status.status_code is StatusCode.UNSET
    assert traced.named("node stopped").status.status_code is StatusCode.UNSET


def fail_with_a_secret(run: Any, here: str) -> None:
    root = run.start("map", ("main",))
    item = run.start("item", ("main",), root, items=(0,))
    for worker in (here, "9/elsewhere"):
        node = run.start("node", ("main", "clean"), item, items=(0, None), worker=worker)
        run.end(node, "error", error="ValueError")
    told = failure(ValueError(f"bad password {SECRET}"))
    run.end(item, "error", error="ValueError", failure=told)
    run.end(root, "error", error="ValueError", failure=told)


def test_messages_of_errors_stay_out_of_spans(traced: Any, tell: Any, here: str) -> None:
    fail_with_a_secret(tell(TelemetryCallback(traced.provider)), here)
    assert len(traced.spans) == 4
    assert SECRET not in traced.everything()


def test_messages_of_errors_are_events_of_spans_where_asked_for(traced: Any, tell: Any, here: str) -> None:
    fail_with_a_secret(tell(TelemetryCallback(traced.provider, messages=True)), here)
    [told] = traced.named("item main").events
    assert told.name == "exception"
    assert told.attributes == {
        "exception.type": "ValueError",
        "exception.message": f"bad password {SECRET}",
    }
    assert traced.named("item main").status.description == "ValueError"


def test_own_attributes_and_name_stand_on_the_root(traced: Any, tell: Any) -> None:
    run = tell(TelemetryCallback(traced.provider, name="acme", attributes={"team": "search"}))
    root = run.start("pipeline", ("main",))
    run.end(run.start("node", ("main", "clean"), root, **FAR))
    run.end(root)
    assert traced.named("pipeline main").attributes["team"] == "search"
    assert "team" not in traced.named("node clean").attributes
    assert {span.instrumentation_scope.name for span in traced.spans} == {"acme"}


def test_a_run_joins_the_trace_of_the_span_in_which_it_is_called(traced: Any, tell: Any) -> None:
    with traced.provider.get_tracer("mine").start_as_current_span("request"):
        run = tell(TelemetryCallback(traced.provider))
    run.end(run.start("pipeline", ("main",)))  # the span that counts is the one at the call
    assert traced.parent("pipeline main") == "request"


def test_a_sampler_that_says_no_is_honoured_inside_nodes_too(new_traced: Any, tell: Any, here: str) -> None:
    traced = new_traced(sampler=ALWAYS_OFF)
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    node = run.start("node", ("main", "clean"), root, worker=here)
    assert trace.get_current_span().get_span_context().is_valid
    assert not trace.get_current_span().is_recording()
    run.end(node, "error", error="ValueError")
    run.end(root)
    assert traced.spans == []


@pytest.mark.parametrize("provider", [trace.NoOpTracerProvider(), trace.ProxyTracerProvider()])
def test_without_an_sdk_nobody_listens(provider: Any) -> None:
    from hypernodes import Run

    assert TelemetryCallback(provider).begin(Run("r", "main", "pipeline")) is None


class Broken(SpanProcessor):
    """Raises when a span begins, or when one ends."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.moment == "start":
            raise OSError("the disk of the collector is full")

    def on_end(self, span: Any) -> None:
        if self.moment == "end":
            raise OSError("the disk of the collector is full")


@pytest.mark.parametrize("moment", ["start", "end"])
def test_a_provider_that_fails_is_told_once_and_leaves_nothing_current(
    moment: str, tell: Any, here: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken(moment))
    before = get_current()
    run = tell(TelemetryCallback(provider))
    root = run.start("pipeline", ("main",))
    outer = run.start("node", ("main", "outer"), root, worker=here)
    for _ in range(3):
        run.end(run.start("node", ("main", "clean"), root, worker=here))
    run.end(outer)
    run.end(root)
    assert get_current() is before
    [record] = caplog.records
    assert record.getMessage() == (
        "the trace of this run of 'main' is incomplete: the tracer provider raised OSError; the run goes on"
    )


def test_a_callback_that_travels_uses_the_provider_of_where_it_arrives(traced: Any) -> None:
    callback = TelemetryCallback(traced.provider, name="acme", attributes={"team": "search"}, messages=True)
    arrived = pickle.loads(pickle.dumps(callback))
    assert repr(arrived) == "TelemetryCallback(name='acme')"
    assert arrived._provider is None
    assert arrived._attributes == {"team": "search"}


def test_each_run_has_spans_of_its_own(traced: Any, tell: Callable[..., Any], here: str) -> None:
    callback = TelemetryCallback(traced.provider)
    runs = [tell(callback), tell(callback)]
    roots = [run.start("pipeline", ("main",)) for run in runs]  # both are called "…1": ids are a run's own
    nodes = [
        run.start("node", ("main", f"clean{at}"), root, worker="9/elsewhere")
        for at, (run, root) in enumerate(zip(runs, roots, strict=True))
    ]
    for run, node, root in zip(runs, nodes, roots, strict=True):
        run.end(node)
        run.end(root)
    assert len(traced.traces()) == 2
    for at, root in enumerate(traced.all_named("pipeline main")):
        assert traced.named(f"node clean{at}").parent.span_id == root.context.span_id
