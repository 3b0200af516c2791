"""The callback that traces runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.context import get_current
from opentelemetry.trace import (
    NoOpTracer,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Tracer,
    TracerProvider,
    get_tracer_provider,
)
from opentelemetry.util.types import AttributeValue

import hypernodes
from hypernodes import Callback, Event, Run
from hypernodes_opentelemetry._run_trace import RunTrace

__all__ = ["TelemetryCallback"]


class TelemetryCallback(Callback):
    """Traces every run: give it as `Pipeline(callbacks=[TelemetryCallback()])`.

    Spans go to `tracer_provider`, or to the global one at the time of the run; `name` is the tracer's. `attributes` are
    put on the root span of each run. Without an SDK nothing is traced, and nothing slowed down.

    Spans hold names, times, places and types of errors. With `messages` they also hold the messages of errors, which
    may quote values. With `baggage` the caller's baggage goes to far sides beside the trace's id.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        name: str = "hypernodes",
        attributes: Mapping[str, AttributeValue] | None = None,
        messages: bool = False,
        baggage: bool = False,
    ) -> None:
        self._provider = tracer_provider
        self._name = name
        self._attributes = dict(attributes or {})
        self._messages = messages
        self._baggage = baggage
        self._made: tuple[TracerProvider, Tracer] | None = None

    def begin(self, run: Run) -> Callable[[Event], object] | None:
        tracer = self._tracer()
        if tracer is None:
            return None
        return RunTrace(
            tracer,
            run,
            get_current(),
            attributes=self._attributes,
            messages=self._messages,
            baggage=self._baggage,
        )

    def _tracer(self) -> Tracer | None:
        """The tracer to use now, made once for each provider; None where it would make no spans."""
        provider = self._provider or get_tracer_provider()
        made = self._made
        if made is None or made[0] is not provider:
            if isinstance(provider, NoOpTracerProvider | ProxyTracerProvider):
                return None
            made = self._made = (provider, provider.get_tracer(self._name, hypernodes.__version__))
        return None if isinstance(made[1], NoOpTracer) else made[1]

    def __getstate__(self) -> dict[str, Any]:
        # Providers hold threads and locks. Where this one arrives, the provider that is global there is used.
        return self.__dict__ | {"_provider": None, "_made": None}

    def __repr__(self) -> str:
        return f"TelemetryCallback(name={self._name!r})"
