"""The engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hypernodes.plugin import ExecutorEngine


@dataclass(frozen=True)
class LokyEngine(ExecutorEngine):
    """Runs in processes of loky. A worker that has had nothing to do for `idle_seconds` ends."""

    name: ClassVar[str] = "loky"
    requires: ClassVar[frozenset[str]] = frozenset({"processes"})
    shares_memory: ClassVar[bool] = False

    idle_seconds: float = 10.0

    def make_executor(self, workers: int) -> Any:
        from acme_engine._workers import Workers

        return Workers(workers, timeout=self.idle_seconds)

    def abort_executor(self, executor: Any) -> None:
        executor.shutdown(wait=True, kill_workers=True)
