"""The engine: core's scheduling over the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, ClassVar

from hypernodes import GraphError, PlaceError
from hypernodes.plugin import Batch, ExecutorEngine, Feed, Site, Stage, inside_worker, payload_of
from hypernodes_coiled._crew import resources_for
from hypernodes_coiled._pool import DaskPool
from hypernodes_coiled._request import How, Request, Turns
from hypernodes_coiled._session import SESSION, DaskSession

__all__ = ["DaskEngine"]

STAGES_KNOWN = 256
"""For how many stages it is remembered what they ask of a worker."""


@dataclass(frozen=True)
class DaskEngine(ExecutorEngine):
    """Runs on the workers of a Dask cluster, driven from here.

    A map sends the whole pipeline for many items as one Dask task, a fifth of a second of work at a time; a single run
    one task for each node that may go on by itself. Nodes that ask for different `resources=` travel apart. Coroutines
    of many items overlap inside a task. Functions, inputs and results travel as bytes that nobody but this process and
    the workers unpickles. `priority` is Dask's: among tasks that wait, higher ones go first.
    """

    name: ClassVar[str] = "dask"
    requires: ClassVar[frozenset[str]] = frozenset({"dask.client"})
    shares_memory: ClassVar[bool] = False
    by_demand: ClassVar[bool] = True
    overlaps_items: ClassVar[bool] = True
    owns_workers: ClassVar[bool] = False
    # A task costs about 2.5 ms of CPU in client, scheduler and worker; of 200 ms that is 1.3 %.
    chunk_seconds: ClassVar[float] = 0.2
    most_in_chunk: ClassVar[int] = 4096
    # One waits on its worker while another runs there, and one with the scheduler, for the first worker that is free.
    queued_per_worker: ClassVar[int] = 2

    priority: int = 0

    def make_executor(self, workers: int) -> Executor:
        raise PlaceError("engine 'dask' runs on DaskBackend or CoiledBackend, which have the connection to a cluster")

    def open_executor(self, site: Site, workers: int) -> Any:
        return _Calls(site.handles[SESSION], self.priority, site.max_workers)

    def workers_at(self, site: Site) -> int:
        session: DaskSession = site.handles[SESSION]
        return site.max_workers or session.workers

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        """Raises `GraphError` for what a node needs and no worker has, before anything waits for it."""
        if not inside_worker():
            session: DaskSession = site.handles[SESSION]
            pool, _ = session.ready()
            resources_of(stage, pool)
        return super().batches(stage, tasks, site)

    def submit_stage(
        self, executor: Any, stage: Stage, frames: Sequence[Any], blobs: Mapping[str, bytes]
    ) -> Future[bytes]:
        calls: _Calls = executor
        return calls.submit(stage, payload_of(frames, {}), blobs)

    def close_executor(self, executor: Any) -> None:
        """The session closes what is open: it serves every run."""

    def abort_executor(self, executor: Any) -> None:
        executor.abort()


class _Calls:
    """The requests of the runs of one site."""

    def __init__(self, session: DaskSession, priority: int, at_once: int | None) -> None:
        self._session, self._priority, self._at_once = session, priority, at_once
        self._pool: DaskPool | None = None
        self._turns = Turns(at_once)
        self._hows: dict[int, tuple[Stage, How]] = {}
        self._out: set[Request] = set()

    def submit(self, stage: Stage, payload: bytes, blobs: Mapping[str, bytes]) -> Request:
        """Send a request. A run whose scheduler was lost ends: only the next one connects anew."""
        pool = self._session.connected()
        request = pool.submit(payload, blobs, self._how(stage, pool))
        self._out.add(request)
        request.add_done_callback(self._out.discard)
        return request

    def _how(self, stage: Stage, pool: DaskPool) -> How:
        if pool is not self._pool:  # a new connection, with an event loop of its own
            self._pool, self._turns, self._hows = pool, Turns(self._at_once), {}
        found = self._hows.get(id(stage))
        if found is None:
            if len(self._hows) >= STAGES_KNOWN:
                self._hows.clear()
            how = How(_label(stage.name), resources_of(stage, pool), self._priority, self._turns)
            found = self._hows[id(stage)] = (stage, how)
        return found[1]

    def abort(self) -> None:
        for request in list(self._out):
            request.cancel()


def resources_of(stage: Stage, pool: DaskPool) -> dict[str, float] | None:
    """What each request for a stage uses of its worker, in Dask's words. Raises `GraphError` for what no worker has."""
    needed: dict[str, float] = {}
    for path, demand in stage.demands:
        crew = pool.crew()
        found, missing = resources_for(demand, crew)
        if any(missing) and crew.workers:
            raise GraphError(
                f"node '{path}' needs {missing} for each call, which no worker of the Dask cluster at "
                f"{pool.link.address} has; start workers that do: {_remedy(missing)}"
            )
        needed |= {name: max(needed.get(name, 0), amount) for name, amount in found.items()}
    return needed or None


def _label(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name) or "pipeline"


def _remedy(missing: Any) -> str:
    if missing.gpus:
        return f"dask worker --resources GPU={missing.gpus:g}"
    if missing.cpus:
        return f"dask worker --nthreads {missing.cpus:g}"
    return f"dask worker --memory-limit {missing.memory}"
