"""What crosses to a far side, and what is restored there: the W3C trace context of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["Crossing", "extract", "inject"]

_TRACE = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()
_crossing: ContextVar[Crossing | None] = ContextVar("hypernodes_opentelemetry_crossing", default=None)


class Crossing:
    """A run under way: `context` holds its root span, `caller` is the context in which it was called.

    It is not OpenTelemetry's current context, since a streamed run gives control back to its caller between two items.
    """

    __slots__ = ("baggage", "caller", "context", "ended", "outer")

    def __init__(self, context: Context, caller: Context, *, baggage: bool) -> None:
        self.context, self.caller, self.baggage = context, caller, baggage
        self.ended = False
        self.outer = _running()
        _crossing.set(self)

    def end(self) -> None:
        """May be called from another thread or task than the one that began it."""
        self.ended = True
        if _crossing.get() is self:
            _crossing.set(_running())


def _running() -> Crossing | None:
    found = _crossing.get()
    while found is not None and found.ended:
        found = found.outer
    return found


def inject(carrier: dict[str, str]) -> None:
    """Put the span of the run under way into `carrier`, or the caller's current span where nothing traces the run."""
    crossing = _running()
    # Another span than the one the run was called in: this is a run within it, such as one that a node calls.
    if crossing is not None and get_current_span() is get_current_span(crossing.caller):
        _TRACE.inject(carrier, crossing.context)
        if crossing.baggage:
            _BAGGAGE.inject(carrier, crossing.context)
    else:
        _TRACE.inject(carrier)


@contextmanager
def extract(carrier: Mapping[str, str]) -> Iterator[None]:
    """Make the span that `carrier` names the current one while this is held."""
    context = _TRACE.extract(carrier)
    if "baggage" in carrier:
        context = _BAGGAGE.extract(carrier, context)
    token = attach(context)
    try:
        yield
    finally:
        detach(token)
