"""The engine: core's scheduling, with each chunk of items as one call on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hypernodes.plugin import Demand, ExecutorEngine, PlaceError, Site, Stage, payload_of

if TYPE_CHECKING:
    from hypernodes_ray._runtime import Runtime

__all__ = ["RayEngine"]

HANDLE = "ray.runtime"
STAGES_KNOWN = 256
"""For how many stages it is remembered what they ask of the cluster."""


@dataclass(frozen=True)
class RayEngine(ExecutorEngine):
    """Runs chunks of items on a Ray cluster: about a quarter of a second of work is one call.

    Nodes that only compute are Ray tasks. Nodes that read resources, and nodes on GPUs, live in actors, one for each
    process, which stay until the backend is closed. So do coroutines, of which each actor awaits a hundred at once, or
    its part of `max_workers`. Nodes that ask for different `resources=` travel apart, so each call gets what its nodes
    ask for; one CPU where they do not say.
    """

    name: ClassVar[str] = "ray"
    requires: ClassVar[frozenset[str]] = frozenset({HANDLE})
    opens_on: ClassVar[frozenset[str]] = frozenset({"machine"})
    shares_memory: ClassVar[bool] = False
    by_demand: ClassVar[bool] = True
    overlaps_items: ClassVar[bool] = True
    awaits_chunks: ClassVar[bool] = True
    # A call costs about 0.4 ms of this process: of a quarter of a second that is 0.2 %.
    chunk_seconds: ClassVar[float] = 0.25
    most_in_chunk: ClassVar[int] = 4096

    def make_executor(self, workers: int) -> Executor:
        raise PlaceError("engine 'ray' runs in a place, which has the connection to a cluster or can open one")

    def open_executor(self, site: Site, workers: int) -> Any:
        return _Calls(_runtime_of(site), workers)

    def workers_at(self, site: Site) -> int:
        slots = _runtime_of(site).cluster.slots()
        return slots if site.max_workers is None else min(slots, site.max_workers)

    def submit_stage(
        self, executor: Any, stage: Stage, frames: Sequence[Any], blobs: Mapping[str, bytes]
    ) -> Future[bytes]:
        calls: _Calls = executor
        return calls.submit(stage, payload_of(frames, blobs={}), blobs)

    def submit_awaited(
        self, executor: Any, stage: Stage, frames: Sequence[Any], blobs: Mapping[str, bytes], at_once: int
    ) -> Future[bytes]:
        calls: _Calls = executor
        return calls.submit(stage, payload_of(frames, blobs={}), blobs, at_once)

    def close_executor(self, executor: Any) -> None:
        """The session closes what is open: actors serve every run."""

    def abort_executor(self, executor: Any) -> None:
        executor.stop()


def _runtime_of(site: Site) -> Runtime:
    """What the place drives its cluster with; on a machine that has none, one is started, and ends with the place."""
    found = site.handles.get(HANDLE)
    if found is None:
        session = site.once(HANDLE, _start, lambda session: session.close())
        found = session.handles[HANDLE]
    runtime: Runtime = found
    return runtime


def _start() -> Any:
    from hypernodes_ray._connection import Wanted
    from hypernodes_ray._session import RaySession

    wanted = Wanted(None, {}, None, log_to_driver=True)
    return RaySession(wanted, Demand(), None, autoscales=False, engine=RayEngine.name)


class _Calls:
    """The calls of the runs of one site."""

    def __init__(self, runtime: Runtime, workers: int) -> None:
        self.runtime, self.workers = runtime, workers
        self._asked: dict[tuple[int, int], tuple[Stage, Any]] = {}

    def submit(self, stage: Stage, payload: bytes, blobs: Mapping[str, bytes], at_once: int = 0) -> Future[bytes]:
        found = self._asked.get((id(stage), at_once))
        if found is None:
            if len(self._asked) >= STAGES_KNOWN:
                self._asked.clear()
            # Looked at once for each stage: it takes 30 us, and raises what the cluster can never give.
            found = (stage, self.runtime.cluster.share_for(stage, self.workers, at_once))
            self._asked[id(stage), at_once] = found
        return self.runtime.submit(found[1], payload, blobs, owner=self)

    def stop(self) -> None:
        self.runtime.stop(self)
