"""Cloud machines that Coiled starts, as a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypernodes import IncompatibleEngineError
from hypernodes.plugin import Backend, Session, pair
from hypernodes_coiled._cluster_options import cluster_options
from hypernodes_coiled._clusters import Place
from hypernodes_coiled._pool import Patience
from hypernodes_coiled._secrets import Secrets, secrets_of
from hypernodes_coiled._session import DaskSession

__all__ = ["CoiledBackend"]

DAEMON = "DASK_DISTRIBUTED__WORKER__DAEMON"
"""The setting by which Dask lets its workers start processes, as an environment variable of the cluster."""


@dataclass(frozen=True, init=False, repr=False)
class CoiledBackend(Backend):
    """Run on cloud machines that Coiled starts: `CoiledBackend(memory="512 GB", region="us-east-1", workers=20)`.

    `workers` is how many machines, or `(fewest, most)`: then Dask starts and ends them as there is work. `memory`,
    `cpu`, `gpu` and `gpu_type` say what each has, or `vm_types` which it is; `disk` is how large. `spot=True` takes
    spot machines, and others where there are none; `"spot"` takes nothing else. `region`, `name`, `software`,
    `container`, `idle_timeout`, `environ`, `tags` and all other options are those of `coiled.Cluster`. `name` keeps to
    one cluster: where one of that name runs, it is used, and stays when the backend is closed.

    `threads_per_worker` is how many nodes a machine runs at once; without it that is one for each CPU. `secrets` are
    environment variables for the workers: names, whose values are taken from here, or names and values. They go to
    the cluster itself and are not stored by Coiled; no repr, log or pickle holds a value.

    The engine is Dask's own, `"dask"`, unless another is named, which then runs inside the workers: `"multiprocess"`
    uses all CPUs of a machine for plain Python. `max_workers` bounds how many tasks run at once. `no_worker_timeout`,
    `scheduler_timeout` and `connect_timeout` say, in seconds, how long there may be no worker, no answer of the
    scheduler, and no connection at first.

    Nothing is started before the first run that needs it. The cluster serves all runs until `close()`, the end of a
    `with` block, or of the program. One that Coiled has stopped meanwhile is started again for the next run.

    Raises TypeError for an option that there is not, ValueError for one that cannot be, ImportError without Coiled's
    client. A run raises `CoiledLoginError` or `CoiledStartError`.
    """

    name: ClassVar[str] = "coiled"
    provides: ClassVar[frozenset[str]] = frozenset({"dask.client", "threads", "processes"})
    default_engine: ClassVar[str | None] = "dask"

    engine: Any
    node_execution: str | None
    map_execution: str | None
    max_workers: int | None
    map_strategy: str | None
    # None of these has a use as a hash; backends that differ in them are still told apart.
    limits: Mapping[str, Any] | None = field(hash=False)
    options: Mapping[str, Any] = field(hash=False)
    secrets: Secrets
    patience: Patience

    def __init__(
        self,
        *,
        workers: int | Sequence[int] | None = None,
        memory: str | int | Sequence[str] | None = None,
        cpu: int | Sequence[int] | None = None,
        gpu: int | bool | None = None,
        gpu_type: str | None = None,
        vm_types: str | Sequence[str] | None = None,
        disk: str | int | None = None,
        region: str | None = None,
        spot: bool | str | None = None,
        name: str | None = None,
        software: str | None = None,
        container: str | None = None,
        idle_timeout: str | None = None,
        environ: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        threads_per_worker: int | None = None,
        secrets: Mapping[str, str] | Iterable[str] | None = None,
        engine: Any = None,
        node_execution: str | None = None,
        map_execution: str | None = None,
        max_workers: int | None = None,
        map_strategy: str | None = None,
        limits: Mapping[str, Any] | None = None,
        no_worker_timeout: float = 300.0,
        scheduler_timeout: float = 60.0,
        connect_timeout: float = 30.0,
        **options: Any,
    ) -> None:
        named = {
            "workers": workers,
            "memory": memory,
            "cpu": cpu,
            "gpu": gpu,
            "gpu_type": gpu_type,
            "disk": disk,
            "vm_types": vm_types,
            "region": region,
            "spot": spot,
            "name": name,
            "software": software,
            "container": container,
            "idle_timeout": idle_timeout,
            "environ": environ,
            "tags": tags,
        }
        private = secrets_of(secrets)
        named = {option: value for option, value in named.items() if value is not None}
        chosen = cluster_options({**named, **options}, threads_per_worker)
        chosen["environ"] = _environ(chosen.get("environ") or {}, private)
        for fact, value in {
            "engine": engine,
            "node_execution": node_execution,
            "map_execution": map_execution,
            "max_workers": max_workers,
            "map_strategy": map_strategy,
            "options": chosen,
            "secrets": private,
            "limits": None if limits is None else dict(limits),
            "patience": _patience(no_worker_timeout, scheduler_timeout, connect_timeout),
        }.items():
            object.__setattr__(self, fact, value)
        if chosen["environ"][DAEMON].lower() not in ("false", "0"):
            object.__setattr__(self, "provides", type(self).provides - {"processes"})
        pair(self)

    def __repr__(self) -> str:
        options = {**self.options, "environ": [name for name in self.options["environ"] if name != DAEMON]}
        shown = {"engine": self.engine, "max_workers": self.max_workers, **options, "secrets": self.secrets}
        return f"CoiledBackend({', '.join(f'{name}={value!r}' for name, value in shown.items() if value)})"

    def open(self) -> Session:
        """A session, which starts the cluster when the first request needs it."""
        return DaskSession(self._start, self.patience)

    def _start(self) -> Place:
        from hypernodes_coiled._coiled_cluster import CoiledPlace

        return CoiledPlace(self.options, self.secrets)


def _environ(given: Mapping[str, str], secrets: Secrets) -> dict[str, str]:
    """The variables of the cluster that are no secrets. Raises ValueError for one that is."""
    twice = [name for name in secrets.names if name in given]
    if twice:
        raise ValueError(
            f"CoiledBackend: secrets= and environ= both name '{twice[0]}'; Coiled stores what environ= holds: keep it "
            "in secrets= alone"
        )
    return {DAEMON: "False", **given}


def _patience(workers: float, scheduler: float, connection: float) -> Patience:
    named: dict[str, Any] = {
        "no_worker_timeout": workers,
        "scheduler_timeout": scheduler,
        "connect_timeout": connection,
    }
    for option, seconds in named.items():
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise IncompatibleEngineError(f"CoiledBackend: {option}={seconds!r}; give seconds, more than 0")
    return Patience(workers, scheduler, connection)
