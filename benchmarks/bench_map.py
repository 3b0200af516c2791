"""What a map costs over the loop, the semaphore, the thread pool or the process pool written by hand."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy
from _measure import Pair, Table, chosen, compare
from _shapes import chain, functions

from hypernodes import LocalBackend, Pipeline, node

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sequential() -> None:
    table = Table("Sequential map, 3 trivial nodes")
    made, items = chain(3), [{"x": at} for at in range(100_000)]
    call0, call1, call2 = functions([("v0", ["x"]), ("v1", ["v0"]), ("v2", ["v1"])]).values()

    def rows() -> list[dict[str, int]]:
        results = []
        for item in items:
            v0 = call0(item["x"])
            v1 = call1(v0)
            v2 = call2(v1)
            results.append({"v0": v0, "v1": v1, "v2": v2})
        return results

    def values() -> list[int]:
        return [call2(call1(call0(item["x"]))) for item in items]

    def columns() -> dict[str, list[int]]:
        v0 = [call0(x) for x in xs]
        v1 = [call1(value) for value in v0]
        return {"v0": v0, "v1": v1, "v2": [call2(value) for value in v1]}

    xs = [item["x"] for item in items]
    pipeline = made.pipeline
    assert pipeline.map(items) == rows()
    assert pipeline.map(inputs={"x": xs}, map_over="x") == columns()
    table.pair("100,000 rows to dicts", compare(lambda: pipeline.map(items), rows, turns=15), "<= 1.3")
    table.pair("100,000 rows to values", compare(lambda: pipeline.map(items, output_name="v2"), values, turns=15))
    pair = compare(lambda: pipeline.map(inputs={"x": xs}, map_over="x"), columns, turns=15)
    table.pair("100,000 in columns", pair)

    def keeping() -> list[Any]:
        results: list[Any] = []
        for item in items:
            try:
                v0 = call0(item["x"])
                v1 = call1(v0)
                v2 = call2(v1)
                results.append({"v0": v0, "v1": v1, "v2": v2})
            except Exception as error:
                results.append(error)
        return results

    pair = compare(lambda: pipeline.map(items, on_error="return"), keeping, turns=15)
    table.pair("100,000 rows, on_error='return'", pair)

    def stream() -> int:
        count = 0
        for item in items:
            v0 = call0(item["x"])
            v1 = call1(v0)
            v2 = call2(v1)
            count += len({"v0": v0, "v1": v1, "v2": v2})
        return count

    pair = compare(lambda: sum(len(row) for row in pipeline.map_iter(items)), stream, turns=15)
    table.pair("100,000 rows, map_iter", pair)


def nested_map() -> None:
    table = Table("A pipeline mapped inside a pipeline, sequential")
    inner = chain(3).pipeline
    outer = Pipeline([inner.as_node(input_mapping={"xs": "x"}, map_over="xs")])
    call0, call1, call2 = functions([("v0", ["x"]), ("v1", ["v0"]), ("v2", ["v1"])]).values()
    xs = list(range(100_000))

    def plain() -> dict[str, list[int]]:
        lists: tuple[list[int], ...] = ([], [], [])
        for x in xs:
            v0 = call0(x)
            v1 = call1(v0)
            v2 = call2(v1)
            for made, value in zip(lists, (v0, v1, v2), strict=True):
                made.append(value)
        return dict(zip(("v0", "v1", "v2"), lists, strict=True))

    assert outer.run(xs=xs) == plain()
    table.pair("run over a list of 100,000", compare(lambda: outer.run(xs=xs), plain, turns=15))


@node(output_name="after")
async def yields(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


@node(output_name="after")
async def waits(x: int) -> int:
    await asyncio.sleep(0.001)
    return x + 1


def asynchronous() -> None:
    table = Table("Async map of 10,000 items, 100 at once, over asyncio with a semaphore")
    items = [{"x": at} for at in range(10_000)]

    async def gathered(function: Callable[[int], Any]) -> list[dict[str, int]]:
        bound = asyncio.Semaphore(100)

        async def one(item: dict[str, int]) -> dict[str, int]:
            async with bound:
                return {"after": await function(item["x"])}

        return await asyncio.gather(*[one(item) for item in items])

    async def workers(function: Callable[[int], Any]) -> list[dict[str, int]]:
        results: list[Any] = [None] * len(items)
        feed = enumerate(items)

        async def worker() -> None:
            for at, item in feed:
                results[at] = {"after": await function(item["x"])}

        await asyncio.gather(*[worker() for _ in range(100)])
        return results

    for what, made in (("await sleep(0)", yields), ("await sleep(0.001)", waits)):
        pipeline = Pipeline([made], backend=LocalBackend(engine="async", max_workers=100))
        assert pipeline.map(items) == asyncio.run(gathered(made.func)) == asyncio.run(workers(made.func))
        for how, plain, goal in (("semaphore", gathered, "<= 1.15"), ("100 workers by hand", workers, "")):
            pair = compare(
                lambda pipeline=pipeline: pipeline.map(items),
                lambda plain=plain, made=made: asyncio.run(plain(made.func)),
                turns=15,
            )
            table.pair(f"{what}, {how}", pair, goal)


def block(x: int) -> int:
    time.sleep(0.002)
    return x + 1


def trivial(x: int) -> int:
    return x + 1


def compute(x: int) -> int:
    """About 5 ms of work that holds the interpreter."""
    ends = time.process_time() + 0.005
    while time.process_time() < ends:
        x += 1
    return 1


def copied(array: Any) -> Any:
    return array + 1


def threads() -> None:
    table = Table("Threads, 8 of them, over a warm ThreadPoolExecutor.map")
    backend = LocalBackend(engine="threaded", max_workers=8)
    with ThreadPoolExecutor(8) as pool, backend:
        for what, function, count, goal in (
            ("1,000 items that block for 2 ms", block, 1000, "<= 1.1"),
            ("20,000 trivial items", trivial, 20_000, "<= 1.1"),
        ):
            pair = mapped(function, count, backend, lambda function, xs: list(pool.map(function, xs)))
            table.pair(what, pair, goal)


def mapped(function: Callable[[Any], Any], count: int, backend: LocalBackend, plain: Any, turns: int = 15) -> Pair:
    pipeline = Pipeline([node(function, output_name="y")], backend=backend)
    (name,) = pipeline.input_names
    items, values = [{name: at} for at in range(count)], list(range(count))
    assert pipeline.map(items, output_name="y") == plain(function, values)
    return compare(lambda: pipeline.map(items, output_name="y"), lambda: plain(function, values), turns=turns)


def processes() -> None:
    table = Table(
        f"Processes, {CORES} of them, over a warm ProcessPoolExecutor.map (speed: theirs over ours)",
        "what", "hypernodes", "plain", "speed", "goal",
    )  # fmt: skip
    backend = LocalBackend(engine="multiprocess", max_workers=CORES)
    with ProcessPoolExecutor(CORES) as pool, backend:
        for what, function, count, sizes in (
            ("100,000 trivial items", trivial, 100_000, (256, 1024, 4096, 16_384)),
            ("400 items of 5 ms", compute, 400, (1, 4, 16, 50)),
        ):
            size = min(sizes, key=lambda size: timed(lambda: list(pool.map(function, range(count), chunksize=size))))  # noqa: B023

            def plain(function: Callable[[Any], Any], values: Any, size: int = size) -> list[Any]:
                return list(pool.map(function, values, chunksize=size))

            pair = mapped(function, count, backend, plain, turns=9)
            speed(table, f"{what} (best of {len(sizes)} chunk sizes: {size})", pair, ">= 0.95")
        arrays = [numpy.zeros(20_000_000 // 8) for _ in range(8)]
        pipeline = Pipeline([node(copied, output_name="y")], backend=backend)
        items = [{"array": array} for array in arrays]
        pair = compare(
            lambda: pipeline.map(items, output_name="y"), lambda: list(pool.map(copied, arrays)), turns=7, warmups=1
        )
        speed(table, "8 arrays of 20 MB there and back", pair, ">= 0.8")


def speed(table: Table, what: str, pair: Pair, goal: str) -> None:
    table.row(what, chosen(pair.ours), chosen(pair.theirs), f"{1 / pair.ratio:.2f}", goal)


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    sequential()
    nested_map()
    asynchronous()
    threads()
    processes()
