"""While a node runs here its span is the current one; afterwards everything is as it was, whatever happened."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.context import attach, get_current

from hypernodes_opentelemetry import TelemetryCallback


def test_spans_that_a_node_makes_are_children_of_its_span(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    before = get_current()
    node = run.start("node", ("main", "clean"), root, worker=here)
    with traced.provider.get_tracer("mine").start_as_current_span("query"):
        pass
    run.end(node)
    assert get_current() is before
    run.end(root)
    assert traced.parent("query") == "node clean"
    assert traced.parent("node clean") == "pipeline main"


def test_a_node_in_another_thread_sees_the_baggage_of_the_caller(traced: Any, tell: Any) -> None:
    with trace.use_span(trace.INVALID_SPAN):
        attach(baggage.set_baggage("tenant", "acme"))
        run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    seen: list[object] = []

    def work() -> None:
        import os

        worker = f"{os.getpid()}/{threading.current_thread().name}"
        node = run.start("node", ("main", "clean"), root, worker=worker)
        seen.append(baggage.get_baggage("tenant"))
        run.end(node)
        seen.append(baggage.get_baggage("tenant"))

    thread = threading.Thread(target=work, name="pool-0")
    thread.start()
    thread.join()
    run.end(root)
    assert seen == ["acme", None]


def test_a_node_that_ran_elsewhere_is_never_current_here(traced: Any, tell: Any) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    before = get_current()
    node = run.start("node", ("main", "clean"), root, worker="9/elsewhere")
    assert get_current() is before
    run.end(node)
    run.end(root)


def test_what_a_node_leaves_attached_goes_with_it(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    before = get_current()
    node = run.start("node", ("main", "clean"), root, worker=here)
    attach(baggage.set_baggage("forgotten", "yes"))
    run.end(node)
    assert get_current() is before
    run.end(root)


def test_interleaved_nodes_in_one_thread_leave_nothing_current(traced: Any, tell: Any, here: str) -> None:
    before = get_current()
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    first = run.start("node", ("main", "first"), root, worker=here)
    second = run.start("node", ("main", "second"), root, worker=here)
    run.end(first)
    assert trace.get_current_span().name == "node second"  # type: ignore[attr-defined]
    run.end(second)
    assert get_current() is before
    run.end(root)


def test_a_node_whose_end_is_told_in_another_thread_is_swept_up(traced: Any, tell: Any, here: str) -> None:
    before = get_current()
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    node = run.start("node", ("main", "clean"), root, worker=here)
    thread = threading.Thread(target=run.end, args=(node,))
    thread.start()
    thread.join()
    run.end(run.start("node", ("main", "next"), root, worker=here))
    assert get_current() is before
    run.end(root)
    assert traced.parent("node next") == "pipeline main"


def test_an_interrupted_run_leaves_nothing_current_and_ends_its_spans(traced: Any, tell: Any, here: str) -> None:
    before = get_current()
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    run.start("node", ("main", "clean"), root, worker=here)
    run.start("node", ("main", "far"), root, worker="9/elsewhere")
    run.end(root, "stopped")
    assert get_current() is before
    assert {span.name: span.attributes["hypernodes.status"] for span in traced.spans} == {
        "node clean": "stopped",
        "pipeline main": "stopped",
    }


def test_a_late_end_after_the_run_is_no_matter(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider))
    root = run.start("pipeline", ("main",))
    node = run.start("node", ("main", "clean"), root, worker=here)
    run.end(root)
    run.end(node)
    run.end(root)
    assert [span.name for span in traced.spans] == ["node clean", "pipeline main"]


def test_tasks_on_one_loop_each_have_their_own_current_span(traced: Any, tell: Any, here: str) -> None:
    run = tell(TelemetryCallback(traced.provider), "map")
    root = run.start("map", ("main",))

    async def work(at: int, barrier: asyncio.Barrier) -> None:
        node = run.start("node", ("main", f"clean{at}"), root, worker=here)
        await barrier.wait()
        with traced.provider.get_tracer("mine").start_as_current_span(f"query{at}"):
            await barrier.wait()
        run.end(node)

    async def main() -> None:
        barrier = asyncio.Barrier(3)
        await asyncio.gather(*(work(at, barrier) for at in range(3)))

    asyncio.run(main())
    run.end(root)
    for at in range(3):
        assert traced.parent(f"query{at}") == f"node clean{at}"


def test_a_thread_that_a_node_started_keeps_the_nodes_span(traced: Any, tell: Any, here: str) -> None:
    callback = TelemetryCallback(traced.provider)
    run = tell(callback)
    root = run.start("pipeline", ("main",))
    node = run.start("node", ("main", "clean"), root, worker=here)
    inside = copy_context()
    run.end(node)
    run.end(root)

    def later() -> None:
        mine = get_current()
        worker = here.partition("/")[0] + "/" + threading.current_thread().name
        other = tell(callback)
        outer = other.start("pipeline", ("later",))
        other.end(other.start("node", ("later", "clean too"), outer, worker=worker))
        other.end(outer)
        assert get_current() is mine

    with ThreadPoolExecutor(1) as pool:
        pool.submit(inside.run, later).result()
    assert traced.parent("pipeline later") == "node clean"
    assert traced.parent("node clean too") == "pipeline later"


def test_two_callbacks_of_one_run_do_not_disturb_each_other(new_traced: Any, tell: Any, here: str) -> None:
    first, second = new_traced(), new_traced()
    before = get_current()
    runs = [tell(TelemetryCallback(one.provider)) for one in (first, second)]
    roots = [run.start("pipeline", ("main",)) for run in runs]
    for _ in range(2):
        nodes = [run.start("node", ("main", "clean"), root, worker=here) for run, root in zip(runs, roots, strict=True)]
        for run, node in zip(runs, nodes, strict=True):
            run.end(node)
        assert get_current() is before
    for run, root in zip(runs, roots, strict=True):
        run.end(root)
    for one in (first, second):
        assert [one.parent_of(span) for span in one.all_named("node clean")] == ["pipeline main"] * 2
