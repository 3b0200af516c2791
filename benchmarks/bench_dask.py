"""Pipelines on Dask workers, over what one would write with Dask alone, and over what is ideal; on one cluster."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from _measure import QUICK, Table
from dask import bag
from distributed import Client
from distributed.deploy.subprocess import SubprocessCluster

from hypernodes import DaskBackend, Pipeline, node

WORKERS = 2
TINY = 1_000 if QUICK else 10_000
TURNS = 3 if QUICK else 7


@node(output_name="a")
def first(x: int) -> int:
    return x + 1


@node(output_name="b")
def left(a: int) -> int:
    return 2 * a


@node(output_name="c")
def right(a: int) -> int:
    return a * a


@node(output_name="d")
def last(b: int, c: int) -> int:
    return b + c


def whole(x: int) -> int:
    """The four nodes as one plain function."""
    a = x + 1
    return 2 * a + a * a


def sleepy(x: int, seconds: float) -> int:
    time.sleep(seconds)
    return x


def main() -> None:
    with (
        SubprocessCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        DaskBackend(client) as backend,
    ):
        tiny(backend, client)
        steady(backend, client)
        wide(backend)
        memory(backend)


def tiny(backend: DaskBackend, client: Client) -> None:
    """Four tiny nodes for each of many items."""
    pipeline = Pipeline(nodes=[first, left, right, last], backend=backend)
    rows = [{"x": x} for x in range(TINY)]
    expected = [whole(x) for x in range(TINY)]

    def ours() -> list[int]:
        return pipeline.map(rows, output_name="d")

    def as_bag() -> list[int]:
        found: list[int] = bag.from_sequence(range(TINY), npartitions=64).map(whole).compute(scheduler=client)
        return found

    def by_item() -> list[int]:
        some = range(TINY // 10)
        found: list[int] = client.gather(client.map(whole, some, pure=False))
        return found

    assert ours() == expected == as_bag()
    own, bags, items = median(ours), median(as_bag), 10 * median(by_item, 1)
    table = Table(
        f"{TINY:,} items of four tiny nodes on {WORKERS} workers", "way", "seconds", "over hypernodes", "goal"
    )
    table.row("hypernodes", f"{own:.2f} s", "1", "<= 0.5 s for 10,000")
    table.row("dask.bag, 64 partitions, one function", f"{bags:.2f} s", f"{bags / own:.1f}", "")
    table.row("client.map, one task an item (of a tenth)", f"{items:.1f} s", f"{items / own:.0f}", "")


def steady(backend: DaskBackend, client: Client) -> None:
    """Items of 5 ms, all and the first of them."""
    count, seconds = (200 if QUICK else 2_000), 0.005
    wait = node(lambda x: sleepy(x, seconds), output_name="y")
    pipeline = Pipeline(nodes=[wait], backend=backend)
    rows = [{"x": x} for x in range(count)]
    to_first: list[float] = []

    def ours() -> None:
        began = time.perf_counter()
        stream = pipeline.map_iter(rows, output_name="y")
        next(stream)
        to_first.append(time.perf_counter() - began)
        assert sum(1 for _ in stream) == count - 1

    def by_item() -> None:
        client.gather(client.map(sleepy, range(count), [seconds] * count, pure=False))

    ideal = count * seconds / WORKERS
    own, items = median(ours, 3), median(by_item, 1)
    table = Table(f"{count:,} items of 5 ms", "way", "all", "over ideal", "first", "goal")
    told = f"{statistics.median(to_first):.3f} s"
    table.row("hypernodes", f"{own:.2f} s", f"{own / ideal:.2f}", told, "<= 1.1, first <= 0.1 s")
    table.row("client.map", f"{items:.2f} s", f"{items / ideal:.2f}", "", "")


def wide(backend: DaskBackend) -> None:
    """One run of many nodes that do not need one another."""
    count, seconds = (40 if QUICK else 200), 0.02
    nodes = [node(lambda x: sleepy(x, seconds), name=f"part_{at}", output_name=f"y{at}") for at in range(count)]
    pipeline = Pipeline(nodes=nodes, backend=backend)
    ideal = count * seconds / WORKERS
    own = median(lambda: pipeline.run(x=1), 3)
    table = Table(f"One run of {count} nodes of 20 ms", "way", "seconds", "over ideal", "goal")
    table.row("hypernodes", f"{own:.2f} s", f"{own / ideal:.2f}", "<= 1.2")


def memory(backend: DaskBackend) -> None:
    """What a long stream keeps in this process."""
    pipeline = Pipeline(nodes=[first], backend=backend)
    counts = (TINY, 10 * TINY)
    table = Table("Memory of the calling process while a stream is drawn", "items", "peak", "goal")
    for count in counts:
        tracemalloc.start()
        for _ in pipeline.map_iter(({"x": x} for x in range(count)), output_name="a"):
            continue
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        table.row(f"{count:,}", f"{peak / 1e6:.1f} MB", "the same for ten times as many")


def median(call: Callable[[], Any], turns: int = TURNS) -> float:
    call()
    return statistics.median(_seconds(call) for _ in range(turns))


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
