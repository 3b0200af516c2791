"""Ray: what an item costs beside a task for each, how near to ideal items of 50 ms come, how soon the first is there.

It starts a cluster of two CPUs on this machine.
"""

from __future__ import annotations

import asyncio
import resource as usage
import statistics
import time
from collections.abc import Callable
from typing import Any

from _measure import QUICK, Table

from hypernodes import Pipeline, RayBackend, node

WORKERS = 2
TURNS = 3 if QUICK else 5
AT_ONCE = 200
"""Coroutines that two workers await at once."""


def add(x: int) -> int:
    return x + 1


def chain() -> list[Any]:
    names = ["x", "a", "b", "c", "d"]
    functions = [eval(f"lambda {taken}: {taken} + 1") for taken in names[:-1]]
    return [node(function, output_name=name) for function, name in zip(functions, names[1:], strict=True)]


def sleep(x: int) -> int:
    time.sleep(0.05)
    return x


async def wait(x: int, seconds: float = 0.05) -> int:
    await asyncio.sleep(seconds)
    return x


def uneven(x: int) -> float:
    return 1.0 if x % 50 == 7 else 0.02


def median(call: Callable[[], object], turns: int = TURNS) -> float:
    found = []
    for _ in range(turns):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def peak() -> float:
    return usage.getrusage(usage.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    items = 1_000 if QUICK else 10_000
    rows = [{"x": x} for x in range(items)]
    with RayBackend(num_cpus=WORKERS, log_to_driver=False) as backend:
        import ray

        tiny = Pipeline(nodes=chain(), backend=backend)
        tiny.map(rows)
        remote = ray.remote(add)
        few = rows[: items // 10]
        out = Table("Tiny items on Ray", "what", "each item", "goal")
        out.row(f"{items:,} items x 4 tiny nodes", f"{median(lambda: tiny.map(rows)) / items * 1e6:.1f} us", "<= 30 us")
        alone = median(lambda: ray.get([remote.remote(row["x"]) for row in few])) / len(few)
        out.row("a bare task for each item", f"{alone * 1e6:.0f} us", "")

        slow = Pipeline(nodes=[node(sleep, output_name="y")], backend=backend)
        count = 20 if QUICK else 200
        slow_rows = rows[:count]
        slow.map(slow_rows[:8])
        ideal = count * 0.05 / WORKERS
        out = Table("Longer items on Ray", "what", "measured", "goal")
        out.row(f"{count} items of 50 ms, over ideal", f"{median(lambda: slow.map(slow_rows)) / ideal:.2f}", "<= 1.1")

        def first() -> None:
            stream = slow.map_iter(slow_rows, output_name="y")
            next(stream)
            stream.close()

        out.row("the first of them", f"{median(first, 3) * 1e3:.0f} ms", "<= 100 ms")
        asynchronous = Pipeline(nodes=[node(wait, output_name="y")], backend=backend)
        asynchronous.map(few)
        out.row(f"{len(few):,} coroutines of 50 ms", f"{median(lambda: asynchronous.map(few)):.2f} s", "")

        for what, latency in (("each of 0.5 s", lambda x: 0.5), ("of 20 ms, each 50th of 1 s", uneven)):
            calls = [{"x": x, "seconds": latency(x)} for x in range(400)]
            ideal = max(max(row["seconds"] for row in calls), sum(row["seconds"] for row in calls) / AT_ONCE)
            took = median(lambda calls=calls: asynchronous.map(calls), 3)  # type: ignore[misc]
            out.row(f"400 coroutines {what}, over ideal", f"{took / ideal:.2f}", "")

        def stream(count: int) -> float:
            for _ in tiny.map_iter({"x": x} for x in range(count)):
                pass
            return peak()

        before, many = stream(5 * items), 50 * items
        out.row(f"memory of this process, {many:,} items for a tenth", f"+{stream(many) - before:.1f} MB", "flat")


if __name__ == "__main__":
    main()
