"""This machine as a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypernodes._backend import Backend, Session, engine_of, engine_spec_of, pair
from hypernodes._demand import Demand, demand_of
from hypernodes._engine import Engine
from hypernodes._machine import machine
from hypernodes._names import CORE_ENGINES
from hypernodes._plan import MapStep, Step
from hypernodes._strategy import chosen_strategy

__all__ = ["LocalBackend", "core_engine", "shares_memory", "strategy_of"]


@dataclass(frozen=True)
class LocalBackend(Backend):
    """Run on this machine.

    `engine` names an installed engine (`"threaded"`, `"multiprocess"`, ...) or is one. `node_execution` says how much
    the nodes of one item may overlap, `map_execution` how much items may: `"sequential"`, `"async"` or `"parallel"`.
    With neither, everything runs one after another; `"parallel"` without an engine means processes. `max_workers`
    bounds node x map x nesting together; without it there is one worker for each core, four more than cores for
    threads, and 100 awaited at once for `"async"`. `map_strategy` says how items go through a pipeline with batch
    nodes: `"item"`, `"stage"` or `"stream"`; None chooses what suits the pipeline and the engine.

    `limits` declares limits by name, as a pipeline does, for nodes whose pipelines declare none of that name.
    `resources` says what nodes may use together where this machine's own CPUs, GPUs and memory do not count:
    `{"gpus": 2, "memory": "16GB"}`.
    """

    name: ClassVar[str] = "local"
    provides: ClassVar[frozenset[str]] = frozenset({"threads", "processes"})

    engine: str | Engine | None = None
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    map_strategy: str | None = None
    # A dict has no hash; backends that differ in it are still told apart.
    limits: Mapping[str, Any] | None = field(default=None, hash=False)
    resources: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.resources is not None:
            demand_of("LocalBackend", self.resources)
            object.__setattr__(self, "resources", dict(self.resources))
        pair(self)

    def capacity(self) -> Demand:
        """What this machine has, where `resources` does not say otherwise."""
        found = machine()
        if self.resources is None:
            return found
        named = demand_of("LocalBackend", self.resources)._asdict()
        return found._replace(**{kind: named[kind] for kind in self.resources})

    def open(self) -> Session:
        return _LocalSession(bool(getattr(engine_of(self), "warm", False)))


def core_engine(backend: Backend) -> str | None:
    """`"sequential"` or `"async"` where the backend is local and runs that very engine of core's, else None."""
    if not isinstance(backend, LocalBackend):
        return None
    target = engine_spec_of(backend).target
    return next((name for name, spec in CORE_ENGINES.items() if spec.target == target), None)


def shares_memory(backend: Backend) -> bool:
    """Whether its nodes run in this process."""
    return isinstance(backend, LocalBackend) and engine_of(backend).shares_memory


def strategy_of(backend: Backend, steps: Iterable[Step | MapStep]) -> str:
    """How the items of a map go through these steps of one backend: what it names, or what core chooses."""
    return chosen_strategy(
        steps,
        getattr(backend, "map_strategy", None),
        shares_memory=shares_memory(backend),
        overlaps=backend.map_execution != "sequential",
    )


class _LocalSession(Session):
    here: ClassVar[bool] = True

    def __init__(self, warm: bool) -> None:
        self.warm = warm

    def close(self) -> None:
        """Nothing of its own is open; what engines opened lies in the site."""
