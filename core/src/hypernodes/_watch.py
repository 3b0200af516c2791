"""One call being watched: what nodes tell becomes the tree of events, and listeners hear it, one event at a time."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter, time
from typing import Any

from hypernodes import _observers
from hypernodes._backend import label
from hypernodes._events import Callback, Event, Listener, Run
from hypernodes._failure import Failure
from hypernodes._hops import places_of
from hypernodes._plan import MapStep, Plan, Step, leaves
from hypernodes._record import Built, Record, Span, watching
from hypernodes._scope import Scope
from hypernodes._task import Batch

__all__ = ["Watch"]

_serials = itertools.count(1)


Position = tuple[tuple[int, int], ...]
"""Where a part of the run stands when everything runs one after another: for each level its number, and the item."""


class _Open:
    """A span that has begun and not ended. `fault` is the earliest failing node in it: where, and the error's type."""

    __slots__ = (
        "children",
        "fault",
        "items",
        "kind",
        "left",
        "listeners",
        "parent",
        "path",
        "span",
        "started",
        "status",
        "until",
    )

    def __init__(
        self,
        kind: str,
        span: str,
        parent: _Open | None,
        path: tuple[str, ...],
        items: tuple[int | None, ...],
        started: float,
        listeners: tuple[int, ...],
        left: int | None,
    ) -> None:
        self.kind, self.span, self.parent, self.path, self.items = kind, span, parent, path, items
        self.started, self.listeners, self.left = started, listeners, left
        self.children: dict[Any, _Open] = {}
        self.until = started
        self.status = "ok"
        self.fault: tuple[Position, str] | None = None


