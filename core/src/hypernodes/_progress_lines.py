"""Progress as plain lines, where there is no terminal to draw in: at the start, now and then on the way, at the end."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from hypernodes._events import Callback, Event, Listener, Run
from hypernodes._tally import Part, Speed, Tally, counted, duration, printable

__all__ = ["LineProgress", "summary"]


class LineProgress(Callback):
    """Writes lines like `encode: 340 of 1,000 items, 28/s, 24 s left, 2 failed, 4 workers on local:threaded`.

    One when a run begins, one when it ends, and between them at most one every `every` seconds, written when
    something begins or ends. They go to `file`, standard error if None. Raises ValueError if `every` is negative.
    """

    def __init__(self, *, every: float = 10.0, file: TextIO | None = None) -> None:
        if not every >= 0:
            raise ValueError(f"LineProgress: every={every!r} must be a number of seconds, 0 or more")
        self.every, self.file = every, file

    def __repr__(self) -> str:
        return f"LineProgress(every={self.every:g})"

    def begin(self, run: Run) -> Listener:
        return _Lines(run, self.every, self.file)


class _Lines:
    def __init__(self, run: Run, every: float, file: TextIO | None) -> None:
        self._tally = Tally(run)
        self._name = printable(run.pipeline)
        self._every, self._file = every, file
        now = time.monotonic()
        self._speed = Speed(now)
        self._due = now + every

    def __call__(self, event: Event) -> None:
        tally = self._tally
        tally(event)
        if event.kind in ("pipeline", "map"):
            if event.phase == "start":
                total = self._tally.root.total
                items = f", {counted(total, 'item')}" if tally.root.mapped and total is not None else ""
                self._write(f"{self._name}: started{items}")
            else:
                self._write(f"{self._name}: {summary(tally)}")
        elif (now := time.monotonic()) >= self._due:
            self._due = now + self._every
            self._write(f"{self._name}: {self._middle(now)}")

    def _middle(self, now: float) -> str:
        """How far the run has come."""
        root = self._tally.root
        facts = [how_far(self._tally)]
        if root.mapped:
            speed = self._speed(root.done, now)
            facts += [f"{speed:.3g}/s"] if speed else []
            facts += [f"{duration((root.total - root.done) / speed)} left"] if speed and root.total else []
        else:
            running = [part for part in self._tally.shown() if part.active and not _inside(part)]
            facts += [f"running {_listed(running)}"] if running else []
        return ", ".join(facts + _extras(self._tally))

    def _write(self, line: str) -> None:
        file = self._file or sys.stderr
        if file is not None:  # a program without a console has none
            file.write(line + "\n")
            file.flush()


def how_far(tally: Tally) -> str:
    """`340 of 1,000 items`, or of nodes in a run of one item."""
    if tally.root.mapped:
        done, total = tally.root.done, tally.root.total
        return counted(done, "item") if total is None else f"{done:,} of {counted(total, 'item')}"
    nodes = tally.nodes()
    return f"{sum(part.settled for part in nodes):,} of {counted(len(nodes), 'node')}"


def summary(tally: Tally) -> str:
    """What became of a run that has ended, in one line: `ended ok in 36 s, 1,000 items, 28/s, 2 failed`."""
    took = duration(tally.seconds)
    root = tally.root
    if tally.status == "error":
        ended = f"ended with {printable(tally.error) or 'an error'} in {took}, {how_far(tally)}"
    elif tally.status == "stopped":
        ended = f"stopped after {took}, {how_far(tally)}"
    else:
        ended = f"ended ok in {took}" + (f", {counted(root.done, 'item')}" if root.mapped else "")
    speed = [f"{root.done / tally.seconds:.3g}/s"] if root.mapped and root.done > 1 and tally.seconds else []
    return ", ".join([ended, *speed, *_extras(tally)])


def _extras(tally: Tally) -> list[str]:
    failed = tally.root.spoilt if tally.root.mapped else 0
    cached, workers, places = tally.cached(), len(tally.workers()), tally.places()
    on = f" on {', '.join(map(printable, places[:3]))}{', ...' if len(places) > 3 else ''}" if places else ""
    return [
        *([f"{failed:,} failed"] if failed else []),
        *([f"{cached:,} from the cache"] if cached else []),
        *([counted(workers, "worker") + on] if workers else []),
    ]


def _inside(part: Part) -> bool:
    """Whether something inside it says more of where the run is."""
    return not part.is_node and not part.mapped and any(child.active for child in part.children[:])


def _listed(running: list[Part]) -> str:
    names = [" > ".join(map(printable, part.path[1:])) for part in running[:3] if len(part.path) > 1]
    return ", ".join([*names, *([f"{len(running) - 3} more"] if len(running) > 3 else [])])
