"""A cluster that is open: connected at first need, and connected anew when its scheduler was lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from distributed import Client

from hypernodes.plugin import Session, inside_worker, payload_of, receive
from hypernodes_coiled._clusters import Place
from hypernodes_coiled._crew import Crew
from hypernodes_coiled._errors import SchedulerLostError
from hypernodes_coiled._link import Link
from hypernodes_coiled._once import Once
from hypernodes_coiled._pool import DaskPool, Patience
from hypernodes_coiled._request import How, Request
from hypernodes_coiled._versions import check_versions

__all__ = ["CLIENT", "SESSION", "DaskSession"]

CLIENT, SESSION = "dask.client", "dask.session"
"""The session's handles: a `distributed.Client` for any engine, and the session itself for our own."""

_log = logging.getLogger("hypernodes")


class DaskSession(Session):
    """A session over a cluster that `find` makes or finds when the first request needs it.

    What `find` gives may be owned: then it is closed with the session, and made again when it went away between two
    runs. A run under way is never replayed in silence: it ends with `SchedulerLostError`.
    """

    def __init__(self, find: Callable[[], Place], patience: Patience, *, may_end_workers: bool | None = None) -> None:
        self.warm = True
        self.handles = _Handles(self)
        self._find, self._patience, self._may_end_workers = find, patience, may_end_workers
        self._lock = threading.RLock()
        self._place: Place | None = None
        self._pool: DaskPool | None = None
        self._client: Any = None
        self._requests: set[Request] = set()
        self._how = How()

    # -- the connection

    def pool(self) -> DaskPool:
        """What sends requests to the cluster, which is looked for, or started, if need be."""
        with self._lock:
            if self._pool is not None and self._pool.alive and self._place is not None and self._place.alive():
                return self._pool
            if self._pool is not None:
                self._let_go()
            if self._place is None:
                self._place = self._find()
            try:
                self._pool = self._connect(self._place)
            except BaseException:
                self._leave_place()
                raise
            return self._pool

    def ready(self) -> tuple[DaskPool, Crew]:
        """The same with its workers, when its scheduler has just answered: for a run that begins."""
        pool = self.pool()
        try:
            return pool, pool.crew()
        except SchedulerLostError:
            pool = self.pool()  # it went away since the last run
            return pool, pool.crew()

    def connected(self) -> DaskPool:
        """The same for a run under way: it does not go on with another scheduler than it began with."""
        return self._pool or self.pool()

    def client(self) -> Client:
        """A client of the same scheduler, for engines of others."""
        with self._lock:
            pool = self.pool()
            if self._client is None or self._client.status != "running":
                assert self._place is not None
                self._client = Client(
                    pool.link.address, security=self._place.security, set_as_default=False, name="hypernodes"
                )
            return self._client

    def _connect(self, place: Place) -> DaskPool:
        link = Link(place.address, place.security, timeout=self._patience.connection)
        try:
            check_versions(link)
            link.start(lambda: link.client.register_plugin(Once())).result()
            may_end = place.may_end_workers if self._may_end_workers is None else self._may_end_workers
            return DaskPool(link, self._patience, may_end_workers=may_end)
        except BaseException:
            link.close()
            raise

    def _let_go(self) -> None:
        """The scheduler, or the whole cluster, is gone: begin again with what is left."""
        assert self._pool is not None and self._place is not None
        why = self._pool.lost or f"the Dask cluster {self._place} is not running any more"
        self._close_connection()
        if self._place.owned:
            _log.warning("%s; another one is started", why)
            self._leave_place()
        else:
            _log.warning("%s; connecting anew", why)

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.close()

    def _close_connection(self) -> None:
        client, self._client = self._client, None
        pool, self._pool = self._pool, None
        if client is not None:
            client.close()
        if pool is not None:
            pool.close()

    # -- what core asks of a session

    @property
    def workers(self) -> int:  # type: ignore[override]
        """How many tasks run at once when all workers that were asked for are there."""
        with self._lock:
            _, crew = self.ready()
            assert self._place is not None
            return max(1, self._place.expected_threads(crew.threads, len(crew.workers)))

    def submit_request(self, frames: Sequence[Any], blobs: Mapping[str, bytes]) -> Future[bytes]:
        payload = payload_of(frames, {})
        if inside_worker():  # another task would wait for the thread that this one holds
            done: Future[bytes] = Future()
            done.set_result(receive(payload, blobs))
            return done
        request = self.connected().submit(payload, blobs, self._how)
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        return request

    def abort(self) -> None:
        for request in list(self._requests):
            request.cancel()

    def close(self) -> None:
        with self._lock:
            self._close_connection()
            self._leave_place()


class _Handles(Mapping[str, Any]):
    """The session's handles, which connect when they are taken."""

    def __init__(self, session: DaskSession) -> None:
        self._make: dict[str, Callable[[], Any]] = {CLIENT: session.client, SESSION: lambda: session}

    def __getitem__(self, name: str) -> Any:
        return self._make[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)
