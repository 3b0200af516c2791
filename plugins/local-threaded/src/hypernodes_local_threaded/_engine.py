"""The engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hypernodes.plugin import ExecutorEngine, ThreadPool


@dataclass(frozen=True)
class ThreadedEngine(ExecutorEngine):
    """Runs in threads of this process: values are shared, nothing is pickled.

    Right for functions that wait (network, disk) or that let go of the interpreter lock (NumPy, most parsers). There
    are four threads more than cores, 32 at the most, unless `max_workers` says otherwise.
    """

    name: ClassVar[str] = "threaded"
    requires: ClassVar[frozenset[str]] = frozenset({"threads"})

    def default_workers(self) -> int:
        return min(32, super().default_workers() + 4)

    def make_executor(self, workers: int) -> ThreadPool:
        return ThreadPool(workers, "hypernodes-threaded")
