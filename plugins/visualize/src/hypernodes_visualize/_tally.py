"""What is kept of a run's events: exact sums for each node, a bounded sample of its calls, and the failures."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypernodes import Event

__all__ = ["MOST_BARS", "MOST_FAILURES", "Bar", "Fault", "Lane", "NodeSum", "Tally"]

MOST_BARS = 20_000
"""Calls kept one by one; of more, each has the same chance to be kept."""

MOST_FAILURES = 1_000
"""Failures listed one by one; all are counted."""

_SAMPLE = 1_000
"""Durations kept of each node, for its median."""

Path = tuple[str, ...]
Items = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One call of one node. Times are seconds, `start` since the epoch."""

    path: Path
    items: Items
    lane: tuple[str, str]
    start: float
    seconds: float
    status: str
    error: str


@dataclass(slots=True)
class NodeSum:
    """All calls of one node: exact but for the median, which past 1,000 calls is that of a sample."""

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    cached: int = 0
    errors: int = 0
    sample: list[float] = field(default_factory=list)

    @property
    def ran(self) -> int:
        return self.count - self.cached

    @property
    def median(self) -> float:
        ordered = sorted(self.sample)
        middle = len(ordered) // 2
        if not ordered:
            return 0.0
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(slots=True)
class Lane:
    """One worker at one place: how many calls it had, and how long they took."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Fault:
    """A failing node, item or run. `message` may hold users' values."""

    where: str
    path: Path
    kind: str
    place: str = ""
    message: str = ""


class Tally:
    """Takes events in, in any number, and stays small: it grows with the pipeline, not with its items."""

    def __init__(self) -> None:
        self.nodes: dict[Path, NodeSum] = {}
        self.lanes: dict[tuple[str, str], Lane] = {}
        self.bars: list[Bar] = []
        self.calls = 0
        self.faults: dict[tuple[Path, Items], Fault] = {}
        self.faults_left_out = 0
        self.items_ok = 0
        self.items_failed = 0
        self.items_stopped = 0
        self.top = ""  # the span of the outermost thing heard
        self.items_begun = 0
        self.began: float | None = None
        self.ended: float | None = None
        self.status = ""
        self._random = random.Random(0)  # the same report for the same events

    def take(self, event: Event) -> None:
        if event.phase == "start":
            if self.began is None:
                self.began = event.time
            if not self.top:
                self.top = event.span
            self.items_begun += event.kind == "item" and event.parent == self.top
            return
        self.ended = event.time if self.ended is None else max(self.ended, event.time)
        if event.kind == "node":
            self._node(event)
        elif event.kind == "item" and event.parent == self.top:
            self.items_ok += event.status in ("ok", "cached")
            self.items_failed += event.status == "error"
            self.items_stopped += event.status == "stopped"
        if event.failure is not None:
            failure = event.failure
            # All that is around a failure ends in it too; where it began it is counted.
            new = event.path == failure.path and event.kind != "node"
            told = failure.where, failure.type_name, failure.place, failure.message
            self._fault(failure.path, failure.items, *told, new=new)
        elif event.span == self.top and event.status == "error" and event.error:
            self._fault(event.path, event.items, event.where, event.error, "", "")

    def over(self, event: Event) -> bool:
        """Whether this event ends the outermost thing heard."""
        if event.phase != "end" or event.span != self.top:
            return False
        self.status, self.top = event.status, ""
        return True

    def _node(self, event: Event) -> None:
        seconds, path = event.seconds or 0.0, event.path
        found = self.nodes.get(path)
        if found is None:
            found = self.nodes[path] = NodeSum()
        found.count += 1
        if event.status == "cached":
            found.cached += 1
        else:
            found.seconds += seconds
            found.longest = max(found.longest, seconds)
            if len(found.sample) < _SAMPLE:
                found.sample.append(seconds)
            else:
                at = int(self._random.random() * found.ran)
                if at < _SAMPLE:
                    found.sample[at] = seconds
        key = ("cache", "") if event.status == "cached" else (event.place, event.worker)
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane()
        lane.count += 1
        lane.seconds += seconds
        self._bar(event, key, seconds)
        if event.status == "error":
            found.errors += 1
            self._fault(path, event.items, event.where, event.error, event.place, "")

    def _bar(self, event: Event, lane: tuple[str, str], seconds: float) -> None:
        self.calls += 1
        at = len(self.bars) if self.calls <= MOST_BARS else int(self._random.random() * self.calls)
        if at >= MOST_BARS:
            return
        bar = Bar(event.path, event.items, lane, event.time - seconds, seconds, event.status, event.error)
        if at == len(self.bars):
            self.bars.append(bar)
        else:
            self.bars[at] = bar

    def _fault(
        self, path: Path, items: Items, where: str, kind: str, place: str, message: str, *, new: bool = True
    ) -> None:
        known = self.faults.get((path, items))
        if known is not None:
            known.kind, known.place, known.message = kind or known.kind, place or known.place, message or known.message
        elif len(self.faults) < MOST_FAILURES:
            self.faults[path, items] = Fault(where, path, kind, place, message)
        elif new:
            self.faults_left_out += 1