class Watch:
    """A call and its listeners. Use it as a context manager around the call; `through` what the call gives.

    Listeners are called under a lock, one event at a time; one that raises is logged and hears no more. Nodes of this
    process are told of in their own thread.
    """

    def __init__(
        self, kind: str, plan: Plan, total: int | None, facts: Mapping[str, Any], extra: Sequence[Callback | Listener]
    ) -> None:
        self.id = f"{os.getpid():08x}{next(_serials):08x}{os.urandom(8).hex()}"
        self.kind = kind
        steps = tuple((step.path, label(plan.places[step.place])) for step in leaves(plan))
        self.run = Run(self.id, plan.path[0], kind, total, steps, facts)
        self._spans = itertools.count(int.from_bytes(os.urandom(7), "big") << 4)
        self._lock = threading.RLock()
        self._plan, self._extra = plan, extra
        self._listeners: list[Listener | None] = []
        self._everybody: tuple[int, ...] = ()
        self._begun: dict[int, tuple[int, ...]] = {}
        self._heard_at: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._place_of: dict[tuple[str, ...], str] = {}
        self._places: dict[tuple[str, ...], str] = {}
        self._expected: dict[tuple[str, ...], int | None] = {}
        self._order: dict[tuple[str, ...], int] = {}
        self._open_places: dict[str, list[tuple[str, float]]] = {}
        self._open_resources: list[tuple[Event, float]] = []
        self._open_nodes: dict[str, tuple[tuple[str, _Open, Any], Record, float]] = {}
        self._over = False
        self._stack = contextlib.ExitStack()
        self._failure: Failure | None = None
        self._complete = False
        self._clock = 0.0
        self._root: _Open

    def adopt(self, plan: Plan) -> None:
        """Know the steps of one more plan of this call; its rows bring other inputs."""
        heard = [
            (*dict.fromkeys([at for one in setting.callbacks for at in self._begin(one)]), *self._everybody)
            for setting in plan.settings
        ]
        self._heard_at.update((path, heard[setting]) for path, setting in plan.levels)
        self._places.update(places_of(plan))
        for step in leaves(plan):
            self._place_of[step.path] = label(plan.places[step.place])
            self._heard_at[step.path] = heard[step.setting]
            for depth in range(1, len(step.path) + 1):
                self._order.setdefault(step.path[:depth], len(self._order))
        for path, count in _leaf_counts(plan).items():
            known = self._expected.setdefault(path, count)
            if known != count:
                self._expected[path] = None

    # -- the call

    def __enter__(self) -> Watch:
        plugins = [at for listener in _observers.listeners(self.run) for at in self._added(listener)]
        self._everybody = (*(at for one in self._extra for at in self._begin(one)), *plugins)
        self.adopt(self._plan)
        path = self.run.pipeline
        self._clock, now = perf_counter(), time()
        self._root = _Open(self.kind, self._span(), None, (path,), (None,), now, self._all(), None)
        self._stack.enter_context(watching(self.id, self))
        self._emit_start(self._root)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stack.close()
        root = self._root
        with self._lock:
            unfinished = not self._complete and self._failure is None
            stopped = error is not None and not isinstance(error, Exception)
            rest = "ok" if self._complete or (self._failure is not None and self.kind != "map") else "stopped"
            self._end_what_is_open(rest)
            if self._failure is not None:
                status = "error"
            elif unfinished:
                status = "stopped" if error is None or stopped else "error"
            else:
                status = "ok"
            root.status, root.until = status, root.started + perf_counter() - self._clock
            root.listeners = self._all()
            fault = self._failure.type_name if self._failure is not None else ""
            if not fault and status == "error" and error is not None:
                fault = type(error).__qualname__
            self._emit_end(root, fault, self._failure)
            self._over = True

    def _end_what_is_open(self, rest: str) -> None:
        """Nodes that nobody waits for any more, rows without a result, and the places that stay open for others."""
        while self._open_nodes:  # what still runs in some thread is not told of again when it ends
            _, (token, begun, clock) = self._open_nodes.popitem()
            self._node_ends(token, begun._replace(seconds=perf_counter() - clock))
        for child in list(self._root.children.values()):
            self._close(child, rest, self._failure)
        for name, opened in self._open_places.items():
            for span, clock in opened:
                self._tell_place("end", name, span, perf_counter() - clock)
        for event, clock in reversed(self._open_resources):
            end = replace(event, phase="end", time=time(), seconds=perf_counter() - clock, status="ok")
            self._tell(self._heard(event.path[:-1]), end)

    def span(self, index: int) -> Span:
        """What says of a row which one it is."""
        return (self.id, ((0, index),) if self.kind == "map" else ())

    def rows(self, rows: Iterable[tuple[Any, ...]], base: int = 0) -> Iterator[tuple[Any, ...]]:
        """Rows with what says which one each is; `base` rows of this call came before them."""
        span = self.span
        return ((*row, span(index)) for index, row in enumerate(rows, base))

    def row_over(self, index: int, failure: Failure | None) -> None:
        """A row of the call has its result."""
        with self._lock:
            if self.kind != "map":
                self._failure = failure
                return
            found = self._root.children.get(index) or self._enter_item(self._root, 0, index, time())
            self._close(found, "ok", failure, own=True)

    def complete(self) -> None:
        """Every row has its result."""
        self._complete = True

    def failed(self, failure: Failure) -> None:
        """The call ends with this failure of one of its rows."""
        self._failure = failure

    def through(self, batches: Sequence[Batch], base: int) -> None:
        """Note the rows that came to an end; `base` rows of this call came before those of their feed."""
        for batch in batches:
            for at in range(len(batch.values)):
                index = base + batch.first + at
                failed = batch.failures.get(at)
                failure = None if failed is None else failed[0].through(self._places)
                self.row_over(index, failure.at(index) if failure is not None and self.kind == "map" else failure)

    def place(self, phase: str, name: str, seconds: float | None = None) -> None:
        """A place was opened, in so many seconds, or closed for this call."""
        with self._lock:
            opened = self._open_places.setdefault(name, [])
            if self._over:
                return
            if phase == "start":
                opened.append((self._span(), perf_counter()))
                self._tell_place("start", name, opened[-1][0], seconds)
            elif opened:  # the call that closes a shared place need not be the one that opened it
                span, clock = opened.pop()
                self._tell_place("end", name, span, perf_counter() - clock)

    def _tell_place(self, phase: str, name: str, span: str, seconds: float | None) -> None:
        root = self._root
        status = "ok" if phase == "end" else ""
        event = Event(
            "place", phase, self.id, span, root.span, root.path, root.items, time(), seconds, status, place=name
        )
        self._tell(self._heard(root.path), event)

    def belongs(self, scope: Scope | None) -> None:
        """Hear of the resources that are built for this scope, too."""
        if scope is not None:
            self._stack.enter_context(watching(scope.run, self))

    def _resource(self, built: Built) -> None:
        """A resource is there from now on; one that could not be built ends at once."""
        root = self._root
        event = Event(
            *("resource", "start", self.id, self._span(), root.span, built.path, (None,) * len(built.path)),
            *(built.started + built.seconds, built.seconds),
            place=self._place_of.get(built.node, ""),
            worker=built.worker,
        )
        listeners = self._heard(built.path[:-1])
        self._tell(listeners, event)
        if built.status == "ok":
            self._open_resources.append((event, perf_counter()))
        else:
            self._tell(listeners, replace(event, phase="end", seconds=0.0, status=built.status, error=built.error))

    # -- what nodes tell

    def started(self, span: Span, path: tuple[str, ...], at: float, worker: str) -> Any:
        with self._lock:
            if self._over:
                return None
            token = self._node_begins(span, path, at, worker)
            begun = Record(span, path, at, 0.0, "stopped", "", worker)
            self._open_nodes[token[0]] = (token, begun, perf_counter())
            return token

    def ended(self, token: Any, record: Record) -> None:
        with self._lock:
            if token is not None and self._open_nodes.pop(token[0], None) is not None:
                self._node_ends(token, record)

    def told(self, record: Record | Built) -> None:
        with self._lock:
            if self._over:
                return
            if isinstance(record, Built):
                self._resource(record)
                return
            self._node_ends(self._node_begins(record.span, record.path, record.started, record.worker), record)

    def _node_begins(self, span: Span, path: tuple[str, ...], at: float, worker: str) -> tuple[str, _Open, Any]:
        parent = self._around(span, path, at)
        own = self._span()
        items = _items(path, span)
        listeners = self._heard(path)
        if listeners:
            self._tell(
                listeners,
                Event(
                    *("node", "start", self.id, own, parent.span, path, items, at),
                    place=self._place_of.get(path, ""),
                    worker=worker,
                ),
            )
        return own, parent, items

    def _node_ends(self, token: tuple[str, _Open, Any], record: Record) -> None:
        own, parent, items = token
        until = record.started + record.seconds
        listeners = self._heard(record.path)
        if listeners:
            self._tell(
                listeners,
                Event(
                    *("node", "end", self.id, own, parent.span, record.path, items, until, record.seconds),
                    *(record.status, record.error, self._place_of.get(record.path, ""), record.worker),
                ),
            )
        at: _Open | None = parent
        fault = (self._position(record.path, items), record.error) if record.status == "error" else None
        while at is not None and at is not self._root:
            at.until = max(at.until, until)
            if record.status == "stopped":
                at.status = "stopped"
            if fault is not None and (at.fault is None or fault < at.fault):
                at.fault = fault
            above = at.parent
            if at.left is not None:
                at.left -= 1
                # A row of the call itself ends with its result, which may still be on its way.
                if not at.left and not (at.kind == "item" and above is self._root):
                    self._close(at)
            at = above

    # -- the tree

    def _around(self, span: Span, path: tuple[str, ...], at: float) -> _Open:
        """The open span around a node, with those around it; begun where they have not."""
        mapped = dict(span[1])
        found = self._root
        for level in range(len(path) - 1):
            if level:
                name = path[level]
                below = found.children.get(name)
                if below is None:
                    own = path[: level + 1]
                    outer, inner = self._heard(own[:-1]), self._heard(own)
                    items = (*_items(own, span)[:-1], None)
                    below = _Open(
                        *("nested", self._span(), found, own, items, at),
                        listeners=tuple(dict.fromkeys((*outer, *inner))),
                        left=None if level in mapped else self._expected.get(own),
                    )
                    found.children[name] = below
                    self._emit_start(below)
                found = below
            if level in mapped:
                index = mapped[level]
                found = found.children.get(index) or self._enter_item(found, level, index, at)
        return found

    def _enter_item(self, parent: _Open, level: int, index: int, at: float) -> _Open:
        path, items = parent.path, (*parent.items[:-1], index)
        own = _Open("item", self._span(), parent, path, items, at, self._heard(path), self._expected.get(path))
        parent.children[index] = own
        self._emit_start(own)
        return own

    def _position(self, path: tuple[str, ...], items: tuple[int | None, ...]) -> Position:
        order = self._order
        return tuple(
            (order.get(path[: depth + 1], -1), -1 if item is None else item) for depth, item in enumerate(items)
        )

    def _close(self, found: _Open, rest: str = "ok", failure: Failure | None = None, *, own: bool = False) -> None:
        """End a span after everything in it.

        `rest` is the status of what nothing bad is known of. What comes after the `failure` of the row around it has
        not come to its end; the failure is that of the span itself if `own`.
        """
        failed = None if failure is None else self._position(failure.path, failure.items)
        todo, order = [found], []
        while todo:
            one = todo.pop()
            order.append(one)
            todo += one.children.values()
        for one in reversed(order):
            assert one.parent is not None
            one.parent.until = max(one.parent.until, one.until)
            if one is found and own and failure is not None:
                one.status = "error"
                self._emit_end(one, failure.type_name, failure)
            elif one.fault is not None:
                one.status = "error"
                self._emit_end(one, one.fault[1], None)
            else:
                if one.status == "ok":
                    late = failed is not None and self._position(one.path, one.items) > failed[: len(one.path)]
                    one.status = "stopped" if late else rest
                self._emit_end(one, "", None)
            one.parent.children.pop(one.items[-1] if one.kind == "item" else one.path[-1], None)

    # -- listeners

    def _begin(self, callback: Callback | Listener) -> tuple[int, ...]:
        """Where this callback's listener for the run is; begun when it is first met."""
        found = self._begun.get(id(callback))
        if found is None:
            found = self._begun[id(callback)] = self._added(self._listener_of(callback))
        return found

    def _listener_of(self, callback: Callback | Listener) -> Listener | None:
        if not isinstance(callback, Callback):
            return callback
        try:
            return callback.begin(self.run)
        except Exception as error:
            _log("%s hears nothing of this run: its begin() raised", type(callback).__qualname__, error)
            return None

    def _added(self, listener: Listener | None) -> tuple[int, ...]:
        if listener is None:
            return ()
        self._listeners.append(listener)
        return (len(self._listeners) - 1,)

    def _all(self) -> tuple[int, ...]:
        """Every listener hears when the call begins and ends."""
        return tuple(range(len(self._listeners)))

    def _heard(self, path: tuple[str, ...]) -> tuple[int, ...]:
        return self._heard_at.get(path, self._everybody)

    def _span(self) -> str:
        return f"{next(self._spans) & 0xFFFFFFFFFFFFFFFF:016x}"

    def _emit_start(self, found: _Open) -> None:
        parent = "" if found.parent is None else found.parent.span
        total = self.run.total if found is self._root else None
        event = Event(
            *(found.kind, "start", self.id, found.span, parent, found.path, found.items, found.started), total=total
        )
        self._tell(found.listeners, event)

    def _emit_end(self, found: _Open, error: str, failure: Failure | None) -> None:
        parent = "" if found.parent is None else found.parent.span
        seconds = max(0.0, found.until - found.started)
        event = Event(
            *(found.kind, "end", self.id, found.span, parent, found.path, found.items, found.until, seconds),
            *(found.status, error),
            total=self.run.total if found is self._root else None,
            failure=failure,
        )
        self._tell(found.listeners, event)

    def _tell(self, listeners: tuple[int, ...], event: Event) -> None:
        for at in listeners:
            listener = self._listeners[at]
            if listener is None:
                continue
            try:
                listener(event)
            except Exception as error:
                self._listeners[at] = None
                _log(
                    "%s hears no more of this run: it raised", getattr(listener, "__qualname__", repr(listener)), error
                )


def _log(message: str, who: str, error: BaseException) -> None:
    import logging

    logging.getLogger("hypernodes").warning(message, who, exc_info=error)


def _items(path: tuple[str, ...], span: Span) -> tuple[int | None, ...]:
    items: list[int | None] = [None] * len(path)
    for depth, index in span[1]:
        if depth < len(items):
            items[depth] = index
    return tuple(items)


def _leaf_counts(plan: Plan) -> dict[tuple[str, ...], int | None]:
    """How many nodes run below each pipeline of the plan for one row of it; None where it holds a mapped one."""
    counts: dict[tuple[str, ...], int | None] = {}
    todo = [plan]
    while todo:
        current = todo.pop()
        base = len(current.path)
        for step in current.steps:
            if isinstance(step, Step) and step.is_clock:
                continue
            inner = isinstance(step, MapStep)
            if isinstance(step, MapStep):
                todo.append(step.inner)
            for depth in range(base, len(step.path)):
                own = step.path[:depth]
                known = counts.get(own, 0)
                counts[own] = None if inner or known is None else known + 1
    return counts
