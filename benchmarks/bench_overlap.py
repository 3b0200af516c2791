"""How well the parts of a pipeline overlap under the strategy "stream", over what overlap could give at best."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

from _measure import QUICK, Table

from hypernodes import LocalBackend, Pipeline, node

ITEMS, SECONDS = (100 if QUICK else 400), 0.005


def main() -> None:
    table = Table(
        f"Three stages of equal time, each one call at a time; {ITEMS} items on threads",
        *("stages", "hypernodes", "ideal", "ideal over hypernodes", "goal"),
    )
    threads = LocalBackend(engine="threaded", max_workers=6, map_strategy="stream")
    for what, batch in (("item, item, item", 0), ("item, batch of 16, item", 16)):
        pipeline = three(batch, threads)
        rows = [{"x": x} for x in range(ITEMS)]
        with threads:
            pipeline.map(rows[:32])
            taken = statistics.median(
                seconds(lambda pipeline=pipeline, rows=rows: pipeline.map(rows)) for _ in range(3)
            )
        # No stage ever pauses, but to fill and to drain the pipeline.
        ideal = (ITEMS + (2 if not batch else 2 * batch)) * SECONDS
        table.row(what, f"{taken:.3f} s", f"{ideal:.3f} s", f"{ideal / taken:.2f}", ">= 0.9")


def three(batch: int, backend: LocalBackend) -> Pipeline:
    """Three nodes that sleep for the same time per item, each of which is busy with one call at a time."""
    first, middle, last = (threading.Lock() for _ in range(3))

    @node(output_name="a")
    def before(x: int) -> int:
        with first:
            time.sleep(SECONDS)
        return x

    if batch:

        @node(output_name="b", batch_size=batch)
        def together(a: list[int]) -> list[int]:
            with middle:
                time.sleep(SECONDS * len(a))
            return a

    else:

        @node(output_name="b")
        def together(a: int) -> int:
            with middle:
                time.sleep(SECONDS)
            return a

    @node(output_name="c")
    def after(b: int) -> int:
        with last:
            time.sleep(SECONDS)
        return b

    return Pipeline([before, together, after], backend=backend)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
