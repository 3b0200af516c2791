"""What one call is given of the cluster, and how many such calls the cluster can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hypernodes.plugin import Demand, PlaceError

__all__ = ["Share", "check", "largest", "room_for"]


class Share(NamedTuple):
    """Resources of one call. With `stays` it runs in an actor, of which there are at most `most`; `who` asked for it.

    No CPUs named means one for a task; an actor needs one to be placed, and holds none while it waits. An actor that
    awaits takes `at_once` calls; 0 says that it takes one after another.
    """

    demand: Demand
    stays: bool = False
    most: int = 1
    who: str = ""
    at_once: int = 0

    @property
    def asked(self) -> str:
        """What it asks for, in words."""
        return str(self.demand) if self.demand != Demand() else "1 CPU"

    def holds_of(self, other: Share) -> bool:
        """Whether an actor with it keeps something, even while it waits, that calls of another share ask for."""
        asked = other.demand._replace(cpus=other.demand.cpus or 1)
        return self.stays and any(mine and theirs for mine, theirs in zip(self.demand, asked, strict=True))

    def options(self) -> dict[str, Any]:
        """The share in Ray's own words."""
        cpus, gpus, memory = self.demand
        told: dict[str, Any] = {}
        if cpus or not self.stays:
            told["num_cpus"] = cpus or 1
        if gpus:
            told["num_gpus"] = gpus
        if memory:
            told["memory"] = memory
        if self.at_once:
            told["max_concurrency"] = self.at_once
        return told


def check(share: Share) -> None:
    """Raise `PlaceError` for an amount that Ray does not take."""
    for kind in ("cpus", "gpus"):
        amount = getattr(share.demand, kind)
        if amount > 1 and amount != int(amount):
            raise PlaceError(
                f"node '{share.who}' asks for {amount:g} {kind[:-1].upper()}s; above 1 Ray takes whole numbers alone"
            )


def room_for(share: Share, nodes: Iterable[Mapping[str, float]]) -> int:
    """How many such calls the nodes of a cluster, each with what it has, can hold side by side."""
    cpus, gpus, memory = share.demand
    asked = {"CPU": cpus or 1, "GPU": gpus, "memory": memory}
    needs = {kind: amount for kind, amount in asked.items() if amount}
    # A hair more: ten tenths make a whole, whatever rounding says.
    return sum(min(int(node.get(kind, 0) / amount + 1e-9) for kind, amount in needs.items()) for node in nodes)


def largest(nodes: Iterable[Mapping[str, float]]) -> Demand:
    """The most of each kind that one node has."""
    listed = list(nodes)

    def most(kind: str) -> float:
        return max((node.get(kind, 0) for node in listed), default=0)

    return Demand(most("CPU"), most("GPU"), int(most("memory")))
