"""A run as rows to draw, whatever draws them: which parts are worth a row, and what each row says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypernodes import Run
from hypernodes.plugin import Part, Speed, Tally, counted, duration, printable

__all__ = ["Note", "Picture", "Row"]

DEEPEST = 6
"""Levels of the tree that are drawn; what lies deeper stands at this level, after an ellipsis."""


@dataclass(frozen=True, slots=True)
class Note:
    """Some words of a row; `tone` is "bad", "cache" or "dim". `gap` is how many spaces stand before them."""

    text: str
    tone: str
    gap: int = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One pipeline or node. `state` is "waiting", "running", "ok", "failed", "stopped" or "more".

    `level` is how deep it stands in the tree, and `bars` the levels above at which the tree goes on below, its own
    among them. `share` is what is done of it, 0 to 1, None where that is not known; only pipelines have a bar.
    """

    state: str
    name: str
    level: int = 0
    bars: frozenset[int] = frozenset()
    is_node: bool = False
    share: float | None = None
    count: str = ""
    rate: str = ""
    left: str = ""
    elapsed: str = ""
    notes: tuple[Note, ...] = ()


class Picture:
    """Counts a run's events, and says at any time what there is to draw."""

    def __init__(self, run: Run) -> None:
        self.tally = Tally(run)
        self._speeds: dict[Part, Speed] = {}
        self._order: tuple[int, list[Part]] = (-1, [])

    def rows(self, most: int) -> list[Row]:
        """At most `most` rows, the root first. One reader at a time."""
        now = time.time()
        order = self._in_order()
        parts = chosen(order, most)
        counts = _nodes_done(order)
        rows: list[Row] = []
        following: set[int] = set()
        if len(parts) < len(order):
            following = {1}
        for part in reversed(parts):
            level = min(len(part.path) - 1, DEEPEST)
            rows.append(self._row(part, now, counts, level, frozenset(following)))
            following = {other for other in following if other < level} | {level}
        rows.reverse()
        if len(parts) < len(order) and most > 1:
            rows.append(Row("more", f"... and {len(order) - len(parts):,} more", level=1))
        return rows

    def _in_order(self) -> list[Part]:
        shape = self.tally.shape
        if self._order[0] != shape:
            self._order = (shape, list(self.tally.shown()))
        return self._order[1]

    def _row(
        self, part: Part, now: float, counts: Mapping[Part, tuple[int, int]], level: int, bars: frozenset[int]
    ) -> Row:
        done, total, certain = part.progress()
        state = self._state(part)
        ended = state not in ("running", "waiting")
        took = (part.until if ended else now) - part.since if part.since else 0.0
        elapsed = "" if not part.since or (part.is_node and part.cached) else duration(took) if ended else clock(took)
        name = ("... " if len(part.path) - 1 > DEEPEST else "") + printable(part.name)
        if part.is_node:
            return Row(state, name, level, bars, is_node=True, elapsed=elapsed, notes=self._notes(part))
        if not part.mapped and total == 1:
            nodes, all_nodes = counts.get(part, (0, 0))
            share = nodes / all_nodes if all_nodes else None
            count = f"{nodes:,}/{all_nodes:,}"
            return Row(state, name, level, bars, False, share, count, "", "", elapsed, self._notes(part))
        if part not in self._speeds:
            self._speeds[part] = Speed(part.since or now)
        speed = 0.0 if ended else self._speeds[part](done, now)
        if ended and took > 0 and done > 1:
            speed = done / took
        return Row(
            state,
            name,
            level,
            bars,
            share=done / total if total else None,
            count=f"{done:,}" if total is None else f"{done:,}/{'' if certain or ended else '~'}{total:,}",
            rate=f"{figures(speed)}/s" if speed else "",
            left=f"{clock((total - done) / speed)} left" if total and speed and not ended else "",
            elapsed=elapsed,
            notes=self._notes(part),
        )

    def _state(self, part: Part) -> str:
        status = self.tally.status
        if part is self.tally.root:
            return {"": "running", "error": "failed", "cached": "ok"}.get(status, status)
        if not part.begun:
            return "ok" if part.is_node and part.settled else "waiting"
        expected = part.expected()
        if not status and (part.active or expected is None or part.ended < expected):
            return "running"
        if part.active:
            return "stopped"
        return "failed" if part.failed else "ok"

    def _notes(self, part: Part) -> tuple[Note, ...]:
        notes = []
        if part.is_node:
            notes += [Note("failed", "bad")] if part.failed else []
            notes += [Note("from the cache", "cache")] if part.cached else []
            return tuple(notes)
        if part.broken and (part.mapped or part.progress()[1] != 1):
            notes.append(Note(f"{part.broken:,} failed", "bad"))
        whole = part is self.tally.root
        if cached := self.tally.cached() if whole else part.cached:
            notes.append(Note(f"{cached:,} cached", "cache"))
        workers = len(self.tally.workers() if whole else part.workers)
        places = self.tally.places() if whole else sorted(part.places)
        if not whole and not part.mapped and part.progress()[1] == 1 and len(places) == len(self.tally.places()):
            return tuple(notes)  # the root says it all
        if workers:
            notes.append(Note(counted(workers, "worker"), "dim"))
        if places:
            named = ", ".join(map(printable, places[:2]))
            notes.append(Note(f"on {named}{', ...' if len(places) > 2 else ''}", "dim", 1))
        return tuple(notes)


def chosen(order: Sequence[Part], most: int) -> list[Part]:
    """The parts that get a row where not all can: the root, what runs (innermost first), what failed, what is next."""
    if len(order) <= most:
        return list(order)
    room = max(1, most - 1)  # the last row says how many more there are
    active = [part for part in order[1:] if part.active]
    around = {part.parent for part in active}
    picked: dict[Part, None] = {order[0]: None}
    for group in (
        (part for part in active if part not in around),
        (part for part in reversed(active)),
        (part for part in order if part.broken),
        (part for part in order if not part.begun),
        sorted((part for part in order if part.begun), key=lambda part: -part.until),
    ):
        for part in group:
            if len(picked) >= room:
                break
            picked[part] = None
    return [part for part in order if part in picked]


def _nodes_done(order: Sequence[Part]) -> dict[Part, tuple[int, int]]:
    """How many of the nodes below each pipeline have ended, of how many."""
    counts: dict[Part, tuple[int, int]] = {}
    for part in reversed(order):
        done, total = (int(part.settled), 1) if part.is_node else counts.get(part, (0, 0))
        if part.parent is not None:
            before = counts.get(part.parent, (0, 0))
            counts[part.parent] = (before[0] + done, before[1] + total)
    return counts


def clock(seconds: float) -> str:
    """`0:07`, `1:02:03`: a form that keeps its width while it runs."""
    whole = int(max(seconds, 0.0))
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 100:
        return duration(seconds)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def figures(number: float) -> str:
    """Two or three figures that tell: `0.25`, `3.1`, `42`, `1,234`."""
    return f"{number:.2g}" if number < 1 else f"{number:.1f}" if number < 10 else f"{number:,.0f}"
