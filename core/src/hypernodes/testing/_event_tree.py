"""The events of a call as a tree that is the same on every engine and in every place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypernodes import Callback, Event, Run
from hypernodes._events import Listener

__all__ = ["Branch", "EventLog", "event_problems", "normalised", "outline"]

Position = tuple[tuple[int, int], ...]

_ASIDE = ("place", "resource")
"""Which of them there are depends on how many places and workers there are."""


class Branch(NamedTuple):
    """A part of a call, with the parts in it in an order of their own."""

    kind: str
    name: str
    item: int | None
    status: str
    error: str
    children: tuple[Branch, ...]


def outline(branch: Branch | None, depth: int = 0) -> list[str]:
    """The tree as lines to read and to compare."""
    if branch is None:
        return ["nothing"]
    item = "" if branch.item is None else f" (item {branch.item})"
    error = f" {branch.error}" if branch.error else ""
    own = f"{'  ' * depth}{branch.kind} {branch.name}{item}: {branch.status}{error}"
    return [own, *(line for child in branch.children for line in outline(child, depth + 1))]


class EventLog(Callback):
    """Keeps what is told of the latest run that it hears: its `events`, and the `run` itself."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.run: Run | None = None

    def begin(self, run: Run) -> Listener:
        self.events, self.run = [], run
        return self.events.append

    def tree(self) -> Branch | None:
        """The latest run as `normalised` shows it; None where nothing ran, as in a map of no rows."""
        if self.run is None:
            return None
        return normalised(self.events, [path for path, _ in self.run.steps])

    def statuses(self, kind: str = "node") -> dict[str, list[str]]:
        """The statuses of all ends of one kind, sorted, by the last name of the path."""
        found: dict[str, list[str]] = {}
        for event in self.events:
            if event.kind == kind and event.phase == "end":
                found.setdefault(event.name, []).append(event.status)
        return {name: sorted(statuses) for name, statuses in sorted(found.items())}


def normalised(events: Iterable[Event], steps: Sequence[tuple[str, ...]] = ()) -> Branch:
    """The tree of a call's events without what may differ between engines and places.

    Left out are times, the ids of spans, the names of places and workers, the order among siblings, and `place` and
    `resource` events;
    in a row that fails, what comes after the failing node when one node runs after another; and, where the failure of
    an item ended the map, the items after that one. `steps` are the paths of the nodes in their order, as `Run.steps`
    has them; without them the order is that in which they first began. Raises ValueError unless the events make a
    tree (see `event_problems`).
    """
    events = list(events)
    problems = event_problems(events)
    if problems:
        raise ValueError(f"these events make no tree: {'; '.join(problems)}")
    return _Tree(events, steps).branch()


class _Tree:
    def __init__(self, events: list[Event], steps: Sequence[tuple[str, ...]]) -> None:
        self.ends = {event.span: event for event in events if event.phase == "end"}
        self.below: dict[str, list[str]] = {}
        self.order: dict[tuple[str, ...], int] = {}
        started = [event for event in events if event.phase == "start" and event.kind not in _ASIDE]
        for path in (*steps, *(event.path for event in started if event.kind == "node")):
            for depth in range(1, len(path) + 1):
                self.order.setdefault(path[:depth], len(self.order))
        for event in started:
            self.below.setdefault(event.parent, []).append(event.span)
        (self.root,) = self.below[""]

    def branch(self) -> Branch:
        root = self.ends[self.root]
        last: int | None = None
        if root.kind == "map" and root.status == "error":
            rows = [self.ends[span] for span in self.below.get(self.root, [])]
            last = min((row.items[-1] or 0 for row in rows if row.status == "error"), default=None)
        return self._branch(self.root, self._failing(self.root) if root.kind == "pipeline" else None, last)

    def _branch(self, span: str, failed: Position | None, last: int | None = None) -> Branch:
        own = self.ends[span]
        children: list[Branch] = []
        for below in self.below.get(span, []):
            child = self.ends[below]
            if last is not None and (child.items[-1] or 0) > last:
                continue
            around = self._failing(below) if span == self.root and child.kind == "item" else failed
            position = self._position(child)
            if around is None or position <= around[: len(position)]:
                children.append(self._branch(below, around))
        return Branch(own.kind, own.name, own.items[-1], own.status, own.error, tuple(sorted(children, key=_rank)))

    def _failing(self, span: str) -> Position | None:
        """Where the earliest failing node below a span stands."""
        todo, failing = [span], list[Position]()
        while todo:
            one = todo.pop()
            if self.ends[one].kind == "node" and self.ends[one].status == "error":
                failing.append(self._position(self.ends[one]))
            todo += self.below.get(one, [])
        return min(failing, default=None)

    def _position(self, event: Event) -> Position:
        return tuple(
            (self.order.get(event.path[: depth + 1], -1), -1 if item is None else item)
            for depth, item in enumerate(event.items)
        )


def _rank(branch: Branch) -> tuple[object, ...]:
    item = -1 if branch.item is None else branch.item
    return (branch.kind, branch.name, item, branch.status, branch.error, tuple(map(_rank, branch.children)))


def event_problems(events: Iterable[Event]) -> list[str]:
    """What is wrong with a call's events as a tree, in sentences.

    One root; every span begins once and ends once, its end after its start; a parent begins before what is in it and
    ends after that; no time is negative.
    """
    problems: list[str] = []
    begun: dict[str, Event] = {}
    open_: dict[str, int] = {}
    for event in events:
        what = f"the {event.kind} {event.where}"
        if event.phase == "start":
            if event.span in begun:
                problems.append(f"{what} begins twice")
            if event.parent and event.parent not in open_:
                problems.append(f"{what} begins outside its parent")
            if not event.parent and begun:
                problems.append(f"{what} is a second root")
            begun[event.span] = event
            open_[event.span] = 0
            if event.parent in open_:
                open_[event.parent] += 1
            continue
        if event.span not in open_:
            problems.append(f"{what} ends {'twice' if event.span in begun else 'without having begun'}")
            continue
        start = begun[event.span]
        if (start.kind, start.path, start.items, start.parent) != (event.kind, event.path, event.items, event.parent):
            problems.append(f"{what} began as the {start.kind} {start.where}")
        if open_.pop(event.span):
            problems.append(f"{what} ends before what is in it")
        if event.parent in open_:
            open_[event.parent] -= 1
        if event.seconds is None or event.seconds < 0:
            problems.append(f"{what} took {event.seconds} seconds")
        if not event.status:
            problems.append(f"{what} ends without a status")
    problems += [f"the {begun[span].kind} {begun[span].where} does not end" for span in open_]
    return problems if begun else [*problems, "nothing began"]
