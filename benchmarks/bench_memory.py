"""How much memory a stream takes as it goes on: it should not grow with the number of items."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

from _measure import QUICK, Table

from hypernodes import LocalBackend, Pipeline, node


@node(output_name="size")
def size(text: str) -> int:
    return len(text)


def resident() -> float:
    """MiB of this process that lie in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def endless() -> Iterator[dict[str, str]]:
    """Items of about a kilobyte, each made when it is asked for."""
    for number in itertools.count():
        yield {"text": f"{number:1000}"}


def stream(engine: str, count: int) -> None:
    """Take `count` results of an endless stream; print MiB after a tenth, at the end, and the most in between."""
    pipeline = Pipeline([size], backend=LocalBackend(engine=engine, max_workers=2))
    results = pipeline.map_iter(endless(), output_name="size")
    most = early = 0.0
    for done in range(1, count + 1):
        next(results)
        if done % max(1, count // 100) == 0:
            now = resident()
            most = max(most, now)
            early = early or (now if done >= count // 10 else 0.0)
    late = resident()
    results.close()  # type: ignore[attr-defined]
    print(f"{early:.1f} {late:.1f} {most:.1f}")


def main() -> None:
    if not os.path.exists("/proc/self/statm"):
        sys.exit("this benchmark reads /proc, which this system does not have")
    table = Table(
        "Memory of map_iter over an endless stream, items of 1 kB (goal: flat)",
        "engine", "items", "MiB after a tenth", "MiB at the end", "the most", "bytes more an item",
    )  # fmt: skip
    for engine, count in (
        ("sequential", 1_000_000),
        ("async", 100_000),
        ("threaded", 1_000_000),
        ("multiprocess", 1_000_000),
    ):
        count = count // 10 if QUICK else count
        done = subprocess.run(
            [sys.executable, __file__, engine, str(count)], check=True, capture_output=True, text=True
        )
        early, late, most = map(float, done.stdout.split())
        growth = (late - early) * 2**20 / (0.9 * count)
        table.row(engine, f"{count:,}", f"{early:.1f}", f"{late:.1f}", f"{most:.1f}", f"{growth:.1f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        stream(sys.argv[1], int(sys.argv[2]))
    else:
        main()
