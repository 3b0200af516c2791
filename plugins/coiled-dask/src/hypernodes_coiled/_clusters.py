"""The cluster of a backend, whatever it was given: where its scheduler is, whether it is ours, how many work there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from distributed import Client
from distributed.deploy import Cluster

from hypernodes import IncompatibleEngineError, PlaceError
from hypernodes_coiled._local import LocalCluster, LocalPlan

__all__ = ["GivenPlace", "Place", "check_address", "place_of"]


class Place(ABC):
    """A cluster to connect to. `owned` says that it was made for this backend and is closed with it."""

    address: str
    security: Any = None
    owned: bool = False

    @property
    def may_end_workers(self) -> bool:
        """Whether a worker may be ended that does not come back: it serves nobody else."""
        return self.owned

    def alive(self) -> bool:
        """Whether it is there, as far as is known without asking its scheduler."""
        return True

    def expected_threads(self, present: int, workers: int) -> int:
        """How many tasks may run at once when all workers that were asked for are there."""
        return present

    def close(self) -> None:  # noqa: B027
        """End the cluster, if it is owned."""

    @abstractmethod
    def __str__(self) -> str: ...


class _Address(Place):
    def __init__(self, address: str, security: Any) -> None:
        self.address, self.security = address, security

    def __str__(self) -> str:
        return self.address


class GivenPlace(Place):
    """A `distributed.Client` or a cluster object."""

    def __init__(self, cluster: Any, security: Any, *, owned: bool) -> None:
        self._cluster, self.owned = cluster, owned
        self.security = security or getattr(cluster, "security", None)
        if isinstance(cluster, Client):
            self.address = cluster.scheduler.address
        else:
            self.address = cluster.scheduler_address

    def alive(self) -> bool:
        status = getattr(self._cluster.status, "name", self._cluster.status)
        return bool(status == "running")

    def expected_threads(self, present: int, workers: int) -> int:
        cluster = self._cluster.cluster if isinstance(self._cluster, Client) else self._cluster
        planned = len(getattr(cluster, "plan", ()))
        adaptive = getattr(cluster, "_adaptive", None)
        if adaptive is not None and math.isfinite(adaptive.maximum):
            planned = max(planned, int(adaptive.maximum))
        each = max(1, present // workers) if workers else 1
        return max(present, planned * each)

    def close(self) -> None:
        if self.owned:
            self._cluster.close()

    def __str__(self) -> str:
        return self.address


class _Local(Place):
    owned = True

    def __init__(self, plan: LocalPlan) -> None:
        self.cluster = LocalCluster(plan)
        self.address, self.security = self.cluster.address, self.cluster.security

    def alive(self) -> bool:
        return self.cluster.alive()

    def close(self) -> None:
        self.cluster.close()

    def __str__(self) -> str:
        return f"{self.address} (local)"


def place_of(
    cluster: Any, *, security: Any = None, insecure: bool = False, local: LocalPlan | None = None, owned: bool = False
) -> Place:
    """The place of whatever a backend was given: None, an address, a client, a cluster, or what makes one of them.

    What a callable makes is owned. Raises `PlaceError` for anything else.
    """
    if cluster is None:
        return _Local(local or LocalPlan())
    if isinstance(cluster, str):
        check_address(cluster, insecure=insecure)
        return _Address(cluster, security)
    if isinstance(cluster, Client | Cluster):
        if cluster.asynchronous:
            raise PlaceError(
                f"{type(cluster).__name__} at {_address_of(cluster)} was made with asynchronous=True and belongs to an "
                "event loop; give DaskBackend the scheduler's address instead"
            )
        place = GivenPlace(cluster, security, owned=owned)
        check_address(place.address, insecure=insecure)
        return place
    if callable(cluster):
        made = cluster()
        if callable(made) and not isinstance(made, Client | Cluster):
            raise PlaceError(
                f"{_name_of(cluster)}() returned a function; it is to return a cluster, a client, an address"
            )
        return place_of(made, security=security, insecure=insecure, owned=True)
    raise PlaceError(
        f"{type(cluster).__name__} is no Dask cluster; give an address such as 'tls://host:8786', a "
        "distributed.Client, a cluster object, a function that makes one of them, or None for a cluster on this machine"
    )


def check_address(address: str, *, insecure: bool) -> None:
    """Refuse a scheduler that anybody in the network could send code to, unless told to go on."""
    url = urlsplit(address if "://" in address else f"tcp://{address}")
    loopback = url.hostname in ("localhost", "::1") or (url.hostname or "").startswith("127.")
    if url.scheme in ("tls", "inproc", "wss") or loopback or insecure:
        return
    raise IncompatibleEngineError(
        f"DaskBackend: the scheduler at {address} speaks {url.scheme} without TLS: whoever reaches it can run code on "
        "its workers and in this process. Give a 'tls://' address with security=, or say insecure=True in a network "
        "that you trust"
    )


def _address_of(cluster: Any) -> str:
    return str(getattr(cluster, "scheduler_address", None) or getattr(cluster.scheduler, "address", "?"))


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
