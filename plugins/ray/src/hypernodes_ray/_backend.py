"""A Ray cluster as a place: one that is started here, or one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypernodes.plugin import (
    Backend,
    Demand,
    Engine,
    EngineSpec,
    IncompatibleEngineError,
    Session,
    check_workers,
    demand_of,
    pair,
)
from hypernodes_ray._address import address_of
from hypernodes_ray._connection import Wanted

__all__ = ["RayBackend"]


@dataclass(frozen=True)
class RayBackend(Backend):
    """Run on a Ray cluster.

    Without an `address` a cluster is started on this machine, of `num_cpus` CPUs and `num_gpus` GPUs (what the machine
    has, where they are not said), and ended with `close()`, the `with` block or the program. A session that was opened
    by `ray.init()` is used instead, and left alone; so is `RAY_ADDRESS` where it is set. `address` is `"auto"` for the
    cluster that runs on this machine, `"host:port"` or `"ray://host:port"`.

    `runtime_env` is Ray's: packages, environment variables and files for the workers. `init` are more arguments of
    `ray.init`. `autoscales` says that the cluster adds nodes when work waits, so that what no node has now is waited
    for. `max_workers` bounds how many chunks run at once. With another engine than `"ray"` that engine runs inside
    `processes` workers (as many as fit), each of which holds `process_resources`.
    """

    name: ClassVar[str] = "ray"
    provides: ClassVar[frozenset[str]] = frozenset({"ray.runtime", "threads", "processes"})
    default_engine: ClassVar[str | None] = "ray"

    address: str | None = None
    engine: str | Engine | None = None
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    # Dicts have no hash; backends that differ in them are still told apart.
    runtime_env: Mapping[str, Any] | None = field(default=None, hash=False)
    init: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)
    autoscales: bool = False
    processes: int | None = None
    process_resources: Mapping[str, Any] | None = field(default=None, hash=False)
    log_to_driver: bool = True
    map_strategy: str | None = None
    limits: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.engine is None:
            # As if it were named: then its own modes hold, by which nodes and items overlap.
            object.__setattr__(self, "engine", "ray")
        address = address_of(self.address)
        for option in ("num_cpus", "num_gpus"):
            amount = getattr(self, option)
            if amount is None:
                continue
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
                raise IncompatibleEngineError(f"RayBackend: {option}={amount!r}; give a whole number, or leave it out")
            if address is not None:
                raise IncompatibleEngineError(
                    f"RayBackend: {option}={amount} sizes a cluster that is started here, and address={self.address!r} "
                    "is one that is there; leave one of them out, and say what nodes need by @node(resources=...)"
                )
        if self.process_resources is not None:
            demand_of("RayBackend", self.process_resources)
        pair(self)
        self._check_processes()

    def _check_processes(self) -> None:
        """How an engine is put into actors; that makes no sense with one that spreads its work over the cluster."""
        check_workers("RayBackend", "processes", self.processes)
        spec: EngineSpec = self._engine_spec  # type: ignore[attr-defined] # set by `pair`
        for option in ("processes", "process_resources"):
            value = getattr(self, option)
            if value is not None and "ray.runtime" in spec.requires:
                raise IncompatibleEngineError(
                    f"RayBackend: {option}={value!r} makes no sense with engine '{spec.name}', which itself spreads "
                    "its work over the cluster; leave it out, and bound what runs at once by max_workers="
                )

    def open(self) -> Session:
        from hypernodes_ray._session import RaySession

        sized = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        init = {**{name: value for name, value in sized.items() if value is not None}, **(self.init or {})}
        wanted = Wanted(address_of(self.address), init, self.runtime_env, self.log_to_driver)
        demand = Demand() if self.process_resources is None else demand_of("RayBackend", self.process_resources)
        return RaySession(wanted, demand, self.processes, autoscales=self.autoscales, engine=self._engine_name())

    def _engine_name(self) -> str:
        return self.engine.name if isinstance(self.engine, Engine) else str(self.engine)
