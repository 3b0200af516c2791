"""Maps whose rows go to pools as they are: whichever form they have, they give the same."""

from __future__ import annotations

import pytest

from hypernodes import Failure, LocalBackend, Pipeline, node


@node(output_name="half")
def halve(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x // 2


@node(output_name=("low", "high"))
def around(x: int, k: int = 1) -> tuple[int, int]:
    return x - k, x + k


@pytest.mark.parametrize("engine", ["threaded", pytest.param("multiprocess", marks=pytest.mark.slow)])
def test_columns_and_rows_give_the_same(engine: str) -> None:
    with LocalBackend(engine=engine, max_workers=2) as backend:
        pipeline = Pipeline([around], backend=backend)
        rows = [{"low": at - 3, "high": at + 3} for at in range(30)]
        columns = pipeline.map(inputs={"x": list(range(30)), "k": 3}, map_over="x")
        assert columns == {"low": list(range(-3, 27)), "high": list(range(3, 33))}
        assert pipeline.map([{"x": at} for at in range(30)], inputs={"k": 3}) == rows
        assert pipeline.map([{"x": at, "k": 3} for at in range(30)], inputs={"k": 99}) == rows
        assert pipeline.map(({"x": at} for at in range(30)), inputs={"k": 3}, output_name="high") == columns["high"]


def test_failure_stands_in_each_column() -> None:
    pipeline = Pipeline([around, halve], backend=LocalBackend(engine="threaded", max_workers=2))
    found = pipeline.map(inputs={"x": [4, 5, 6], "k": 1}, map_over="x", on_error="return")
    assert [found[name][0] for name in ("low", "high", "half")] == [3, 5, 2]
    assert all(isinstance(found[name][1], Failure) for name in found)
    assert found["half"][2] == 3
