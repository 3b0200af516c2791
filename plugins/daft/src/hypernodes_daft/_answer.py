"""The far side of the engine on Ray: what a worker of Daft's runs. The user's own code is reached only by `receive`."""

from __future__ import annotations

import pickle
from typing import Any

from hypernodes.plugin import FetchedBlobs, receive

__all__ = ["BEGUN_BEFORE", "INTERRUPTED", "NAMESPACE", "answer", "begins"]

BEGUN_BEFORE = b""
"""In place of a reply: a worker that died had begun with this, or it was given up."""
INTERRUPTED = b"!"
"""In place of a reply: a node raised KeyboardInterrupt."""

NAMESPACE = b"hypernodes-daft"


def answer(keys: Any, requests: Any, blobs: Any) -> list[bytes]:
    """The replies to requests, or one of the two that are none."""
    asked = zip(keys.to_pylist(), requests.to_pylist(), blobs.to_pylist(), strict=True)
    return [_reply(request, refs) if begins(key) else BEGUN_BEFORE for key, request, refs in asked]


def _reply(request: bytes, refs: bytes) -> bytes:
    import ray

    try:
        return receive(request, FetchedBlobs(pickle.loads(refs), ray.get))
    except KeyboardInterrupt:
        return INTERRUPTED


def begins(key: bytes) -> bool:
    """Whether nobody has begun this yet; from now on somebody has."""
    from ray.experimental import internal_kv

    return not internal_kv._internal_kv_put(key, b"begun", overwrite=False, namespace=NAMESPACE)
