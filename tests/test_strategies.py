"""Map strategies and caches with batch nodes, on every engine and in a place that gets bytes only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from hypernodes import DiskCache, IncompatibleEngineError, LocalBackend, Pipeline, node
from hypernodes.testing import SubprocessBackend

STRATEGIES = (None, "item", "stage", "stream")


def backends() -> Iterator[Any]:
    yield pytest.param(LocalBackend(), id="sequential")
    for strategy in STRATEGIES:
        for engine in ("threaded", "async", "multiprocess"):
            backend = LocalBackend(engine=engine, max_workers=2, map_strategy=strategy)
            yield pytest.param(backend, id=f"{engine}-{strategy}")
        if strategy != "stage":
            backend = SubprocessBackend(machines=1, map_strategy=strategy)
            yield pytest.param(backend, id=f"subprocess-{strategy}")
    one_by_one = LocalBackend(engine="threaded", max_workers=2, map_execution="sequential")
    yield pytest.param(one_by_one, id="threaded one by one")


BACKENDS = list(backends())


def batched(marks: Path) -> list[Any]:
    """Nodes of which the middle one takes batches and notes the items that it got, in whatever process it runs."""
    name = str(marks)

    @node(output_name="y", cache=False)
    def shift(x: int) -> int:
        return x + 1

    @node(output_name="z", batch_size=4)
    def middle(y: list[int]) -> list[int]:
        with open(name, "a") as file:
            file.write(json.dumps(y) + "\n")
        return [one * 10 for one in y]

    @node(output_name="end", cache=False)
    def last(z: int) -> int:
        return z + 3

    return [shift, middle, last]


def taken(marks: Path) -> list[list[int]]:
    """The batches that were noted since the last call."""
    lines = marks.read_text().splitlines() if marks.exists() else []
    marks.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_cached_batch_computes_only_the_rest(backend: Any, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with backend:
        pipeline = Pipeline(batched(marks), name="main", backend=backend, cache=DiskCache(tmp_path / "cache"))
        pipeline.map([{"x": x} for x in (1, 3, 5, 7, 9)])
        assert sorted(chain(*taken(marks))) == [2, 4, 6, 8, 10]
        found = pipeline.map([{"x": x} for x in range(10)], output_name="end")
        assert found == [(x + 1) * 10 + 3 for x in range(10)]
        batches = taken(marks)
    assert sorted(chain(*batches)) == [1, 3, 5, 7, 9]
    assert max(map(len, batches)) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_cached_items_of_a_mapped_pipeline_compute_only_the_rest(backend: Any, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with backend:
        each = Pipeline(batched(marks), name="each").as_node({"xs": "x"}, map_over="xs")
        pipeline = Pipeline([each], name="main", backend=backend, cache=DiskCache(tmp_path / "cache"))
        pipeline.map([{"xs": [0, 1]}, {"xs": [4]}])
        assert sorted(chain(*taken(marks))) == [1, 2, 5]
        found = pipeline.map([{"xs": [0, 2]}, {"xs": []}, {"xs": [3, 4, 6]}], output_name="end")
        assert found == [[13, 33], [], [43, 53, 73]]
        batches = taken(marks)
    assert sorted(chain(*batches)) == [3, 4, 7]


@pytest.mark.parametrize("engine", ["threaded", "async"])
def test_inner_items_of_many_outer_items_share_batches(engine: str, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    each = Pipeline(batched(marks), name="each").as_node({"xs": "x"}, map_over="xs")
    with LocalBackend(engine=engine, max_workers=2, map_strategy="stream") as backend:
        found = Pipeline([each], name="main", backend=backend).map([{"xs": [x, x + 1]} for x in range(6)])
    assert [row["end"] for row in found] == [[x * 10 + 13, x * 10 + 23] for x in range(6)]
    assert [len(batch) for batch in taken(marks)] == [4, 4, 4]


@pytest.mark.parametrize("engine", ["threaded", "async"])
def test_rows_that_are_waited_for_do_not_hold_up_those_that_are_there(engine: str, tmp_path: Path) -> None:
    """Whoever gives the rows may need the result of one before it gives the next."""

    async def main() -> list[int]:
        came = asyncio.Queue[int]()
        found = list[int]()

        async def rows() -> Any:
            yield {"x": 0}
            for _ in range(5):
                yield {"x": await came.get() + 1}

        with LocalBackend(engine=engine, max_workers=2, map_strategy="stream") as backend:
            pipeline = Pipeline(batched(tmp_path / "marks"), name="main", backend=backend)
            async for row in pipeline.amap_iter(rows(), output_nodes=["y", "end"]):
                found.append(row["end"])
                came.put_nowait(row["y"] - 1)
        return found

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [13, 23, 33, 43, 53, 63]


def test_unknown_strategy_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(IncompatibleEngineError, match=r"map_strategy='steam' \(did you mean 'stream'\?\); the strateg"):
        LocalBackend(map_strategy="steam")


@pytest.mark.parametrize(
    ("backend", "shown"),
    [
        (LocalBackend(), "map strategy stage (chosen by core)"),
        (LocalBackend(engine="threaded"), "map strategy stream (chosen by core)"),
        (LocalBackend(engine="async"), "map strategy stream (chosen by core)"),
        (LocalBackend(engine="multiprocess"), "map strategy item (chosen by core)"),
        (LocalBackend(engine="multiprocess", map_strategy="stream"), "map strategy stream (named)"),
    ],
)
def test_explain_shows_the_strategy(backend: Any, shown: str, tmp_path: Path) -> None:
    pipeline = Pipeline(batched(tmp_path / "marks"), name="main", backend=backend)
    assert shown in str(pipeline.explain())
    assert "strategy" not in str(Pipeline(batched(tmp_path)[:1], backend=LocalBackend()).explain())


def test_processes_stream_where_a_batch_node_is_limited(tmp_path: Path) -> None:
    @node(output_name="z", batch_size=4, limit="calls")
    def limited(x: list[int]) -> list[int]:
        return x

    pipeline = Pipeline([limited], backend=LocalBackend(engine="multiprocess"), limits={"calls": 1})
    assert "map strategy stream (chosen by core)" in str(pipeline.explain())
