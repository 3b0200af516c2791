"""What other plugins bring works inside of Dask's workers: engines and traces, of plugins that know nothing of Dask."""

from __future__ import annotations

import os
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from hypernodes import CoiledBackend, DaskBackend, Pipeline, node

pytest.importorskip("hypernodes_daft", reason="the Daft engine is not in this environment")


@node(output_name="y")
def double(x: int) -> int:
    return 2 * x


@pytest.mark.slow
def test_each_task_hands_its_items_to_daft_within_the_trace_around_the_run() -> None:
    @node(output_name="seen")
    def look(y: int) -> Any:
        import sys

        from opentelemetry import trace

        return y, "daft" in sys.modules, trace.get_current_span().get_span_context().trace_id, os.getpid()

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with DaskBackend(engine="daft", workers=1) as backend, tracer.start_as_current_span("around") as span:
        pipeline = Pipeline(nodes=[double, look], name="far", backend=backend)
        found = pipeline.map([{"x": x} for x in range(40)], output_name="seen")
    assert [y for y, *_ in found] == [2 * x for x in range(40)]
    ((has_daft, traced, process),) = {tuple(rest) for _, *rest in found}
    assert has_daft
    assert process != os.getpid()
    assert traced == span.get_span_context().trace_id != trace.INVALID_TRACE_ID


def test_machines_of_coiled_take_daft_as_the_engine_of_a_nested_pipeline() -> None:
    inner = Pipeline(nodes=[double], name="inner", backend=CoiledBackend(engine="daft", workers=1, software="any"))
    outer = Pipeline(nodes=[inner.as_node()], name="outer")
    assert "coiled:daft" in str(outer.explain())
