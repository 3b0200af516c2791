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


@node(output_name="sizes", batch_size=64)
def size_all(text: list[str]) -> list[int]:
    return [len(one) for one in text]


@node(output_name="texts")
def read(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"{number:1000}"


@node(output_name="seen")
def watch(text: str, every: int, numbers: Numbers) -> None:
    numbers.note(every)


class Numbers:
    """MiB in memory, looked at every so many items."""

    def __init__(self) -> None:
        self.done, self.at = 0, list[float]()

    def note(self, every: int) -> None:
        self.done += 1
        if self.done % every == 0:
            self.at.append(resident())


def endless() -> Iterator[dict[str, str]]:
    """Items of about a kilobyte, each made when it is asked for."""
    for number in itertools.count():
        yield {"text": f"{number:1000}"}


def stream(engine: str, kind: str, count: int) -> None:
    """Take `count` results of an endless stream; print MiB after a tenth, at the end, and the most in between."""
    one = size if kind == "item" else size_all
    pipeline = Pipeline([one], backend=LocalBackend(engine=engine, max_workers=2))
    results = pipeline.map_iter(endless(), output_name=one.outputs[0])
    numbers = Numbers()
    for _ in range(count):
        next(results)
        numbers.note(max(1, count // 100))
    results.close()  # type: ignore[attr-defined]
    show(numbers)


def flow(kind: str, count: int) -> None:
    """Run a generator of `count` items into a mapped pipeline; with "list" somebody else reads the items too."""
    inner = Pipeline([watch], name="each").as_node(input_mapping={"texts": "text"}, map_over="texts")
    last = node(lambda texts: len(texts), output_name="length")
    numbers = Numbers()
    Pipeline([read, inner, last]).run(
        count=count,
        every=max(1, count // 100),
        numbers=numbers,
        output_nodes=["seen", "length"] if kind == "list" else ["seen"],
    )
    show(numbers)


def show(numbers: Numbers) -> None:
    print(f"{numbers.at[9]:.1f} {numbers.at[-1]:.1f} {max(numbers.at):.1f}")


def main() -> None:
    if not os.path.exists("/proc/self/statm"):
        sys.exit("this benchmark reads /proc, which this system does not have")
    columns = ("items", "MiB after a tenth", "MiB at the end", "the most", "bytes more an item")
    table = Table("Memory of map_iter over an endless stream, items of 1 kB (goal: flat)", "engine", "nodes", *columns)
    for engine in ("sequential", "async", "threaded", "multiprocess"):
        for kind in ("item", "batch"):
            measured(table, 100_000 if engine == "async" else 1_000_000, engine, kind)
    table = Table("Memory of one run: a generator of 1 kB items, each read by a mapped pipeline", "how", *columns)
    measured(table, 1_000_000, "flow")
    measured(table, 100_000, "list")


def measured(table: Table, count: int, *how: str) -> None:
    count = count // 10 if QUICK else count
    done = subprocess.run([sys.executable, __file__, *how, str(count)], check=True, capture_output=True, text=True)
    early, late, most = map(float, done.stdout.split())
    growth = (late - early) * 2**20 / (0.9 * count)
    table.row(*how, f"{count:,}", f"{early:.1f}", f"{late:.1f}", f"{most:.1f}", f"{growth:.1f}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        stream(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    elif len(sys.argv) == 3:
        flow(sys.argv[1], int(sys.argv[2]))
    else:
        main()
