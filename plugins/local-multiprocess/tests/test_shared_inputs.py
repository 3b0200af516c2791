"""A large input that all items share goes to each worker once."""

from __future__ import annotations

import os

import numpy as np

from hypernodes import LocalBackend, Pipeline, node
from hypernodes_local_multiprocess._shelf import MOST_BYTES, Shelf


def test_items_see_the_shared_input_as_it_was_given_whatever_other_chunks_do_to_it():
    @node(output_name="found")
    def look(table: np.ndarray, x: int) -> tuple[int, float]:
        found = float(table[x])
        table[:] = -1.0 if x % 100 == 0 else table
        return os.getpid(), found

    table = np.arange(400_000, dtype=float)
    backend = LocalBackend(engine="multiprocess", max_workers=2)
    pipeline = Pipeline(nodes=[look], backend=backend)
    with backend:
        runs = [pipeline.map([{"x": x}], inputs={"table": table}, output_name="found")[0] for x in (0, 1, 0, 1)]
        rows = pipeline.map([{"x": x} for x in range(1, 100)], inputs={"table": table}, output_name="found")
    assert [found for _, found in runs] == [0.0, 1.0, 0.0, 1.0]
    assert [found for _, found in rows] == [float(x) for x in range(1, 100)]
    assert os.getpid() not in {pid for pid, _ in rows}
    assert table[7] == 7.0


def test_a_shelf_is_bounded_in_bytes_and_keeps_what_a_call_names():
    shelf: Shelf[str] = Shelf()
    shelf.place(["old"], {"old": ("old", MOST_BYTES // 2)})
    shelf.place(["stage"], {"stage": ("stage", 10)})
    assert shelf.place(["a", "b"], {"a": ("a", MOST_BYTES), "b": ("b", 10)}) == {"a": "a", "b": "b"}
    assert shelf.missing(["old", "stage", "a", "b"]) == ["old", "stage"]
    shelf.place(["c"], {"c": ("c", 10)})
    assert shelf.missing(["a", "b", "c"]) == ["a"]
