"""The engine on Ray: core's scheduling, with each chunk of items as the row of a dataframe that Daft runs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, ClassVar

from hypernodes.plugin import ExecutorEngine, PlaceError, Site, Stage, payload_of
from hypernodes_daft._queries import Queries
from hypernodes_daft._room import Room

__all__ = ["Chunks"]


@dataclass(frozen=True)
class Chunks(ExecutorEngine):
    """Runs chunks of at most `batch_size` items, each a query of its own: they are cut by the time that they take."""

    name: ClassVar[str] = "daft"
    modes: ClassVar[tuple[str, ...]] = ()
    shares_memory: ClassVar[bool] = False
    overlaps_items: ClassVar[bool] = True
    # A query costs 25 ms: of a second that is 2.5 %.
    chunk_seconds: ClassVar[float] = 1.0

    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            object.__setattr__(self, "most_in_chunk", self.batch_size)

    def make_executor(self, workers: int) -> Executor:
        raise PlaceError("DaftEngine(runner='ray') runs on RayBackend alone, which has the connection to a cluster")

    def open_executor(self, site: Site, workers: int) -> Queries:
        return Queries(workers)

    def workers_at(self, site: Site) -> int:
        cpus = Room().cpus
        return cpus if site.max_workers is None else min(cpus, site.max_workers)

    def submit_stage(
        self, executor: Any, stage: Stage, frames: Sequence[Any], blobs: Mapping[str, bytes]
    ) -> Future[bytes]:
        queries: Queries = executor
        return queries.ask(stage, payload_of(frames, {}), blobs)

    def close_executor(self, executor: Any) -> None:
        executor.close()

    def abort_executor(self, executor: Any) -> None:
        executor.stop()

    def sketch(self, stage: Stage) -> str:
        names = ", ".join(".".join(step.path[1:]) or step.path[0] for step in stage.steps)
        most = f", {self.batch_size} at the most" if self.batch_size else ""
        return (
            f"Daft's runner for Ray (an experiment)\n* UDF {stage.name}: {names}\n|   a row is a chunk of items{most}"
        )
