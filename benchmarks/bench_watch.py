"""What it costs to watch a run: each event that a callback hears, and a whole map with progress on."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Callable

from _measure import QUICK, Table, chosen, compare

from hypernodes import Callback, Event, LocalBackend, LoggingCallback, Pipeline, Run, node
from hypernodes.plugin import LineProgress

ITEMS = 100 if QUICK else 400


def terminal() -> Callback:
    """`ProgressCallback` in a terminal of its own, whose other end a thread reads as fast as it can."""
    import pty
    import threading

    from rich.console import Console

    from hypernodes import ProgressCallback

    ours, theirs = pty.openpty()

    def read() -> None:
        while os.read(ours, 1 << 16):
            pass

    threading.Thread(target=read, daemon=True).start()
    file = os.fdopen(theirs, "w", encoding="utf-8")
    return ProgressCallback(console=Console(file=file, force_terminal=True, width=120, height=40))


def quiet() -> Callback:
    logging.getLogger("hypernodes.bench").setLevel(logging.ERROR)
    return LoggingCallback("hypernodes.bench")


class Nothing(Callback):
    """Hears everything and does nothing, so that what is left is the cost of the events themselves."""

    def begin(self, run: Run) -> Callable[[Event], object]:
        return lambda event: None


CALLBACKS: dict[str, Callable[[], Callback]] = {
    "a callback that does nothing": Nothing,
    "LoggingCallback, level off": quiet,
    "LineProgress": lambda: LineProgress(file=io.StringIO()),
    "ProgressCallback in a terminal": terminal,
}


def events() -> None:
    """The listener alone, over the events of one map that was recorded."""
    table = Table("One event", "listener", "an event", "goal")
    heard: list[Event] = []
    runs: list[Run] = []

    class Keep(Callback):
        def begin(self, run: Run) -> Callable[[Event], object]:
            runs.append(run)
            return heard.append

    trivial(Keep()).map([{"x": index} for index in range(ITEMS)])
    inside = heard[1:-1]  # the first and the last open and close a display
    for what, make in CALLBACKS.items():
        listener = make().begin(runs[0])
        if listener is None:
            table.row(what, "not called", "")
            continue
        best = float("inf")
        listener(heard[0])
        for _ in range(3 if QUICK else 20):
            started = time.perf_counter()
            for event in inside:
                listener(event)
            best = min(best, (time.perf_counter() - started) / len(inside))
        listener(heard[-1])
        table.row(what, chosen(best), "a few µs")


@node(output_name="y")
def add_one(x: int) -> int:
    return x + 1


@node(output_name="y")
def compute(x: int) -> int:
    """A millisecond of work that holds the interpreter all the while."""
    until = time.perf_counter() + 1e-3
    while time.perf_counter() < until:
        pass
    return x


@node(output_name="y")
def wait(x: int) -> int:
    """A millisecond of waiting."""
    time.sleep(1e-3)
    return x


def trivial(callback: Callback) -> Pipeline:
    return Pipeline([add_one], name="trivial", callbacks=[callback])


def maps() -> None:
    """A map of nodes of 1 ms each, with progress over without, and over a callback that does nothing."""
    table = Table("Nodes of 1 ms", "what", "progress", "unwatched", "ratio", "over an idle callback", "goal")
    rows = [{"x": index} for index in range(ITEMS)]
    for kind, function in (("working", compute), ("waiting", wait)):
        for engine in ("sequential", "threaded"):
            workers = 4 if engine == "threaded" else None
            plain = Pipeline([function], name="plain", backend=LocalBackend(engine=engine, max_workers=workers))
            heard = plain.with_options(callbacks=[Nothing()])
            shown = plain.with_options(callbacks=[terminal()])
            whole = compare(lambda w=shown: w.map(rows), lambda p=plain: p.map(rows), turns=9, warmups=1)
            drawn = compare(lambda w=shown: w.map(rows), lambda h=heard: h.map(rows), turns=9, warmups=1)
            table.row(
                f"{kind}, {engine}",
                chosen(whole.ours),
                chosen(whole.theirs),
                f"{whole.ratio:.3f}",
                f"{drawn.ratio:.3f}",
                "<= 1.02",
            )


if __name__ == "__main__":
    events()
    maps()
