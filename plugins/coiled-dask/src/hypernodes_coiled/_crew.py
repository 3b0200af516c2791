"""The workers of a cluster: what they have, and whether that serves what nodes ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypernodes.plugin import Demand

__all__ = ["Crew", "Member", "crew_of", "resources_for"]

NAMES = {"cpus": ("CPU", "cpu", "CPUS", "cpus"), "gpus": ("GPU", "gpu", "GPUS", "gpus"), "memory": ("MEMORY", "memory")}
"""What clusters call the kinds of `@node(resources=...)` where they declare them; Dask gives these names no meaning."""


@dataclass(frozen=True)
class Member:
    """A worker: its threads, its memory in bytes (0: unbounded) and the resources that it declares."""

    threads: int
    memory: int
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Crew:
    """The workers at one time, by address."""

    workers: Mapping[str, Member]

    @property
    def threads(self) -> int:
        """How many tasks they run at once."""
        return sum(member.threads for member in self.workers.values())

    def serves(self, resources: Mapping[str, float]) -> bool:
        """Whether some worker has all of these."""
        return any(
            all(member.resources.get(name, 0) >= amount for name, amount in resources.items())
            for member in self.workers.values()
        )

    def hint(self, address: str) -> str:
        """What may have killed a worker."""
        member = self.workers.get(address)
        if member is None or not member.memory:
            return ""
        return f"; a worker that needs more than its memory limit of {member.memory / 1e9:.3g} GB is killed like this"


def crew_of(identity: Mapping[str, Any]) -> Crew:
    """The workers as the scheduler tells of them."""
    return Crew(
        {
            address: Member(told["nthreads"], told.get("memory_limit") or 0, told.get("resources") or {})
            for address, told in identity["workers"].items()
        }
    )


def resources_for(demand: Demand, crew: Crew) -> tuple[dict[str, float], Demand]:
    """A demand in Dask's resources where the cluster declares them, and what of it no worker has.

    CPUs and memory that nobody declares are compared with the threads and the memory limit of each worker.
    """
    found: dict[str, float] = {}
    missing: dict[str, Any] = {}
    for kind, amount in demand._asdict().items():
        if not amount:
            continue
        declared = {name for member in crew.workers.values() for name in member.resources}
        name = next((name for name in NAMES[kind] if name in declared), None)
        if name is not None:
            has = max(member.resources.get(name, 0) for member in crew.workers.values())
            found[name] = amount
        elif kind == "cpus":
            has = max((member.threads for member in crew.workers.values()), default=0)
        elif kind == "memory":
            has = max((member.memory or float("inf") for member in crew.workers.values()), default=0)
        else:
            has = 0
        if has < amount:
            missing[kind] = amount
    return found, Demand(**missing)
