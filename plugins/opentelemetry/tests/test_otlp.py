"""Spans as they leave over OTLP: the SDK's own exporter, and a receiver on loopback that reads the real messages."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from hypernodes_opentelemetry import TelemetryCallback


class Receiver(ThreadingHTTPServer):
    """What a collector does at the address of its OTLP/HTTP receiver."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}/v1/traces"

    def spans(self) -> dict[str, Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return {
            span.name: span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *told: Any) -> None:
        """Tests print nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def values(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def run_one(tell: Any, provider: TracerProvider, here: str) -> None:
    run = tell(TelemetryCallback(provider), "map", 1)
    root = run.start("map", ("main",))
    item = run.start("item", ("main",), root, items=(0,))
    for worker in (here, "9/elsewhere"):
        node = run.start("node", ("main", worker.partition("/")[2]), item, items=(0, None), worker=worker)
        run.end(node, "error", error="ValueError")
    run.end(item, "error", error="ValueError")
    run.end(root)


def test_a_receiver_gets_one_trace_with_its_parents_over_otlp(receiver: Receiver, tell: Any, here: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=receiver.endpoint, timeout=10)))
    run_one(tell, provider, here)
    assert provider.force_flush()
    provider.shutdown()

    spans = receiver.spans()
    assert spans.keys() == {"map main", "item main", "node elsewhere", f"node {here.partition('/')[2]}"}
    assert len({span.trace_id for span in spans.values()}) == 1
    root, item, node = spans["map main"], spans["item main"], spans["node elsewhere"]
    assert (root.parent_span_id, item.parent_span_id, node.parent_span_id) == (b"", root.span_id, item.span_id)
    assert values(root)["hypernodes.total"] == 1
    assert values(node)["hypernodes.item"] == 0
    assert (node.status.code, node.status.message) == (Status.STATUS_CODE_ERROR, "ValueError")
    assert root.start_time_unix_nano <= node.start_time_unix_nano < node.end_time_unix_nano <= root.end_time_unix_nano


@pytest.mark.parametrize("processor", [BatchSpanProcessor, SimpleSpanProcessor])
def test_a_collector_that_is_down_costs_spans_and_nothing_else(
    processor: Any, tell: Any, here: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces"
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor(OTLPSpanExporter(endpoint=endpoint, timeout=0.05)))
        with caplog.at_level(logging.CRITICAL, "opentelemetry"):
            run_one(tell, provider, here)
            provider.force_flush()
            provider.shutdown()
