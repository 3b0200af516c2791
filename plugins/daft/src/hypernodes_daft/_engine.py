"""The engine and its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hypernodes.plugin import Batch, Engine, Feed, Outcome, Site, Stage, inside_worker, run_in_line
from hypernodes_daft._options import check_count
from hypernodes_daft._runner import in_query

if TYPE_CHECKING:
    from hypernodes_daft._chunks import Chunks

__all__ = ["DaftEngine"]

RUNNERS = ("native", "ray")
MOST_IN_WINDOW = 100_000


@dataclass(frozen=True)
class DaftEngine(Engine):
    """Runs a map as a lazy Daft dataframe on this machine: items are rows, nodes are columns.

    The columns hold row numbers, the values stay Python objects in this process: each node gets what the node before
    returned. Daft cuts the rows into `partitions` batches (50), or into batches of `batch_size` rows, and schedules
    them. Plain functions run in threads of ours, `max_workers` of the backend at once (else four more than cores, 32
    at the most); coroutine functions are awaited on a loop of ours, `max_workers` at once (else 100). At most `window`
    rows are drawn into one dataframe; two dataframes are under way together.

    With `runner="ray"`, which is an experiment, it runs on the cluster of a `RayBackend`, by Daft's own runner for Ray:
    there the rows of dataframes hold pickled chunks of items, of `batch_size` items at the most. Raises `ValueError`
    for options that make no sense.
    """

    name: ClassVar[str] = "daft"
    requires: ClassVar[frozenset[str]] = frozenset({"threads"})
    modes: ClassVar[tuple[str, ...]] = ()

    partitions: int | None = None
    batch_size: int | None = None
    window: int = MOST_IN_WINDOW
    runner: str = "native"

    def __post_init__(self) -> None:
        if self.runner not in RUNNERS:
            raise ValueError(f"DaftEngine: runner={self.runner!r}; Daft has the runners 'native' and 'ray'")
        check_count("partitions", self.partitions, optional=True)
        check_count("batch_size", self.batch_size, optional=True)
        check_count("window", self.window)
        if self.partitions is not None and self.batch_size is not None:
            raise ValueError(
                f"DaftEngine: partitions={self.partitions} and batch_size={self.batch_size} both say how large batches "
                "are; give one of them"
            )
        if self.runner == "ray":
            self._check_ray()
            object.__setattr__(self, "requires", frozenset({"ray.runtime"}))
            object.__setattr__(self, "shares_memory", False)

    def _check_ray(self) -> None:
        for option, given in (("partitions", self.partitions), ("window", self.window)):
            if given not in (None, MOST_IN_WINDOW):
                raise ValueError(
                    f"DaftEngine: {option}={given} means nothing with runner='ray', where items are cut into chunks "
                    "by the time that they take; leave it out, or bound the chunks: batch_size=100"
                )

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for batch in self.batches(stage, tasks, site):
            yield from batch.outcomes()

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        if self.runner == "ray":
            return self._chunks().batches(stage, tasks, site)
        place = f"{site.name}:{self.name}" if site.name else self.name
        if inside_worker():
            # A query of Daft's inside a query waits for threads that it holds itself.
            return run_in_line(stage, tasks, place)
        from hypernodes_daft._run import run_in_windows

        return run_in_windows(self, stage, tasks, place, site.max_workers, plainly=in_query.get())

    def _chunks(self) -> Chunks:
        from hypernodes_daft._chunks import Chunks

        return Chunks(self.batch_size)

    def sketch(self, stage: Stage) -> str:
        if self.runner == "ray":
            return self._chunks().sketch(stage)
        from hypernodes_daft._sketch import sketch

        return sketch(stage, self.rows_of_batch)

    def rows_of_batch(self, rows: int) -> int:
        """How many rows come in one batch, where so many are to come."""
        if self.batch_size is not None:
            return self.batch_size
        if self.partitions is not None:
            return max(1, -(-rows // self.partitions))
        return max(LEAST_BATCH, -(-rows // DEFAULT_PARTITIONS))


DEFAULT_PARTITIONS = 50
LEAST_BATCH = 64
"""Rows of a batch where nobody said how many: a call of Daft's for fewer costs more than what it does."""
