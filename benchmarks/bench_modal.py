"""Modal's own share of a run: calls, chunks, what crosses how often, and what faults cost, on the local control plane.

The control plane and its containers run on this machine and take their share of it. At Modal the network takes its
place.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import QUICK, machine

from hypernodes import ModalBackend, Pipeline, node
from hypernodes_modal.testing import LocalModal

FAULTS = 20 if QUICK else 200
plain = node(lambda x: x + 1, output_name="y", name="plain")


def far(function: Any, backend: Any) -> Pipeline:
    return Pipeline(nodes=[function], name="far", backend=backend)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def milliseconds(call: Callable[[], Any], turns: int) -> tuple[float, float]:
    """The least and the median of some calls."""
    found = []
    for _ in range(max(3, turns // 10 if QUICK else turns)):
        started = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - started))
    return min(found), statistics.median(found)


def runs(backend: Any) -> None:
    started = time.perf_counter()
    pipeline = far(plain, backend)
    pipeline.run(x=1)
    tell("first run: app, container, call", f"{time.perf_counter() - started:.2f} s", "")
    least, median = milliseconds(lambda: pipeline.run(x=1), 100)
    tell("warm run", f"{median:.1f} ms (least {least:.1f})", "<= 25 ms")
    for count in (1_000, 10_000):
        least, median = milliseconds(lambda count=count: pipeline.map(rows(count)), 20)  # type: ignore[misc]
        goal = "<= 0.3 ms" if count == 1_000 else ""
        tell(f"map of {count:,} trivial items, for each", f"{median / count:.3f} ms (least {least / count:.3f})", goal)


def after_a_failure(plane: LocalModal, backend: Any) -> None:
    counts = []
    for _ in range(3 if QUICK else 9):
        with tempfile.TemporaryDirectory() as folder:

            def work(x: int) -> int:
                Path(folder, str(x)).touch()
                if x == 3:
                    raise ValueError(x)
                time.sleep(0.05)
                return x

            try:
                far(node(work, output_name="y"), backend).map(rows(300))
            except ValueError:
                plane.wait(lambda: not any(one.running for one in plane.containers if one.alive))
            counts.append(len(os.listdir(folder)))
    tell("items begun of 300 when item 3 fails, 50 ms each", f"{statistics.median(counts):.0f}", "<= 4 + a window")


def large(plane: LocalModal, backend: Any) -> None:
    weights = os.urandom(12_000_000)
    before = plane.rpcs.copy()
    started = time.perf_counter()
    found = far(node(lambda x: len(weights) + x, output_name="y"), backend).map(rows(400), output_name="y")
    taken = time.perf_counter() - started
    assert found == [12_000_000 + x for x in range(400)]
    used = plane.rpcs - before
    told = f"{used['DictUpdate']} up, {used['DictGet']} down, {used['FunctionMap']} calls, {taken:.2f} s"
    tell("pipeline of 12 MB, map of 400", told, "1 up")


def faults(plane: LocalModal, backend: Any) -> None:
    def work(x: int) -> int:
        time.sleep(0.005)
        return -x

    pipeline, lost, items = far(node(work, output_name="y"), backend), 0, 0
    started = time.perf_counter()
    with plane.harm(FAULTS, seed=1) as harm:
        while not harm.over:
            found = pipeline.map(rows(300), output_name="y", on_error="return")
            lost += sum(one != -x for x, one in enumerate(found))
            items += len(found)
    taken = time.perf_counter() - started
    tell(f"{harm.injected} containers killed or preempted, {items:,} items", f"{lost} lost, {taken:.0f} s", "0 lost")


def tell(what: str, found: str, goal: str) -> None:
    print(f"| {what} | {found} | {goal} |", flush=True)


def main() -> None:
    print(f"{machine()}\n\n| what | measured | goal |\n| --- | --- | --- |")
    with LocalModal(capacity=2, crash_limit=1) as plane, plane.use(), ModalBackend(max_concurrent=2) as backend:
        runs(backend)
        after_a_failure(plane, backend)
        large(plane, backend)
        faults(plane, backend)
        if plane.unimplemented or plane.errors:
            sys.exit(f"the control plane lacks {plane.unimplemented} or broke: {plane.errors}")


if __name__ == "__main__":
    main()
