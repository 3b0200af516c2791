"""Spans as they come out of the real SDK, and a teller of the events that core would tell."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hypernodes import Event, Run


class Traced:
    """A provider whose finished spans can be read."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        """The one span of that name."""
        [found] = self.all_named(name)
        return found

    def all_named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def parent(self, name: str) -> str | None:
        """The name of the parent of the one span of that name."""
        return self.parent_of(self.named(name))

    def parent_of(self, span: ReadableSpan) -> str | None:
        if span.parent is None:
            return None
        names = {one.context.span_id: one.name for one in self.spans if one.context is not None}
        return names.get(span.parent.span_id, "a span that was never exported")

    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.spans if span.context is not None}

    def everything(self) -> str:
        return "\n".join(span.to_json() for span in self.spans)


@pytest.fixture
def traced() -> Iterator[Traced]:
    one = Traced()
    yield one
    one.provider.shutdown()


@pytest.fixture
def new_traced() -> Iterator[Callable[..., Traced]]:
    made: list[Traced] = []

    def make(**options: Any) -> Traced:
        made.append(Traced(**options))
        return made[-1]

    yield make
    for one in made:
        one.provider.shutdown()


@pytest.fixture(autouse=True)
def the_context_stays_as_it_was() -> Iterator[None]:
    before = get_current()
    yield
    assert get_current() is before, "a test left another OpenTelemetry context behind than it found"


@dataclass
class Teller:
    """Tells a listener of a run as core does: `start` gives a span's id, `end` takes it."""

    listen: Callable[[Event], object]
    run: str = "r" * 16
    clock: float = 1_800_000_000.0
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    begun: dict[str, dict[str, Any]] = field(default_factory=dict)

    def start(self, kind: str, path: tuple[str, ...], parent: str = "", **facts: Any) -> str:
        span = f"{next(self.ids):016x}"
        facts = {"items": (None,) * len(path), **facts}
        self.begun[span] = dict(kind=kind, path=path, parent=parent, run=self.run, span=span, **facts)
        self._tell(span, "start")
        return span

    def end(self, span: str, status: str = "ok", **facts: Any) -> None:
        self._tell(span, "end", seconds=1.0, status=status, **facts)

    def _tell(self, span: str, phase: str, **facts: Any) -> None:
        self.clock += 1.0
        self.listen(Event(phase=phase, time=self.clock, **(self.begun[span] | facts)))


@pytest.fixture
def tell() -> Callable[..., Teller]:
    """Begins a run with a callback, as core does, and gives the teller of its events."""

    def begin(callback: Any, kind: str = "pipeline", total: int | None = None) -> Teller:
        listen = callback.begin(Run("r" * 16, "main", kind, total))
        assert listen is not None
        return Teller(listen)

    return begin


@pytest.fixture
def here() -> str:
    """This process and thread, as events name them."""
    return f"{os.getpid()}/{threading.current_thread().name}"
