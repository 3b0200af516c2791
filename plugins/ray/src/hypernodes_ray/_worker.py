"""The far side: what a Ray worker runs. The user's own code is reached only by `receive`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from hypernodes.plugin import FetchedBlobs, close_process, keep_blob, kept_blob, receive, receive_async

__all__ = ["AwaitingWorker", "Worker", "run"]


def run(payload: bytes, refs: Mapping[str, Any]) -> bytes:
    """One request, as a task. `refs` are references to its blobs; a bare one would be fetched for each task."""
    import ray

    return receive(payload, FetchedBlobs(refs, ray.get))


class Worker:
    """One worker process that stays: what it has built - resources, a model on a GPU - serves later requests."""

    def ready(self) -> tuple[str, int]:
        """The node and the process it runs in."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, payload: bytes, refs: Mapping[str, Any]) -> bytes:
        return run(payload, refs)

    def end(self) -> None:
        """Close what it has built: how Ray ends an actor leaves no time for that."""
        close_process()


class AwaitingWorker:
    """One worker process that stays, and awaits many requests at once on one event loop."""

    def __init__(self) -> None:
        self._coming: dict[str, asyncio.Task[bytes]] = {}

    async def ready(self) -> tuple[str, int]:
        """The node and the process it runs in."""
        return Worker().ready()

    async def run(self, payload: bytes, refs: Mapping[str, Any]) -> bytes:
        """One request. What it has in common with others is fetched once, while those that have it go on."""
        blobs = {digest: await self._blob(digest, ref) for digest, ref in refs.items()}
        return await receive_async(payload, blobs)

    async def _blob(self, digest: str, ref: Any) -> bytes:
        found = kept_blob(digest)
        if found is not None:
            return found
        coming = self._coming.get(digest)
        if coming is None:
            coming = self._coming[digest] = asyncio.ensure_future(self._fetch(digest, ref))
        # A request that is given up leaves the others that wait for it undisturbed.
        return await asyncio.shield(coming)

    async def _fetch(self, digest: str, ref: Any) -> bytes:
        try:
            return keep_blob(digest, await ref)
        finally:
            del self._coming[digest]

    async def end(self) -> None:
        """Close what it has built, in a thread: some of it is closed on this very loop."""
        await asyncio.to_thread(close_process)
