"""Requests as queries of Daft's on Ray: one row each, which a worker of Daft's answers."""

from __future__ import annotations

import functools
import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, cast

from hypernodes.plugin import PlaceError, Stage, ThreadPool, WorkerLostError
from hypernodes_daft import _ray
from hypernodes_daft._answer import BEGUN_BEFORE, INTERRUPTED, NAMESPACE, answer, begins
from hypernodes_daft._room import Room

__all__ = ["Queries"]

KEPT = 64
"""How many blobs stay in Ray's object store for requests that may need them again."""


class Queries:
    """Asks `workers` requests at once. A thread waits for each.

    Daft runs a query again, for ever, whose worker dies. So each request has a key in Ray's key-value store, by which
    it begins once and no more: begun again it is told as lost, and what becomes of it is for core to say.
    """

    def __init__(self, workers: int) -> None:
        self.daft = _ray.claim()
        self.room = Room()
        self._pool = ThreadPool(workers, "hypernodes-daft-ray")
        self._refs: OrderedDict[str, Any] = OrderedDict()
        self._out: set[bytes] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def ask(self, stage: Stage, payload: bytes, blobs: Mapping[str, bytes]) -> Future[bytes]:
        """Send one request; the future gives the reply. Raises `PlaceError` where its nodes ask for too much."""
        return self._pool.submit(self._ask, stage.name, self.room.share_of(stage), payload, self._shipped(blobs))

    def stop(self) -> None:
        """Nobody wants any of it any more: what a worker has not begun, none will begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._stopped = True
            keys = list(self._out)
        if _is_connected():
            for key in keys:
                begins(key)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._refs.clear()

    def _shipped(self, blobs: Mapping[str, bytes]) -> dict[str, Any]:
        """References to what the request has in common with others."""
        import ray

        found = {}
        with self._lock:
            for digest, blob in blobs.items():
                if digest not in self._refs:
                    self._refs[digest] = ray.put(blob)
                    if len(self._refs) > KEPT:
                        self._refs.popitem(last=False)
                self._refs.move_to_end(digest)
                found[digest] = self._refs[digest]
        return found

    def _ask(self, name: str, share: float, payload: bytes, refs: Mapping[str, Any]) -> bytes:
        with self.room.taken(share):
            return self._ask_once(name, payload, refs)

    def _ask_once(self, name: str, payload: bytes, refs: Mapping[str, Any]) -> bytes:
        key = uuid.uuid4().bytes
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._out.add(key)
        try:
            reply = self._query(name, key, payload, refs)
        except BaseException as error:
            # Ray ends the program where it has lost its cluster: SystemExit is among them.
            raise _told(error) from error
        finally:
            with self._lock:
                self._out.discard(key)
            _forget(key)
        if reply == INTERRUPTED:
            raise KeyboardInterrupt
        if reply == BEGUN_BEFORE and self._stopped:
            raise CancelledError  # another run stopped it
        if reply == BEGUN_BEFORE:
            raise WorkerLostError("the Ray worker that ran this item died (a signal, os._exit, or no memory left)")
        return reply

    def _query(self, name: str, key: bytes, payload: bytes, refs: Mapping[str, Any]) -> bytes:
        from ray import cloudpickle

        daft, dumps = self.daft, cast(Any, cloudpickle).dumps  # which says nothing of types
        binary = daft.DataType.binary()
        told = {"key": key, "request": payload, "blobs": dumps(refs)}
        columns = {column: daft.Series.from_pylist([value], column, dtype=binary) for column, value in told.items()}
        reference = functools.partial(answer)
        reference.__name__ = reference.__qualname__ = name  # type: ignore[attr-defined]
        reference.__module__ = ""
        function = daft.func.batch(return_dtype=binary)(reference)
        frame = daft.from_pydict(columns).select(function(*map(daft.col, columns)).alias("reply"))
        (reply,) = frame.to_pydict()["reply"]
        return bytes(reply)


def _is_connected() -> bool:
    import ray

    return bool(ray.is_initialized())


def _forget(key: bytes) -> None:
    if _is_connected():
        from ray.experimental import internal_kv

        internal_kv._internal_kv_del(key, namespace=NAMESPACE)


def _told(error: BaseException) -> PlaceError:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if "No module named" in str(error):
        missing = next(line for line in lines if "No module named" in line).strip()
        return PlaceError(
            f"a worker of Daft's on the Ray cluster could not begin: {missing}; install hypernodes-daft there in the "
            "version that is here, or let Ray do it: RayBackend(runtime_env={'pip': ['hypernodes-daft[ray]']})"
        )
    return PlaceError(f"Daft's runner for Ray failed: {type(error).__name__}: {text}")
