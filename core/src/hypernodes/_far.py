"""The far side of a backend: an engine that runs requests where they arrive."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypernodes._context import Context
from hypernodes._engine import Engine, Feed, Site
from hypernodes._task import Reply, Stage

__all__ = ["FarEngine"]

_sites: dict[Any, Site] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class FarEngine:
    """The engine of a backend with its modes, as it travels with each request.

    What the engine opens over there - a pool of processes, say - stays open for the requests that follow.
    """

    engine: Engine
    name: str
    node_execution: str
    map_execution: str
    max_workers: int | None
    map_strategy: str | None = None

    def run_rows(self, stage: Stage, rows: Sequence[tuple[Any, ...]], context: Context) -> Reply:
        started = time.perf_counter()
        values: list[tuple[Any, ...] | None] = [None] * len(rows)
        failures = {}
        for batch in self.engine.batches(stage, Feed(rows), self._site()):
            values[batch.first : batch.first + len(batch.values)] = batch.values
            failures.update({batch.first + at: failed for at, failed in batch.failures.items()})
        return Reply(values, failures, time.perf_counter() - started)

    def _site(self) -> Site:
        with _lock:
            site = _sites.get(self)
            if site is None:
                site = _sites[self] = Site(
                    node_execution=self.node_execution,
                    map_execution=self.map_execution,
                    max_workers=self.max_workers,
                    name=self.name,
                    map_strategy=self.map_strategy,
                )
                atexit.register(site.close)
        return site
