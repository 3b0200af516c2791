"""What it costs an item that a node takes a resource: over the same value given as an input that all items share."""

from __future__ import annotations

from typing import Any

from _measure import Table, chosen, compare

from hypernodes import LocalBackend, Pipeline, node, resource

ROWS = 20_000
TABLE = {"a": 1}


@resource
def table() -> dict[str, int]:
    return TABLE


@node(output_name="found")
def look_up(x: int, table: dict[str, int]) -> int:
    return x


@node(output_name="found")
async def look_up_async(x: int, table: dict[str, int]) -> int:
    return x


@node(output_name="found", batch_size=64, batch_over="x")
def look_up_all(x: list[int], table: dict[str, int]) -> list[int]:
    return x


def measured(what: str, function: Any, backend: LocalBackend, out: Table, goal: str) -> None:
    items = [{"x": 1}] * ROWS
    needing = Pipeline([table, function], backend=backend)
    given = Pipeline([function], backend=backend)

    def ours() -> Any:
        return needing.map(items, output_name="found")

    def theirs() -> Any:
        return given.map(items, inputs={"table": TABLE}, output_name="found")

    assert ours() == theirs()
    pair = compare(ours, theirs, turns=15)
    more = f"{pair.over / ROWS * 1e6:.2f} µs"
    out.row(what, chosen(pair.ours / ROWS), chosen(pair.theirs / ROWS), more, goal)


def main() -> None:
    columns = ("an item of a map of 20,000", "with a resource", "as an input", "the look-up", "goal")
    out = Table("What a resource costs an item", *columns)
    measured("sequential", look_up, LocalBackend(), out, "<= 1 µs")
    measured("sequential, async node", look_up_async, LocalBackend(), out, "<= 1 µs")
    measured("sequential, batches of 64", look_up_all, LocalBackend(), out, "")
    with LocalBackend(engine="threaded", max_workers=2) as backend:
        measured("2 threads", look_up, backend, out, "")
    with LocalBackend(engine="multiprocess", max_workers=2) as backend:
        measured("2 processes", look_up, backend, out, "")
    once = Pipeline([table, look_up])
    plain = Pipeline([look_up])
    pair = compare(lambda: once.run(x=1), lambda: plain.run(x=1, table=TABLE), calls=200)
    out.row("one run, built and let go", chosen(pair.ours), chosen(pair.theirs), f"{pair.over * 1e6:.1f} µs", "")


if __name__ == "__main__":
    main()
