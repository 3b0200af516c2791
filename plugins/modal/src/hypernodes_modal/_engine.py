"""What runs inside a container: its share of the items, one after another, or overlapped where a mode says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hypernodes.plugin import AsyncEngine, Batch, Engine, Feed, Outcome, SequentialEngine, Site, Stage


@dataclass(frozen=True)
class ContainerEngine(Engine):
    """The built-in engine of `ModalBackend`.

    Containers are the workers, so a container runs the items that it gets one after another; with
    `map_execution="async"` it awaits many at once. Independent nodes of an item overlap where `node_execution` is
    named: coroutines on an event loop, plain functions in threads beside it.
    """

    name: ClassVar[str] = "container"
    requires: ClassVar[frozenset[str]] = frozenset({"modal"})
    modes: ClassVar[tuple[str, ...]] = ("async", "parallel")

    def items_at_once(self, site: Site) -> int | None:
        return super().items_at_once(site) if site.map_execution == "async" else 1

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for batch in self.batches(stage, tasks, site):
            yield from batch.outcomes()

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        nodes = "sequential" if site.node_execution == "sequential" else "async"
        items = "async" if site.map_execution == "async" else "sequential"
        inside = Site(
            node_execution=nodes,
            map_execution=items,
            max_workers=site.max_workers,
            name=site.name,
            map_strategy=site.map_strategy,
        )
        engine = _InLine() if nodes == items == "sequential" else _Overlapped()
        return engine.batches(stage, tasks, inside)


class _InLine(SequentialEngine):
    name: ClassVar[str] = ContainerEngine.name


class _Overlapped(AsyncEngine):
    name: ClassVar[str] = ContainerEngine.name
