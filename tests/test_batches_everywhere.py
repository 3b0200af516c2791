"""Batch nodes give the same in every place and on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import Failure, LocalBackend, Pipeline, node
from hypernodes.testing import SubprocessBackend


@node(output_name="cleaned")
def clean(text: str) -> str:
    return text.strip()


@node(output_name=("length", "inverse"), batch_size=4)
def measure(cleaned: list[str], unit: int) -> tuple[list[int], list[float]]:
    assert isinstance(cleaned, list) and len(cleaned) <= 4
    return [len(text) for text in cleaned], [unit / len(text) for text in cleaned]


@node(output_name="later", batch_size=3)
async def wait(inverse: list[float]) -> list[float]:
    return [2 * value for value in inverse]


@node(output_name="total")
def add(later: float, length: int) -> float:
    return later + length


BACKENDS = [
    LocalBackend(),
    LocalBackend(engine="async"),
    LocalBackend(engine="threaded", max_workers=2),
    LocalBackend(engine="multiprocess", max_workers=2),
    LocalBackend(engine="threaded", max_workers=2, node_execution="async"),
    SubprocessBackend(machines=1),
]
ITEMS = [{"text": "a" * (at % 5)} for at in range(23)]


@pytest.fixture(params=BACKENDS, ids=repr, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param as opened:
        yield opened


def as_told(result: Any) -> Any:
    return (result.path, result.items, result.type_name, result.message) if isinstance(result, Failure) else result


def expected(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    return {"cleaned": text, "length": len(text), "inverse": 2 / len(text), "later": 4 / len(text)} | {
        "total": 4 / len(text) + len(text)
    }


def test_a_map_in_batches_gives_what_items_alone_give(backend: Any) -> None:
    pipeline = Pipeline([clean, measure, wait, add], name="main", backend=backend)
    found = pipeline.map(ITEMS, inputs={"unit": 2}, on_error="return")
    for at, (item, result) in enumerate(zip(ITEMS, found, strict=True)):
        wanted = expected(item["text"])
        if wanted is None:
            wanted = (("main", "measure"), (at, None), "ZeroDivisionError", "division by zero")  # type: ignore[assignment]
        assert as_told(result) == wanted
    assert pipeline.run(text="ab", unit=2) == expected("ab")


def test_lists_inside_items_go_in_batches_too(backend: Any) -> None:
    inner = Pipeline([clean, measure, wait, add], name="inner")
    over = inner.as_node(input_mapping={"texts": "text"}, map_over="texts")
    pipeline = Pipeline([over], name="main", backend=backend)
    rows = [{"texts": ["a" * size for size in sizes]} for sizes in ((1, 2, 3, 4, 5), (), (2, 0, 1), (3,))]
    found = pipeline.map(rows, inputs={"unit": 2}, on_error="return")
    for row, result in zip(rows, found, strict=True):
        if "" in row["texts"]:
            assert (result.path, result.items) == (("main", "inner", "measure"), (2, 1, None))
        else:
            assert result["total"] == [(expected(text) or {})["total"] for text in row["texts"]]
    assert pipeline.run(texts=["a", "bb"], unit=2)["length"] == [1, 2]
