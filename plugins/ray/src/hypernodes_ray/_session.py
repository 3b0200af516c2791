"""A backend that is open: the connection, and what runs there for engines that know nothing of Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from hypernodes.plugin import Demand, Session, payload_of
from hypernodes_ray._connection import Wanted, at_exit, connect, forget
from hypernodes_ray._engine import HANDLE
from hypernodes_ray._runtime import Runtime
from hypernodes_ray._share import Share
from hypernodes_ray._ship import Shipped

__all__ = ["RaySession"]


class RaySession(Session):
    """Requests of engines that run inside workers go to actors: what such an engine opens there stays open."""

    warm = True

    def __init__(self, wanted: Wanted, demand: Demand, workers: int | None, *, autoscales: bool, engine: str) -> None:
        self.connection = connect(wanted)
        self._over = False
        try:
            env = None if self.connection.brings_env else wanted.runtime_env
            self.runtime = Runtime(env, autoscales=autoscales)
            at_exit(self.close)
            self.shipped = Shipped(wanted)
            self.handles: Mapping[str, Any] = {HANDLE: self.runtime}
            self._share: Share | None = None
            if engine != "ray":
                slots = self.runtime.cluster.slots()
                asked = self.runtime.cluster.share(demand, stays=True, most=workers or slots, who=f"engine '{engine}'")
                self._share, self.workers = asked, asked.most
        except BaseException:
            self.close()
            raise

    def submit(self, payload: bytes) -> Future[bytes]:
        return self.submit_request_bytes(payload, {})

    def submit_request(self, frames: Sequence[Any], blobs: Mapping[str, bytes]) -> Future[bytes]:
        return self.submit_request_bytes(payload_of(frames, {}), blobs)

    def submit_request_bytes(self, payload: bytes, blobs: Mapping[str, bytes]) -> Future[bytes]:
        assert self._share is not None
        return self.runtime.submit(self._share, payload, blobs, owner=self)

    def abort(self) -> None:
        self.runtime.stop(self)

    def close(self) -> None:
        if self._over:
            return
        self._over = True
        runtime = getattr(self, "runtime", None)
        try:
            if runtime is not None:
                forget(self.close)
                runtime.close()
        finally:
            shipped = getattr(self, "shipped", None)
            if shipped is not None:
                shipped.close()
            self.connection.close()
