"""How much of a cluster chunks may use at once, where nodes say what they need: Daft's runner for Ray does not ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypernodes.plugin import Demand, PlaceError, Stage

__all__ = ["Room"]


class Room:
    """Chunks that need something run side by side as far as all of them would fit on the smallest node of the cluster.

    Which node a chunk goes to is for Daft to say, so it may be that one for all.
    """

    def __init__(self) -> None:
        import ray

        listed: Any = ray  # whose functions say nothing of types
        nodes = [node["Resources"] for node in listed.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
        self.cpus = sum(int(node["CPU"]) for node in nodes) or 1
        cpus, memory = (min((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "memory"))
        self.smallest = Demand(cpus=cpus, memory=int(memory))
        self._used = 0.0
        self._changed = threading.Condition()

    def share_of(self, stage: Stage) -> float:
        """Which part of the smallest node a chunk of this stage needs. Raises `PlaceError` where there is none."""
        share = 0.0
        for who, demand in stage.demands:
            asked = demand._replace(cpus=demand.cpus if demand.cpus > 1 else 0)  # each has one
            for amount, there in zip(asked, self.smallest, strict=True):
                if amount > there:
                    raise PlaceError(
                        f"node '{who}' asks for {demand} for each call, and Daft's runner for Ray can promise no more "
                        f"than {self.smallest}, which each node of the cluster has; run this pipeline on RayBackend() "
                        "itself, whose engine 'ray' gives what is asked for"
                    )
                share = max(share, amount / there if amount else 0.0)
        return share

    @contextmanager
    def taken(self, share: float) -> Iterator[None]:
        """In this block so much is taken; it waits until it is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._used + share <= 1 + 1e-9 or not share)
            self._used += share
        try:
            yield
        finally:
            with self._changed:
                self._used -= share
                self._changed.notify_all()
