"""What a run has done so far, counted from its events: the numbers behind every form of progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from hypernodes._events import Event, Run

__all__ = ["Part", "Speed", "Tally", "counted", "duration", "printable"]


class Part:
    """One node or pipeline of a run, all its calls together.

    `begun`, `ended`, `failed` count its calls. A mapped pipeline counts its items too: `total` is how many the maps
    that have begun will have, None where that is not known, and `done` how many have ended, the `spoilt` ones among
    them. `cached` counts nodes that the cache spared: the node itself, or those that stand directly in the pipeline.
    `since` and `until` are its first start and its last end, in seconds since the epoch, 0.0 for not yet.
    """

    __slots__ = (
        *("begun", "cached", "children", "done", "ended", "failed", "is_node", "mapped", "parent", "path", "places"),
        *("since", "spoilt", "started", "total", "until", "workers"),
    )

    def __init__(self, path: tuple[str, ...], parent: Part | None, is_node: bool) -> None:
        self.path, self.parent, self.is_node = path, parent, is_node
        self.mapped = False
        self.begun = self.ended = self.failed = self.cached = 0
        self.started = self.done = self.spoilt = 0
        self.total: int | None = 0
        self.since = self.until = 0.0
        self.children: list[Part] = []
        self.workers: set[str] = set()
        self.places: set[str] = set()

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else ""

    @property
    def active(self) -> bool:
        """Whether a call of it runs now."""
        return self.begun > self.ended

    @property
    def settled(self) -> bool:
        """Whether a node that runs once is over, or will not be heard of: a pipeline around it has ended well."""
        if self.begun:
            return self.ended > 0
        above = self.parent
        while above is not None and not above.begun:
            above = above.parent
        return above is not None and above.ended > above.failed and not above.active

    @property
    def broken(self) -> int:
        """How many items failed, or calls where it is not mapped."""
        return self.spoilt if self.mapped else self.failed

    def expected(self) -> int | None:
        """How many calls of it the run will make if nothing fails; None where that is not known yet."""
        above = []
        part = self.parent
        while part is not None:
            if part.mapped:
                above.append(part)
            part = part.parent
        calls = 1
        for part in reversed(above):
            if part.total is None or part.begun != calls:
                return None
            calls = part.total
        return calls

    def progress(self) -> tuple[int, int | None, bool]:
        """Items or calls done, of how many (None: not known), and whether that number is certain.

        The items of maps that have not begun, or do not say how many they have, are as many as the others make expect.
        """
        expected = self.expected()
        if not self.mapped:
            return self.ended, expected, expected is not None
        if self.parent is None or (self.begun == expected and self.total is not None):
            return self.done, self.total, True
        if self.ended == expected:
            return self.done, self.done, True
        if expected is None or not self.begun:
            return self.done, None, False
        if self.total:
            return self.done, max(round(self.total / self.begun * expected), self.total), False
        return self.done, max(round(self.done / self.ended * expected), self.done) if self.ended else None, False


class Tally:
    """Counts the events of one run. Call it with each event, one at a time; any thread may read it meanwhile.

    What belongs to an end, such as its failure, is counted before it, so that no reader sees one without the other.
    `parts` grows and is never reordered: a reader needs no lock. `status` is "" until the run has ended.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.root = Part((run.pipeline,), None, is_node=False)
        self.root.mapped, self.root.total = run.kind == "map", run.total
        self.parts = [self.root]
        self._by_path = {self.root.path: self.root}
        self.shape = 0
        """Grows when parts were added or turned out to be mapped."""
        self.status = ""
        self.error = ""
        self.seconds = 0.0
        for path, _ in run.steps:
            if path not in self._by_path:
                self._add(path, is_node=True)

    def __call__(self, event: Event) -> None:
        # On the path of every node: dictionary look-ups and additions, nothing else.
        kind = event.kind
        if kind == "node":
            part = self._by_path.get(event.path) or self._add(event.path, is_node=True)
            if event.phase == "start":
                part.begun += 1
                part.since = event.time
                return
            above = part.parent
            assert above is not None
            if event.status == "error":
                part.failed += 1
            elif event.status == "cached":
                part.cached += 1
                above.cached += 1
            if event.worker:
                above.workers.add(event.worker)
            if event.place:
                above.places.add(event.place)
            part.until = event.time
            part.ended += 1
        elif kind == "item":
            part = self._by_path.get(event.path) or self._add(event.path, is_node=False)
            if event.phase == "start":
                part.started += 1
                if not part.mapped:
                    self._is_mapped(part, None)
            elif event.status != "stopped":
                if event.status == "error":
                    part.spoilt += 1
                part.done += 1
        elif kind not in ("place", "resource"):
            self._call(event)

    def workers(self) -> set[str]:
        """Every worker that has run a node so far."""
        return {worker for part in self.parts[:] for worker in tuple(part.workers)}

    def places(self) -> list[str]:
        """Every place where a node has run so far, by name."""
        return sorted({place for part in self.parts[:] for place in tuple(part.places)})

    def cached(self) -> int:
        """How many nodes the cache has spared."""
        return sum(part.cached for part in self.parts[:] if not part.is_node)

    def shown(self) -> Iterator[Part]:
        """The parts in the order of a tree, each with what is below it; not the nodes that run once for each item."""
        waiting = [(self.root, False)]
        while waiting:
            part, hidden = waiting.pop()
            yield part
            hidden = hidden or part.mapped
            waiting += [(child, hidden) for child in reversed(part.children[:]) if not (hidden and child.is_node)]

    def nodes(self) -> list[Part]:
        """The nodes that run once at most."""
        return [part for part in self.shown() if part.is_node]

    def _call(self, event: Event) -> None:
        """A pipeline, a map or a nested pipeline began or ended."""
        if event.kind == "nested":
            part = self._by_path.get(event.path) or self._add(event.path, is_node=False)
        else:
            part = self.root
        if event.phase == "start":
            part.begun += 1
            part.since = part.since or event.time
            if event.total is not None and part is not self.root:
                self._is_mapped(part, event.total)
            return
        if event.status == "error":
            part.failed += 1
        part.until = event.time
        part.ended += 1
        if part is self.root:
            self.seconds = event.seconds or 0.0
            self.error = event.error
            self.status = event.status or "ok"

    def _is_mapped(self, part: Part, total: int | None) -> None:
        if not part.mapped:
            part.mapped = True
            self.shape += 1
        part.total = None if total is None or part.total is None else part.total + total

    def _add(self, path: tuple[str, ...], is_node: bool) -> Part:
        """A new part, with the pipelines around it that are not known yet."""
        known = len(path) - 1
        while known > 0 and path[:known] not in self._by_path:
            known -= 1
        part = self._by_path.get(path[:known], self.root)
        part.is_node = False
        for length in range(known + 1, len(path) + 1):
            below = Part(path[:length], part, is_node and length == len(path))
            self._by_path[below.path] = below
            self.parts.append(below)
            part.children.append(below)
            part = below
        self.shape += 1
        return part


class Speed:
    """Items a second over the last half minute or so, since what came from the cache says little of what will not."""

    def __init__(self, now: float) -> None:
        self._seen: deque[tuple[float, int]] = deque([(now, 0)], maxlen=32)

    def __call__(self, done: int, now: float) -> float:
        """`done` items are done at the time `now`, in seconds. 0.0 as long as nothing can be said."""
        then, before = self._seen[0]
        if now - self._seen[-1][0] >= 1.0:
            self._seen.append((now, done))
        return (done - before) / (now - then) if now > then and done > before else 0.0


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.012 s`, `3.5 s`, `42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if seconds < 0.9995:
        return f"{max(seconds, 0.0):.3f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def counted(count: int, what: str) -> str:
    """`1 item`, `1,200 items`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Text with every character escaped that could steer a terminal, break a line or turn its direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
