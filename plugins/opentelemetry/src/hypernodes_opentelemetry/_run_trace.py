"""The spans of one run, made from its events."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from hypernodes import Event, Run
from hypernodes_opentelemetry._crossing import Crossing
from hypernodes_opentelemetry._scope import Scope

__all__ = ["RunTrace"]

SECOND = 1_000_000_000


class _Open:
    """A span that has begun: nodes have a scope while they run here, what is around others has a context."""

    __slots__ = ("began", "context", "is_place", "scope", "span")

    def __init__(self, span: Span, began: int, context: Context | None, *, is_place: bool = False) -> None:
        self.span, self.began, self.context, self.is_place = span, began, context, is_place
        self.scope: Scope | None = None


class RunTrace:
    """Listens to one run, called in the context `caller`, and tells `tracer` of it.

    It never raises: a provider that fails is logged once, and from then on this run is not traced.
    """

    def __init__(
        self,
        tracer: Tracer,
        run: Run,
        caller: Context,
        *,
        attributes: Mapping[str, AttributeValue],
        messages: bool = False,
        baggage: bool = False,
    ) -> None:
        self._tracer, self._run, self._caller = tracer, run, caller
        self._attributes, self._messages, self._baggage = attributes, messages, baggage
        self._open: dict[str, _Open] = {}
        self._waiting: dict[str, Event] = {}
        self._root: Context | None = None
        self._crossing: Crossing | None = None
        self._unended = 0
        self._broken = False
        self._known: dict[tuple[tuple[str, ...], str, str], dict[str, AttributeValue]] = {}

    def __call__(self, event: Event) -> None:
        try:
            if event.phase == "end":
                self._end(event)
            elif not self._broken:
                self._start(event)
        except Exception as error:
            self._give_up(error)

    def _start(self, event: Event) -> None:
        if event.kind != "node":
            self._unended += event.kind not in ("place", "resource")
            self._start_around(event)
        elif event.worker != _here():
            # It ran elsewhere and is over: its span is made when its end has been told too.
            self._waiting[event.span] = event
        else:
            span, began = self._span(event, self._facts(event))
            opened = self._open[event.span] = _Open(span, began, None)
            scope = opened.scope = Scope(set_span_in_context(span, self._caller))
            scope.enter()

    def _start_around(self, event: Event) -> None:
        facts = dict(self._facts(event))
        root = not event.parent
        if root:
            facts |= self._attributes
            facts["hypernodes.run"] = event.run
        total = self._run.total if root and event.total is None else event.total
        if total is not None:
            facts["hypernodes.total"] = total
        span, began = self._span(event, facts)
        context = set_span_in_context(span, self._caller)
        self._open[event.span] = _Open(span, began, context, is_place=event.kind in ("place", "resource"))
        if root:
            self._root = context
            self._crossing = Crossing(context, self._caller, baggage=self._baggage)

    def _end(self, event: Event) -> None:
        opened = self._open.get(event.span)
        if opened is not None:
            if opened.scope is not None:
                opened.scope.leave()
            del self._open[event.span]  # only now: interrupted before, the end of the run still finds the scope
        if event.kind not in ("node", "place", "resource"):
            self._unended -= 1
            if self._unended <= 0:
                self._close()
        if self._broken:
            return
        if opened is None:
            started = self._waiting.pop(event.span, None)
            if started is None:
                return
            opened = _Open(*self._span(started, self._facts(event)), None)
        ended = int(event.time * SECOND)
        if event.status != "ok":
            self._tell_status(opened.span, event, ended)
        opened.span.end(max(opened.began, ended))

    def _tell_status(self, span: Span, event: Event, at: int) -> None:
        span.set_attribute("hypernodes.status", event.status)
        if event.status == "cached":
            span.set_attribute("hypernodes.cache.hit", True)
        elif event.status == "error":
            if event.error:
                span.set_attribute("error.type", event.error)
            span.set_status(Status(StatusCode.ERROR, event.error or None))
            if self._messages and event.failure is not None:
                what = {"exception.type": event.failure.type_name, "exception.message": event.failure.message}
                span.add_event("exception", what, at)

    def _span(self, event: Event, facts: Mapping[str, AttributeValue]) -> tuple[Span, int]:
        around = self._open.get(event.parent)
        context = self._root if around is None else around.context
        began = int(event.time * SECOND)
        span = self._tracer.start_span(
            f"{event.kind} {event.place if event.kind == 'place' else event.path[-1]}",
            self._caller if context is None else context,
            attributes=facts,
            start_time=began,
        )
        return span, began

    def _facts(self, event: Event) -> dict[str, AttributeValue]:
        """The attributes that say which part of the pipeline this is and where it ran."""
        key = (event.path, event.place, event.worker)
        facts = self._known.get(key)
        if facts is None:
            facts = self._known[key] = {"hypernodes.path": " > ".join(event.path)}
            if event.place:
                facts["hypernodes.place"] = event.place
                facts["hypernodes.engine"] = event.place.rpartition(":")[2]
            if event.worker:
                facts["hypernodes.worker"] = event.worker
        items = [index for index in event.items if index is not None]
        if not items:
            return facts
        if len(items) > 1:
            return {**facts, "hypernodes.item": items[-1], "hypernodes.items": items}
        return {**facts, "hypernodes.item": items[0]}

    def _close(self) -> None:
        """Leave nothing behind of a run that is over, also where it was interrupted and ends were never told.

        A callback of a nested pipeline does not hear of the run around it: each time the outermost part that it hears
        of has ended, nothing is left either.
        """
        if self._crossing is not None:
            self._crossing.end()
        self._waiting.clear()
        unfinished = list(reversed(self._open.values()))
        self._open.clear()
        for opened in unfinished:
            if opened.scope is not None:
                opened.scope.leave()
        if not self._broken:
            for opened in unfinished:
                if not opened.is_place:  # a place may well stay open after the run
                    opened.span.set_attribute("hypernodes.status", "stopped")
                opened.span.end()

    def _give_up(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            logging.getLogger("hypernodes").warning(
                "the trace of this run of '%s' is incomplete: the tracer provider raised %s; the run goes on",
                self._run.pipeline,
                type(error).__qualname__,
                exc_info=error,
            )


def _here() -> str:
    """This process and thread, as `Event.worker` names them."""
    return f"{os.getpid()}/{threading.current_thread().name}"
