"""What crosses a border: the run's span, or the caller's where nothing traces the run."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach, get_current

from hypernodes_opentelemetry import TelemetryCallback, _plugin


def carried() -> dict[str, str]:
    carrier: dict[str, str] = {}
    _plugin.inject(carrier)
    return carrier


def parent_in(carrier: dict[str, str]) -> int:
    return int(carrier["traceparent"].split("-")[2], 16)


def test_the_root_span_of_the_run_crosses_though_it_is_not_current(traced: Any, tell: Any) -> None:
    run = tell(TelemetryCallback(traced.provider))
    assert carried() == {}
    root = run.start("pipeline", ("main",))
    assert trace.get_current_span() is trace.INVALID_SPAN
    carrier = carried()
    assert carrier.keys() == {"traceparent"}
    run.end(root)
    assert parent_in(carrier) == traced.named("pipeline main").context.span_id
    assert carried() == {}


def test_a_helper_thread_with_the_callers_variables_carries_the_same(traced: Any, tell: Any) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    found: list[dict[str, str]] = []
    thread = threading.Thread(target=copy_context().run, args=(lambda: found.append(carried()),))
    thread.start()
    thread.join()
    run.end(root)
    assert parent_in(found[0]) == traced.named("pipeline main").context.span_id


def test_without_a_callback_the_callers_span_crosses(traced: Any) -> None:
    with traced.provider.get_tracer("mine").start_as_current_span("request") as span:
        assert parent_in(carried()) == span.get_span_context().span_id
    assert carried() == {}


def test_a_run_within_a_node_carries_that_nodes_span(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    node = run.start("node", ("main", "clean"), root, worker=here)
    carrier = carried()  # of a pipeline that this node calls, and that nobody traces
    run.end(node)
    run.end(root)
    assert parent_in(carrier) == traced.named("node clean").context.span_id


def test_between_the_items_of_a_stream_the_callers_own_span_counts(traced: Any, tell: Any) -> None:
    run = tell(TelemetryCallback(traced.provider), "map")
    root = run.start("map", ("main",))
    with traced.provider.get_tracer("mine").start_as_current_span("consume") as span:
        assert parent_in(carried()) == span.get_span_context().span_id
    run.end(root)


def test_runs_that_end_in_any_order_leave_nothing_to_carry(traced: Any, tell: Any) -> None:
    runs = [tell(TelemetryCallback(traced.provider), "map") for _ in range(3)]
    roots = [run.start("map", (f"main{at}",)) for at, run in enumerate(runs)]
    carriers = []
    for at in (1, 2):
        runs[at].end(roots[at])
        carriers.append(carried())
    thread = threading.Thread(target=runs[0].end, args=(roots[0],))
    thread.start()
    thread.join()
    assert carried() == {}
    assert [parent_in(carrier) for carrier in carriers] == [
        traced.named("map main2").context.span_id,
        traced.named("map main0").context.span_id,
    ]


@pytest.mark.parametrize("asked", [True, False])
def test_baggage_crosses_only_where_asked_for(traced: Any, tell: Any, asked: bool) -> None:
    token = attach(baggage.set_baggage("tenant", "acme"))
    run = tell(TelemetryCallback(traced.provider, baggage=asked))
    root = run.start("pipeline", ("main",))
    carrier = carried()
    run.end(root)
    detach(token)
    assert carrier.keys() == ({"traceparent", "baggage"} if asked else {"traceparent"})
    restored = _plugin.extract(carrier)
    assert restored is not None
    with restored:
        assert baggage.get_baggage("tenant") == ("acme" if asked else None)


def test_spans_over_there_are_children_of_what_was_carried(traced: Any, new_traced: Any, tell: Any) -> None:
    far = new_traced()
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    carrier = carried()
    run.end(root)
    before = get_current()
    restored = _plugin.extract(carrier)
    assert restored is not None
    with restored, far.provider.get_tracer("mine").start_as_current_span("query"):
        pass
    assert get_current() is before
    [query], [main] = far.spans, traced.spans
    assert (query.context.trace_id, query.parent.span_id) == (main.context.trace_id, main.context.span_id)


def test_what_was_carried_is_put_away_when_a_task_fails(traced: Any) -> None:
    with traced.provider.get_tracer("mine").start_as_current_span("request"):
        carrier = carried()
    before = get_current()
    restored = _plugin.extract(carrier)
    assert restored is not None
    with pytest.raises(ZeroDivisionError), restored:
        raise ZeroDivisionError
    assert get_current() is before


def test_a_carrier_that_is_not_a_trace_context_restores_nothing() -> None:
    assert _plugin.extract({"acme-user": "ada"}) is None
    restored = _plugin.extract({"traceparent": "not one"})
    assert restored is not None
    with restored:
        assert not trace.get_current_span().get_span_context().is_valid
