"""What large arrays cost on their way into processes and back, over shared memory written by hand."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy
from _measure import Table, compare

from hypernodes import LocalBackend, Pipeline, node

COUNT = 50
LENGTH = 20_000_000 // 8
WORKERS = 2
SLOTS = 2
"""Of the ring, for each worker: one is worked on, one waits, as in our pool."""


def total(array: Any) -> float:
    return float(array.sum())


def filled(number: int) -> Any:
    return numpy.full(LENGTH, float(number))


def plain_totals(arrays: list[Any]) -> list[float]:
    return [total(array) for array in arrays]


def plain_made(numbers: list[int]) -> list[Any]:
    return [filled(number) for number in numbers]


class Ring:
    """A block of shared memory with some slots for each worker, and a pipe to each; nothing in it is ever made anew."""

    def __init__(self) -> None:
        self.block = SharedMemory(create=True, size=WORKERS * SLOTS * LENGTH * 8)
        self.slots = _slots(self.block)
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.workers = []
        for _ in range(WORKERS):
            here, there = context.Pipe()
            self.pipes.append(here)
            self.workers.append(context.Process(target=_ring_worker, args=(self.block.name, there), daemon=True))
            self.workers[-1].start()

    def totals(self, arrays: list[Any]) -> list[float]:
        def send(pipe: Connection, slot: int, number: int) -> None:
            numpy.copyto(self.slots[slot], arrays[number])
            pipe.send(("total", slot, number))

        results = [0.0] * len(arrays)
        for _, number, result in self._all(len(arrays), send):
            results[number] = result
        return results

    def made(self, numbers: list[int]) -> list[Any]:
        results: list[Any] = [None] * len(numbers)
        for slot, number, _ in self._all(
            len(numbers), lambda pipe, slot, number: pipe.send(("fill", slot, numbers[number]))
        ):
            results[number] = self.slots[slot].copy()
        return results

    def _all(self, count: int, send: Callable[[Connection, int, int], None]) -> Iterator[tuple[int, int, float]]:
        """Hand all out, as slots come free; a slot is free again when its result has been taken."""
        todo = deque(range(count))
        free = deque((worker, worker * SLOTS + at) for at in range(SLOTS) for worker in range(WORKERS))
        flying = 0
        while todo or flying:
            while todo and free:
                worker, slot = free.popleft()
                send(self.pipes[worker], slot, todo.popleft())
                flying += 1
            for pipe in wait(self.pipes):
                slot, number, result = pipe.recv()  # type: ignore[union-attr]
                flying -= 1
                yield slot, number, result
                free.append((slot // SLOTS, slot))

    def close(self) -> None:
        for pipe, worker in zip(self.pipes, self.workers, strict=True):
            pipe.send(("end", 0, 0))
            worker.join()
        del self.slots
        self.block.close()
        self.block.unlink()


def _slots(block: SharedMemory) -> list[Any]:
    whole = numpy.frombuffer(block.buf, dtype="f8", count=WORKERS * SLOTS * LENGTH)
    return [whole[at * LENGTH : (at + 1) * LENGTH] for at in range(WORKERS * SLOTS)]


def _ring_worker(name: str, pipe: Connection) -> None:
    block = SharedMemory(name)
    slots = _slots(block)
    while True:
        what, slot, number = pipe.recv()
        if what == "end":
            break
        if what == "fill":
            slots[slot][:] = float(number)
            pipe.send((slot, number, 0.0))
        else:
            pipe.send((slot, number, total(slots[slot])))
    del slots
    block.close()


@contextmanager
def ring() -> Iterator[Ring]:
    made = Ring()
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    arrays = [numpy.full(LENGTH, float(number)) for number in range(COUNT)]
    numbers = list(range(COUNT))
    turns = 11
    with (
        ring() as by_hand,
        ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool,
        LocalBackend(engine="multiprocess", max_workers=WORKERS) as backend,
    ):
        into = Pipeline([node(total, output_name="total")], backend=backend)
        out = Pipeline([node(filled, output_name="array")], backend=backend)

        def into_ours(arrays: list[Any]) -> list[float]:
            return into.map([{"array": array} for array in arrays], output_name="total")

        def out_ours(numbers: list[int]) -> list[Any]:
            return out.map([{"number": number} for number in numbers], output_name="array")

        assert into_ours(arrays) == by_hand.totals(arrays) == plain_totals(arrays)
        for mine, theirs in zip(out_ours(numbers), by_hand.made(numbers), strict=True):
            assert numpy.array_equal(mine, theirs)
        for title, ours, others, values in (
            (
                "summed in a process",
                into_ours,
                {
                    "a ring written by hand": by_hand.totals,
                    "ProcessPoolExecutor": lambda arrays: list(pool.map(total, arrays)),
                    "the plain loop": plain_totals,
                },
                arrays,
            ),
            (
                "made in a process and brought home",
                out_ours,
                {
                    "a ring written by hand": by_hand.made,
                    "ProcessPoolExecutor": lambda numbers: list(pool.map(filled, numbers)),
                    "the plain loop": plain_made,
                },
                numbers,
            ),
        ):
            table = Table(
                f"{COUNT} arrays of {LENGTH * 8 // 10**6} MB {title}, {WORKERS} processes",
                "over", "hypernodes", "the other", "ratio", "goal",
            )  # fmt: skip
            for what, other in others.items():
                pair = compare(
                    partial(ours, values), partial(other, values), turns=3 if "Pool" in what else turns, warmups=1
                )  # type: ignore[arg-type]
                table.pair(what, pair, "<= 1.3" if "ring" in what else "")


if __name__ == "__main__":
    main()
