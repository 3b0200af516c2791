"""What a Dask task of ours is: one function of bytes, which every worker can import."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hypernodes.plugin import Stopped, receive
from hypernodes_coiled._stopping import run_stoppable

__all__ = ["NobodyWaits", "run_request"]


class NobodyWaits(Exception):
    """The task was stopped, because its request was given up."""


def run_request(key: str, may_end_worker: bool, payload: bytes, digests: Sequence[str], *blobs: bytes) -> bytes:
    """Run a request on a worker and give its reply. Never raises for what user code does: that is in the reply."""
    work = partial(receive, payload, dict(zip(digests, blobs, strict=True)))
    try:
        return run_stoppable(key, work, may_end_worker=may_end_worker)
    except Stopped as error:
        raise NobodyWaits(key) from error
