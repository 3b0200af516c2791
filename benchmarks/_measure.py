"""Two ways of doing the same, measured in turns in one process, and a table of how they compare."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Pair", "Table", "chosen", "compare", "fresh", "machine"]

QUICK = bool(os.environ.get("BENCH_QUICK"))
"""A tenth of the repeats, for trying a script out; its figures say little."""


class Pair(NamedTuple):
    """Medians in seconds for one call, and the median of the ratios within one turn (ours over theirs)."""

    ours: float
    theirs: float
    ratio: float

    @property
    def over(self) -> float:
        """Seconds that ours costs more, for one call."""
        return self.ours - self.theirs


def compare(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, turns: int = 31, calls: int = 1, warmups: int = 2
) -> Pair:
    """Call both in turns, `calls` times each a turn; who begins alternates.

    The ratio is the median of the ratios of neighbours in time: what else the machine does hits both alike. The cyclic
    collector is emptied before each side and stays on, as in a program.
    """
    for _ in range(warmups):
        ours(), theirs()
    measured = []
    for turn in range(max(3, turns // 10 if QUICK else turns)):
        if turn % 2:
            second = _seconds(theirs, calls)
            first = _seconds(ours, calls)
        else:
            first = _seconds(ours, calls)
            second = _seconds(theirs, calls)
        measured.append((first, second))
    return Pair(
        statistics.median(first for first, _ in measured),
        statistics.median(second for _, second in measured),
        statistics.median(first / second for first, second in measured),
    )


def fresh(make: Callable[[], Callable[[], Any]], *, turns: int = 9) -> float:
    """Seconds of this process's CPU for something that can be done only once with what `make` makes; a median."""
    return statistics.median(_cpu_seconds(make()) for _ in range(3 if QUICK else turns))


def _cpu_seconds(call: Callable[[], Any]) -> float:
    # There is no plain counterpart to take turns with, so other programs' share of the machine has to be left out.
    gc.collect()
    started = time.process_time()
    call()
    return time.process_time() - started


def _seconds(call: Callable[[], Any], calls: int) -> float:
    gc.collect()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls


def chosen(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def machine() -> str:
    """What this ran on, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}, {cores} cores"


class Table:
    """Rows of a Markdown table, printed as they come; `goal` is what the project aims at, nothing enforces it."""

    def __init__(self, title: str, *columns: str) -> None:
        self.columns = columns or ("what", "hypernodes", "plain", "ratio", "goal")
        print(f"\n{title} ({machine()})\n")
        self._print(self.columns)
        self._print(["---"] * len(self.columns))

    def pair(self, what: str, pair: Pair, goal: str = "") -> None:
        """One comparison."""
        self.row(what, chosen(pair.ours), chosen(pair.theirs), f"{pair.ratio:.2f}", goal)

    def row(self, *cells: str) -> None:
        self._print(cells)

    @staticmethod
    def _print(cells: Any) -> None:
        print("| " + " | ".join(cells) + " |", flush=True)
