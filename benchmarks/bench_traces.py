"""What tracing costs for each node, over the same spans made by hand with the SDK, and over a run without callbacks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from _measure import Table, chosen, compare
from _shapes import chain
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import set_span_in_context

from hypernodes import Event, Pipeline, Run, TelemetryCallback

NODES = 500


def providers() -> dict[str, tuple[TracerProvider, Callable[[], None]]]:
    """Each with what empties its exporter."""
    found = {}
    for what, processor in (("simple processor", SimpleSpanProcessor), ("batch processor", BatchSpanProcessor)):
        exporter: SpanExporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(processor(exporter))
        found[what] = (provider, exporter.clear)
    found["sampled out"] = (TracerProvider(sampler=ALWAYS_OFF), lambda: None)
    return found


def events(where: str) -> list[Event]:
    """A run of one item on a chain, as core tells it."""

    def event(kind: str, phase: str, span: str, parent: str, path: tuple[str, ...], **facts: Any) -> Event:
        return Event(kind, phase, "r" * 16, span, parent, path, (None,) * len(path), 1.8e9, **facts)

    told = [event("pipeline", "start", "0", "", ("main",))]
    place = {"place": "local:sequential", "worker": where}
    for at in range(NODES):
        span, path = f"{at + 1:016x}", ("main", f"n{at}")
        told.append(event("node", "start", span, "0", path, **place))
        told.append(event("node", "end", span, "0", path, seconds=0.0, status="ok", **place))
    told.append(event("pipeline", "end", "0", "", ("main",), seconds=0.0, status="ok"))
    return told


def listening() -> None:
    """The callback alone, against one who writes the same spans down by hand."""
    table = Table("Tracing a node", "what", "the callback", "the SDK by hand", "ratio", "over by hand", "goal")
    here = f"{os.getpid()}/{threading.current_thread().name}"
    for what, (provider, empty) in providers().items():
        for where, worker in (("here", here), ("elsewhere", "9/elsewhere")):
            told = events(worker)
            callback = TelemetryCallback(provider)

            def ours(callback: Any = callback, told: list[Event] = told, empty: Callable[[], None] = empty) -> None:
                listen = callback.begin(Run("r" * 16, "main", "pipeline"))
                for event in told:
                    listen(event)
                empty()

            tracer = provider.get_tracer("mine")
            facts = {
                "hypernodes.place": "local:sequential",
                "hypernodes.engine": "sequential",
                "hypernodes.worker": worker,
            }

            def theirs(
                tracer: Any = tracer,
                facts: dict[str, str] = facts,
                empty: Callable[[], None] = empty,
                current: bool = where == "here",
            ) -> None:
                root = tracer.start_span("main")
                around = set_span_in_context(root)
                for at in range(NODES):
                    span = tracer.start_span(
                        f"n{at}", around, attributes={"hypernodes.path": f"main > n{at}", **facts}, start_time=1
                    )
                    if current:
                        detach(attach(set_span_in_context(span)))
                    span.end(2)
                root.end()
                empty()

            pair = compare(ours, theirs)
            ours_each, theirs_each = pair.ours / NODES, pair.theirs / NODES
            goal = "<= 20 µs" if where == "here" else ""
            over = chosen(ours_each - theirs_each) if ours_each > theirs_each else "none"
            table.row(f"{where}, {what}", chosen(ours_each), chosen(theirs_each), f"{pair.ratio:.2f}", over, goal)
        provider.shutdown()


def running() -> None:
    """A whole run with the callback, against the same run that nobody listens to."""
    table = Table(f"A run of {NODES} nodes", "what", "traced", "without", "added a node", "goal")
    made = chain(NODES)
    cases: dict[str, tuple[Any, Callable[[], None]]] = {"a callback that does nothing": (lambda event: None, list)}
    found = providers()
    cases |= {what: (TelemetryCallback(provider), empty) for what, (provider, empty) in found.items()}
    for what, (callback, empty) in cases.items():
        traced = Pipeline(made.pipeline.graph.order, callbacks=[callback])

        def ours(traced: Pipeline = traced, empty: Callable[[], None] = empty) -> None:
            traced.run(x=1)
            empty()

        pair = compare(ours, lambda: made.pipeline.run(x=1))
        goal = "<= 20 µs" if "processor" in what else ""
        table.row(what, chosen(pair.ours), chosen(pair.theirs), chosen(pair.over / NODES), goal)
    for provider, _ in found.values():
        provider.shutdown()


if __name__ == "__main__":
    listening()
    running()
