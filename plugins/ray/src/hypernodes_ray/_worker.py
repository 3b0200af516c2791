"""The far side: what a Ray worker runs. The user's own code is reached only by `receive`."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from hypernodes.plugin import receive

__all__ = ["Worker", "run"]

KEPT_BYTES = 1 << 30
"""How many bytes of blobs a worker process keeps; what was not used for longest goes first."""

_kept: OrderedDict[str, bytes] = OrderedDict()


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
        else:
            _kept.move_to_end(digest)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)


def run(payload: bytes, refs: Mapping[str, Any]) -> bytes:
    """One request, as a task. `refs` are references to its blobs; a bare one would be fetched for each task."""
    return receive(payload, _Blobs(refs))


class Worker:
    """One worker process that stays: what it has built - resources, a model on a GPU - serves later requests."""

    def ready(self) -> tuple[str, int]:
        """The node and the process it runs in."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, payload: bytes, refs: Mapping[str, Any]) -> bytes:
        return run(payload, refs)
