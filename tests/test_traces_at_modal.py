"""A trace goes on inside of a container at Modal: two plugins that know nothing of each other."""

from __future__ import annotations

import os
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from hypernodes import ModalBackend, Pipeline, node
from hypernodes_modal.testing import LocalModal


@pytest.mark.slow
def test_spans_of_a_container_belong_to_the_trace_around_the_run() -> None:
    @node(output_name="found")
    def look(x: Any) -> Any:
        from opentelemetry import trace

        return trace.get_current_span().get_span_context().trace_id, os.environ["MODAL_TASK_ID"]

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with LocalModal(capacity=1) as plane, plane.client() as client, ModalBackend(client=client) as backend:
        with tracer.start_as_current_span("around") as span:
            found, container = Pipeline(nodes=[look], name="far", backend=backend).run(x=1, output_name="found")
        assert container
        assert found == span.get_span_context().trace_id != trace.INVALID_TRACE_ID
        commands = [command for image in plane.images for command in image.commands]
        assert plane.unimplemented == {}
    assert any("opentelemetry-api==" in command for command in commands)
    assert not any("graphviz" in command or "rich" in command for command in commands)
