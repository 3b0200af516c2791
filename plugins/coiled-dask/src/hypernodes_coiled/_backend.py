"""A Dask cluster as a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypernodes import IncompatibleEngineError
from hypernodes.plugin import Backend, Session, check_workers, pair
from hypernodes_coiled._clusters import check_address, place_of
from hypernodes_coiled._local import LocalPlan
from hypernodes_coiled._pool import Patience
from hypernodes_coiled._session import DaskSession

__all__ = ["DaskBackend"]

_LOCAL = ("workers", "threads", "memory", "resources")


@dataclass(frozen=True)
class DaskBackend(Backend):
    """Run on a Dask cluster.

    `cluster` is a scheduler's address, a `distributed.Client`, a cluster object, a function that makes one of them when
    it is first needed, or None for a cluster on this machine: `workers` processes (one for each core) of `threads`
    threads, each with so much `memory` (`"4 GiB"`) and `resources` (`{"GPU": 1}`). What the backend started itself it
    also ends: with `backend.close()`, `with backend:`, or the program. What was given to it stays.

    The engine is Dask's own, `"dask"`, unless another is named, which then runs inside the workers. `max_workers`
    bounds how many tasks run at once; without it that is all threads of the cluster. `security` holds TLS settings
    (`distributed.Security`); a scheduler beyond this machine without TLS is refused unless `insecure=True`.

    `no_worker_timeout`, `scheduler_timeout` and `connect_timeout` say, in seconds, how long there may be no worker, no
    answer of the scheduler, and no connection at first. `processes` says that nodes may start processes on the workers,
    which Dask does not allow unless its setting `distributed.worker.daemon` is off; a local cluster allows it.
    `may_end_workers` says whether a worker may be ended that does not come back from a call which nobody waits for any
    more; by default only those that the backend started.
    """

    name: ClassVar[str] = "dask"
    provides: ClassVar[frozenset[str]] = frozenset({"dask.client", "threads"})
    default_engine: ClassVar[str | None] = "dask"

    # None of these has a use as a hash; backends that differ in them are still told apart.
    cluster: Any = field(default=None, hash=False)
    engine: Any = None
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    map_strategy: str | None = None
    limits: Mapping[str, Any] | None = field(default=None, hash=False)
    workers: int | None = None
    threads: int | None = None
    memory: str | int | None = None
    resources: Mapping[str, float] | None = field(default=None, hash=False)
    security: Any = field(default=None, hash=False, repr=False)
    insecure: bool = False
    no_worker_timeout: float = 300.0
    scheduler_timeout: float = 60.0
    connect_timeout: float = 30.0
    processes: bool | None = None
    may_end_workers: bool | None = None

    def __post_init__(self) -> None:
        self._check_local_options()
        for option in ("no_worker_timeout", "scheduler_timeout", "connect_timeout"):
            seconds = getattr(self, option)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
                raise IncompatibleEngineError(f"DaskBackend: {option}={seconds!r}; give seconds, more than 0")
        if isinstance(self.cluster, str):
            check_address(self.cluster, insecure=self.insecure)
        if self.processes is None:
            object.__setattr__(self, "processes", self.cluster is None)
        if self.processes:
            object.__setattr__(self, "provides", type(self).provides | {"processes"})
        try:
            pair(self)
        except IncompatibleEngineError as error:
            if "'processes'" in str(error) and not self.processes:
                raise IncompatibleEngineError(
                    f"{error}. Dask runs its workers as daemons, which may not start processes; where the cluster's "
                    "setting 'distributed.worker.daemon' is False they may: then say DaskBackend(..., processes=True)"
                ) from None
            raise

    def _check_local_options(self) -> None:
        named = [option for option in _LOCAL if getattr(self, option) is not None]
        if named and self.cluster is not None:
            raise IncompatibleEngineError(
                f"DaskBackend: {named[0]}={getattr(self, named[0])!r} is for a cluster on this machine, and cluster= "
                "names another; leave one of them out"
            )
        for option in ("workers", "threads"):
            check_workers("DaskBackend", option, getattr(self, option))

    def open(self) -> Session:
        """A session, which connects when the first request needs it."""
        plan = LocalPlan(self.workers, self.threads or 1, self.memory, tuple((self.resources or {}).items()))
        return DaskSession(
            lambda: place_of(self.cluster, security=self.security, insecure=self.insecure, local=plan),
            Patience(self.no_worker_timeout, self.scheduler_timeout, self.connect_timeout),
            may_end_workers=self.may_end_workers,
        )
