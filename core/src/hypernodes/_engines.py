"""The engines that core ships: one after another, and asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import ClassVar

from hypernodes._blueprint import Blueprint, blueprint_of
from hypernodes._engine import Engine, Feed, Site, run_in_line
from hypernodes._loops import OwnLoop, is_loop_running, keeping_thread_loop
from hypernodes._overlap import DEFAULT_CONCURRENCY, overlap
from hypernodes._strategy import chosen_strategy
from hypernodes._task import Batch, Outcome, Stage

__all__ = ["AsyncEngine", "SequentialEngine", "on_own_loop"]


@dataclass(frozen=True)
class SequentialEngine(Engine):
    """One node after another, one item after another, in the caller's thread."""

    name: ClassVar[str] = "sequential"
    modes: ClassVar[tuple[str, ...]] = ("sequential",)
    default_mode: ClassVar[str] = "sequential"

    def workers(self, max_workers: int | None) -> int:
        return 1

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for batch in self.batches(stage, tasks, site):
            yield from batch.outcomes()

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        place = f"{site.name}:{self.name}" if site.name else self.name
        with keeping_thread_loop(stage.is_async):
            yield from run_in_line(stage, tasks, place)


@dataclass(frozen=True)
class AsyncEngine(Engine):
    """Coroutine nodes are awaited on one event loop; plain functions wait in helper threads."""

    name: ClassVar[str] = "async"
    modes: ClassVar[tuple[str, ...]] = ("sequential", "async")
    default_mode: ClassVar[str] = "async"

    def workers(self, max_workers: int | None) -> int:
        return max_workers or DEFAULT_CONCURRENCY

    def abatches(self, stage: Stage, tasks: Feed, site: Site) -> AsyncGenerator[list[Batch], None]:
        """What comes of the tasks, on the running loop."""
        nodes, items = site.node_execution == "async", site.map_execution == "async"
        strategy = chosen_strategy(stage.steps, site.map_strategy, shares_memory=True, overlaps=items)
        blueprint = blueprint_of(stage, fine=nodes, fans=items or nodes, apart=strategy != "item")
        return self.on_loop(blueprint, tasks, site, strategy)

    def on_loop(
        self, blueprint: Blueprint, tasks: Feed, site: Site, strategy: str
    ) -> AsyncGenerator[list[Batch], None]:
        """The same for a stage that is cut already, for this strategy."""
        return overlap(
            blueprint,
            tasks,
            limit=self.workers(site.max_workers),
            items=site.map_execution == "async",
            place=f"{site.name}:{self.name}" if site.name else self.name,
            staged=strategy == "stage",
        )

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for batch in self.batches(stage, tasks, site):
            yield from batch.outcomes()

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        return on_own_loop(self.abatches(stage, tasks, site))


def on_own_loop(batches: AsyncGenerator[list[Batch], None]) -> Iterator[Batch]:
    """The batches, from a loop of this generator's own."""
    assert not is_loop_running(), "the hub moves this to a thread of its own"
    with OwnLoop() as own:
        try:
            while True:
                batch = own.run(_next(batches))
                if batch is None:
                    return
                yield from batch
        finally:
            own.run(batches.aclose())


async def _next(batches: AsyncGenerator[list[Batch], None]) -> list[Batch] | None:
    return await anext(batches, None)
