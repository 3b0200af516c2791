"""An engine of threads that needs no plugin: the tests of core run with core alone."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any, ClassVar

from hypernodes import LocalBackend
from hypernodes._executor import ExecutorEngine
from hypernodes._threads import ThreadPool

__all__ = ["threads"]


class Threads(ExecutorEngine):
    name: ClassVar[str] = "threads"
    # Quick calls would go to one thread together, and those of some tests wait for each other.
    most_in_chunk: ClassVar[int] = 1

    def make_executor(self, workers: int) -> Executor:
        return ThreadPool(workers)


def threads(workers: int = 4, **options: Any) -> LocalBackend:
    return LocalBackend(Threads(), max_workers=workers, **options)
