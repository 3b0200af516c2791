"""The far side of the engine on Ray: what a worker of Daft's runs. The user's own code is reached only by `receive`."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from hypernodes.plugin import receive

__all__ = ["BEGUN_BEFORE", "INTERRUPTED", "NAMESPACE", "answer", "begins"]

BEGUN_BEFORE = b""
"""In place of a reply: a worker that died had begun with this, or it was given up."""
INTERRUPTED = b"!"
"""In place of a reply: a node raised KeyboardInterrupt."""

NAMESPACE = b"hypernodes-daft"
KEPT_BYTES = 1 << 30
"""How many bytes of blobs a worker process keeps; what was not used for longest goes first."""

_kept: OrderedDict[str, bytes] = OrderedDict()


def answer(keys: Any, requests: Any, blobs: Any) -> list[bytes]:
    """The replies to requests, or one of the two that are none."""
    asked = zip(keys.to_pylist(), requests.to_pylist(), blobs.to_pylist(), strict=True)
    return [_reply(request, refs) if begins(key) else BEGUN_BEFORE for key, request, refs in asked]


def _reply(request: bytes, refs: bytes) -> bytes:
    try:
        return receive(request, _Blobs(pickle.loads(refs)))
    except KeyboardInterrupt:
        return INTERRUPTED


def begins(key: bytes) -> bool:
    """Whether nobody has begun this yet; from now on somebody has."""
    from ray.experimental import internal_kv

    return not internal_kv._internal_kv_put(key, b"begun", overwrite=False, namespace=NAMESPACE)


class _Blobs(Mapping[str, bytes]):
    """What requests have in common, by digest: fetched from the object store once for each process."""

    def __init__(self, refs: Mapping[str, Any]) -> None:
        self._refs = refs

    def __getitem__(self, digest: str) -> bytes:
        found = _kept.get(digest)
        if found is None:
            import ray

            found = _kept[digest] = ray.get(self._refs[digest])
            while sum(map(len, _kept.values())) > KEPT_BYTES and len(_kept) > 1:
                _kept.popitem(last=False)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)
