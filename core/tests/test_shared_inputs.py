"""Large inputs that items share travel once, and nobody sees what others do to them."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hypernodes import Pipeline, node
from hypernodes._payload import opened, payload_of
from hypernodes._shared import LARGE, SharedInputs, rebuilt
from hypernodes._table import Table
from hypernodes._task import Stage
from hypernodes.plugin import Session
from hypernodes.testing import SubprocessBackend


@node(output_name="y")
def pick(table: Any, x: int) -> float:
    return float(table[x])


STAGE = Stage("pick", [], [("table", 0), ("x", 1)], [])


def requests(shared: SharedInputs, *tables: Any, rows: int = 3) -> list[dict[int, tuple[str, bytes]]]:
    return [shared.apart("stage", STAGE, Table([[table] * rows, list(range(rows))], rows)) for table in tables]


def test_large_value_travels_apart_from_the_second_request_on():
    table = np.arange(LARGE // 8)
    first, second, third = requests(SharedInputs(None), table, table, table)
    assert first == {}
    assert list(second) == [0]
    assert third[0] == second[0]
    assert np.array_equal(rebuilt(second[0][1]), table)


def test_another_object_has_another_digest_and_is_carried_at_first():
    one, other = np.arange(LARGE), np.arange(LARGE) + 1
    found = requests(SharedInputs(None), one, one, other, other)
    assert [list(apart) for apart in found] == [[], [0], [], [0]]
    assert found[1][0][0] != found[3][0][0]


@pytest.mark.parametrize("value", [None, 7, "short", b"short", [1, 2, 3]])
def test_small_value_stays_in_its_request(value):
    assert requests(SharedInputs(None), value, value, value) == [{}, {}, {}]


def test_value_that_differs_between_rows_stays_in_its_request():
    shared, table = SharedInputs(None), np.arange(LARGE)
    mixed = Table([[table, np.arange(LARGE), table], [0, 1, 2]], 3)
    assert [shared.apart("stage", STAGE, mixed) for _ in range(3)] == [{}, {}, {}]


def test_input_that_may_be_filled_again_between_two_rows_is_carried_by_every_request():
    table = np.arange(LARGE)
    assert requests(SharedInputs({"x"}), table, table, table) == [{}, {}, {}]
    assert list(requests(SharedInputs({"table"}), table, table)[1]) == [0]


def test_each_request_gets_a_value_of_its_own_that_it_may_change():
    table = np.arange(LARGE)
    blob = requests(SharedInputs(None), table, table)[1][0][1]
    mine = rebuilt(blob)
    mine[:] = -1
    assert np.array_equal(rebuilt(blob), table)


def test_payload_holds_its_frames_and_the_blobs_that_came_along():
    frames, blobs = opened(payload_of([b"head", b"body"], {"a": b"1", "b": b""}))
    assert [bytes(frame) for frame in frames] == [b"head", b"body"]
    assert {digest: bytes(blob) for digest, blob in blobs.items()} == {"a": b"1", "b": b""}


@dataclass(frozen=True)
class Recorded(SubprocessBackend):
    """Notes what crosses, and keeps blobs on the other side of a wall of its own."""

    crossed: list[tuple[int, dict[str, int]]] = field(default_factory=list, compare=False)

    def open(self) -> Session:
        session, crossed = super().open(), self.crossed
        carry = session.submit_request

        def submit_request(frames: Any, blobs: Any) -> Future[bytes]:
            size = sum(memoryview(frame).nbytes for frame in frames)
            crossed.append((size, {digest: len(blob) for digest, blob in blobs.items()}))
            return carry(frames, blobs)

        session.submit_request = submit_request  # type: ignore[method-assign]
        return session


def test_requests_of_a_map_name_the_shared_input_and_do_not_hold_it():
    table = np.arange(200_000, dtype=float)
    backend = Recorded()
    pipeline = Pipeline(nodes=[pick], name="pick", backend=backend)
    items = [{"x": x} for x in range(200)]
    assert pipeline.map(items, inputs={"table": table}, output_name="y") == [float(x) for x in range(200)]
    sizes = [size for size, _ in backend.crossed]
    assert len(sizes) > 2
    assert all(size > table.nbytes for size in sizes[:1])
    assert all(size < LARGE for size in sizes[1:])
    assert len({tuple(blobs) for _, blobs in backend.crossed[1:]}) == 1


def test_outer_value_reaches_the_inner_items_of_a_mapped_pipeline():
    inner = Pipeline(nodes=[pick], name="inner", backend=Recorded())
    outer = Pipeline(nodes=[inner.as_node(input_mapping={"xs": "x"}, map_over="xs")], name="outer")
    table = np.arange(200_000, dtype=float)
    assert outer.run(xs=list(range(100)), table=table, output_name="y") == [float(x) for x in range(100)]


def test_shared_input_that_cannot_be_read_over_there_is_named():
    class Odd:
        def __init__(self) -> None:
            self.load = b"x" * 2 * LARGE

        def __reduce__(self) -> Any:
            return (_refuse, (self.load,))

    @node(output_name="y")
    def use(odd: Any, x: int) -> int:
        return x

    pipeline = Pipeline(nodes=[use], name="use", backend=SubprocessBackend())
    found = pipeline.map([{"x": x} for x in range(4)], inputs={"odd": Odd()}, output_name="y", on_error="return")
    assert len(found) == 4
    assert all("'odd'" in failure.message for failure in found)


def _refuse(_: bytes) -> Any:
    raise ValueError("it does not want to be rebuilt")
