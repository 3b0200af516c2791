"""The engine `daft`: what a map on it costs, and what it gains where data begins and ends in Daft."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import QUICK, Table, chosen, compare, machine

from hypernodes import DaftEngine, LocalBackend, Pipeline, node
from hypernodes_daft import _runner, map_frame, native

daft = _runner.native()
col = daft.col
ITEMS = 10_000 if QUICK else 100_000
WAITS, IN_FLIGHT, SECONDS = (2_000 if QUICK else 10_000), 1_000, 0.05
ROWS = 100_000 if QUICK else 1_000_000


def main() -> None:
    print(machine())
    tiny_nodes()
    waits()
    files()


@node(output_name="more")
def add_one(x: int) -> int:
    return x + 1


@node(output_name="text")
def as_text(more: int) -> str:
    return str(more)


@node(output_name="loud")
def shout(text: str) -> str:
    return text + "!"


@node(output_name="length")
def measure(loud: str) -> int:
    return len(loud)


TINY = [add_one, as_text, shout, measure]


def tiny_nodes() -> None:
    """Against a Daft function for each node, typed by its hints: the obvious way, which changes values."""
    pipeline = Pipeline(nodes=list(TINY))
    on_daft = pipeline.with_backend(LocalBackend(engine=DaftEngine(partitions=50)))
    rows = [{"x": x} for x in range(ITEMS)]

    def naive() -> Any:
        frame = daft.from_pydict({"x": list(range(ITEMS))})
        for each, kind in zip(TINY, ("int64", "string", "string", "int64"), strict=True):
            function = daft.func(each.func, return_dtype=getattr(daft.DataType, kind)())
            frame = frame.with_column(each.outputs[0], function(col(each.parameters[0].name)))
        return frame.exclude("x").to_pylist()

    assert on_daft.map(rows) == naive() == pipeline.map(rows)
    before = peak()
    on_daft.map(rows)
    more = peak() - before
    table = Table(
        f"{ITEMS:,} items x 4 tiny Python nodes, lists in, lists out",
        *("what", "hypernodes on Daft", "the other", "ratio", "CPU", "goal"),
    )
    for what, other, turns in (
        ("a Daft function for each node", naive, 5),
        ("the sequential engine", lambda: pipeline.map(rows), 9),
    ):
        pair = compare(lambda: on_daft.map(rows), other, turns=turns)
        table.row(
            what,
            chosen(pair.ours),
            chosen(pair.theirs),
            f"{pair.ratio:.2f}",
            chosen(cpu(lambda: on_daft.map(rows))),
            "<= 0.5 s",
        )
    print(f"\nmemory at its peak: {peak():.0f} MB; another map of {ITEMS:,} items added {more:.0f} MB")


@node(output_name="y")
async def wait(x: int) -> int:
    await asyncio.sleep(SECONDS)
    return x


def waits() -> None:
    pipeline = Pipeline(nodes=[wait], backend=LocalBackend(engine=DaftEngine(), max_workers=IN_FLIGHT))
    rows = [{"x": x} for x in range(WAITS)]

    async def gathered() -> list[int]:
        turn = asyncio.Semaphore(IN_FLIGHT)

        async def one(x: int) -> int:
            async with turn:
                return await wait(x)

        return await asyncio.gather(*(one(x) for x in range(WAITS)))

    pair = compare(lambda: pipeline.map(rows, output_name="y"), lambda: asyncio.run(gathered()), turns=9)
    table = Table(
        f"{WAITS:,} coroutines of {SECONDS * 1000:.0f} ms, {IN_FLIGHT:,} in flight",
        *("hypernodes on Daft", "plain asyncio", "ratio", "goal"),
    )
    table.row(chosen(pair.ours), chosen(pair.theirs), f"{pair.ratio:.2f}", "<= 1.3")


@native(lambda name: name.strip().lower())
@node(output_name="cleaned")
def clean(name: str) -> str:
    return name.strip().lower()


@native(lambda cleaned: cleaned.length())
@node(output_name="size")
def size(cleaned: str) -> int:
    return len(cleaned)


@native(lambda price, amount: price * amount)
@node(output_name="total")
def total(price: float, amount: int) -> float:
    return price * amount


def files() -> None:
    """One million rows from Parquet to Parquet."""
    pipeline = Pipeline(nodes=[clean, size, total])
    folder = Path(tempfile.mkdtemp())
    try:
        daft.from_pydict(
            {
                "name": [f"  Name {row % 1000} " for row in range(ROWS)],
                "price": [row / 7 for row in range(ROWS)],
                "amount": [row % 13 for row in range(ROWS)],
            }
        ).write_parquet(str(folder / "in"))
        source, target = str(folder / "in" / "*.parquet"), folder / "out"

        def written(frame: Any) -> None:
            shutil.rmtree(target, ignore_errors=True)
            frame.write_parquet(str(target))

        def by_hand() -> None:
            frame = daft.read_parquet(source)
            cleaned = frame.with_column("cleaned", col("name").strip().lower())
            sized = cleaned.with_column("size", col("cleaned").length().cast(daft.DataType.int64()))
            written(sized.with_column("total", col("price") * col("amount")).select("cleaned", "size", "total"))

        def in_python() -> None:
            """A loop over columns read and written by Arrow: the least that Python can do."""
            import pyarrow
            from pyarrow import parquet

            (file,) = (folder / "in").glob("*.parquet")
            rows = parquet.read_table(file).to_pydict()
            cleaned = [clean.func(name) for name in rows["name"]]
            made = {
                "cleaned": cleaned,
                "size": [size.func(one) for one in cleaned],
                "total": [total.func(*one) for one in zip(rows["price"], rows["amount"], strict=True)],
            }
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            parquet.write_table(pyarrow.table(made), target / "out.parquet")

        table = Table(
            f"{ROWS:,} rows, Parquet to Parquet, 3 nodes",
            *("map_frame", "over", "hypernodes", "the other", "ratio", "goal"),
        )
        for what, ours, other, theirs, goal in (
            ("native nodes", lambda: written(map_frame(pipeline, source)), "Daft by hand", by_hand, "<= 1.1"),
            ("native nodes", lambda: written(map_frame(pipeline, source)), "a Python loop", in_python, "<= 0.5"),
            (
                "Python nodes",
                lambda: written(map_frame(pipeline, source, native=False)),
                "a Python loop",
                in_python,
                "",
            ),
        ):
            pair = compare(ours, theirs, turns=7, warmups=1)
            table.row(what, other, chosen(pair.ours), chosen(pair.theirs), f"{pair.ratio:.2f}", goal)
    finally:
        shutil.rmtree(folder)


def cpu(call: Any) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def peak() -> float:
    """The most memory that this process has had, in MB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (1_000_000 if sys.platform == "darwin" else 1_000)


if __name__ == "__main__":
    main()
