"""What the cluster has that this process is connected to, and whether it can ever give what a call asks for."""

from __future__ import annotations

import time
import warnings
from typing import Any

from hypernodes.plugin import Demand, PlaceError, Stage
from hypernodes_ray._share import Share, check, largest, room_for

__all__ = ["Cluster", "free_now"]

FRESH = 1.0
"""Seconds for which it is taken as known what nodes there are: a run asks several times before its first call."""


class Cluster:
    """The nodes of the cluster. With `autoscales` what no node can hold may wait for one that can."""

    def __init__(self, *, autoscales: bool) -> None:
        self.autoscales = autoscales
        self.closed = False
        self._nodes: tuple[float, list[dict[str, float]]] | None = None

    def slots(self) -> int:
        """How many calls of one CPU the cluster can hold now, at least one."""
        return max(1, room_for(Share(Demand()), self.nodes()))

    def nodes(self) -> list[dict[str, float]]:
        """What each living node of the cluster has."""
        import ray

        if self.closed or not ray.is_initialized():
            raise PlaceError(
                "the connection to the Ray cluster is closed (ray.shutdown() was called, or the cluster ended); call "
                "backend.close() and run again to connect anew"
            )
        known = self._nodes
        if known is not None and time.monotonic() - known[0] < FRESH:
            return known[1]
        try:
            listed: Any = ray  # whose functions say nothing of types
            found = [node["Resources"] for node in listed.nodes() if node["Alive"]]
        except Exception as error:
            raise PlaceError(f"the Ray cluster does not answer: {type(error).__name__}: {error}") from error
        self._nodes = time.monotonic(), found
        return found

    def share_for(self, stage: Stage, workers: int, at_once: int = 0) -> Share:
        """What each call of a stage is given, in an actor that takes so many `at_once` where that is not 0.

        Raises `PlaceError` where no node can ever give that.
        """
        demands = stage.demands
        who = demands[0][0] if demands else stage.name
        demand = Demand(*map(max, zip(*(asked for _, asked in demands), strict=True))) if demands else Demand()
        stays = at_once > 0 or stage.is_stateful or demand.gpus > 0
        return self.share(demand, stays=stays, most=workers, who=who)._replace(at_once=at_once)

    def share(self, demand: Demand, *, stays: bool, most: int, who: str) -> Share:
        share = Share(demand, stays, most, who)
        check(share)
        nodes = self.nodes()
        room = room_for(share, nodes)
        if not room:
            told = (
                f"node '{who}' asks for {share.asked} for each call, and no node of the Ray cluster has that: the most "
                f"that one has is {largest(nodes)}"
            )
            if not self.autoscales:
                raise PlaceError(
                    f"{told}; ask for less in @node(resources=...), start a node that has it, or say "
                    "RayBackend(autoscales=True) for a cluster that adds nodes when work waits for them"
                )
            warnings.warn(f"{told} now; it waits until the cluster adds one", stacklevel=2)
        return share._replace(most=max(1, min(most, room or most)))


def free_now() -> list[dict[str, float]]:
    """What is free on each node, or, where Ray does not tell it node by node, in all."""
    import ray
    from ray._private import state

    client: Any = ray.util.client.ray
    listed: Any = getattr(state, "available_resources_per_node", None)
    if listed is None or client.is_connected():
        listed = ray
        return [listed.available_resources()]
    return list(listed().values())
