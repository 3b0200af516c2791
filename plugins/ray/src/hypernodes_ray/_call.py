"""One call on its way: a future that Ray's answer, a lost node or whoever lost interest brings to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any

from hypernodes_ray._share import Share

__all__ = ["Call"]


class Call(Future[bytes]):
    """A request for the cluster. `cancel` always works until the answer is there, and truly stops what runs.

    `dropped` is told of it. `ref` is Ray's reference to the answer, as long as it is awaited; `began` is when it went
    out. `owner` is who made it.
    """

    def __init__(
        self,
        share: Share,
        payload: bytes,
        blobs: Mapping[str, bytes],
        owner: object,
        dropped: Callable[[Call], None],
    ) -> None:
        super().__init__()
        self.share, self.payload, self.blobs, self.owner = share, payload, blobs, owner
        self.ref: Any = None
        self.actor: Any = None
        self.began = 0.0
        self._dropped = dropped

    def cancel(self) -> bool:
        """Nobody wants it any more."""
        if not super().cancel():
            return False
        self._dropped(self)
        return True

    def come_back(self) -> None:
        """It was not begun, or nobody can be blamed for its end: it fails with `CancelledError`."""
        super().cancel()

    def give(self, reply: bytes) -> None:
        try:
            self.set_result(reply)
        except InvalidStateError:
            return  # it was cancelled on the way

    def fail(self, error: BaseException) -> None:
        try:
            self.set_exception(error)
        except InvalidStateError:
            return
