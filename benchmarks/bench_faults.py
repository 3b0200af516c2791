"""What one item costs that kills its worker process: itself, and how much time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from _measure import QUICK, Table, chosen

from hypernodes import Failure, LocalBackend, Pipeline, node

ITEMS, POISON, GUILTY = 1_000, -1, 613
BATCH = 16


@node(output_name="found")
def plain(x: int) -> int:
    if x == POISON:
        os._exit(1)
    return x + 1


@node(output_name="found")
def waiting(x: int) -> int:
    """Waits, so that what else the machine does changes nothing."""
    if x == POISON:
        os._exit(1)
    time.sleep(0.001)
    return x + 1


@node(output_name="found", batch_size=BATCH)
def batched(x: list[int]) -> list[int]:
    if POISON in x:
        os._exit(1)
    return [one + 1 for one in x]


@node(output_name="found", batch_size=BATCH)
def batched_waiting(x: list[int]) -> list[int]:
    if POISON in x:
        os._exit(1)
    time.sleep(0.003)
    return [one + 1 for one in x]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


def poisoned(what: str, function: Any, table: Table) -> None:
    """A map of 1,000 items with a poisonous one among them, and one with none; who begins alternates."""
    sound = [{"x": x} for x in range(ITEMS)]
    items = [*sound[:GUILTY], {"x": POISON}, *sound[GUILTY + 1 :]]
    expected: list[Any] = [x + 1 for x in range(ITEMS)]
    without, extra, lost = [], [], set()
    with LocalBackend(engine="multiprocess", max_workers=2) as backend:
        pipeline = Pipeline([function], backend=backend)
        pipeline.map(sound, output_name="found")
        for turn in range(3 if QUICK else 9):
            calls = [lambda: pipeline.map(sound, output_name="found")]
            calls.insert(turn % 2, lambda: pipeline.map(items, output_name="found", on_error="return"))
            measured = [timed(call) for call in calls]
            (bad, found), (good, _) = (measured[0], measured[1]) if turn % 2 == 0 else (measured[1], measured[0])
            without.append(good)
            extra.append(bad - good)
            failed = [at for at, value in enumerate(found) if isinstance(value, Failure)]
            assert [value for at, value in enumerate(found) if at not in failed] == [
                value for at, value in enumerate(expected) if at not in failed
            ]
            lost.add(len(failed))
            assert GUILTY in failed
    middle = len(without) // 2
    table.row(
        what,
        "/".join(map(str, sorted(lost))),
        chosen(sorted(without)[middle]),
        f"{1e3 * sorted(extra)[middle]:.0f} ms",
        f"{1e3 * max(extra):.0f} ms",
        "1 item, < 2 s",
    )


def main() -> None:
    columns = ("1,000 items over 2 processes", "items that fail", "without it", "it costs", "at most", "goal")
    table = Table("One item that kills its worker process", *columns)
    poisoned("trivial", plain, table)
    poisoned("of 1 ms", waiting, table)
    poisoned(f"trivial, batches of {BATCH}", batched, table)
    poisoned(f"batches of {BATCH} and 3 ms", batched_waiting, table)


if __name__ == "__main__":
    main()
