"""Blobs that a worker process keeps: fetched when a request first needs one, and there for those that follow."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["KEPT_BYTES", "FetchedBlobs", "keep_blob", "kept_blob"]

KEPT_BYTES = 1 << 30
"""How many bytes of blobs a process keeps; what was not used for longest goes first."""

_kept: OrderedDict[str, bytes] = OrderedDict()


def kept_blob(digest: str) -> bytes | None:
    """The blob with this digest, if this process has it."""
    found = _kept.get(digest)
    if found is not None:
        _kept.move_to_end(digest)
    return found


def keep_blob(digest: str, blob: bytes) -> bytes:
    """Keep a blob, and let go of others where there is no room; gives it back."""
    _kept[digest] = blob
    while sum(map(len, _kept.values())) > KEPT_BYTES and len(_kept) > 1:
        _kept.popitem(last=False)
    return blob


class FetchedBlobs(Mapping[str, bytes]):
    """What requests have in common, by digest, for `receive`: `fetch` gets a blob by its reference, once a process."""

    def __init__(self, refs: Mapping[str, Any], fetch: Callable[[Any], bytes]) -> None:
        self._refs, self._fetch = refs, fetch

    def __getitem__(self, digest: str) -> bytes:
        found = kept_blob(digest)
        return keep_blob(digest, self._fetch(self._refs[digest])) if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)
