"""Results in the order of their rows, whatever order they come in."""

from __future__ import annotations

from collections.abc import Iterator

from hypernodes._engine import Feed
from hypernodes._task import Batch

__all__ = ["Turns", "in_order"]


class Turns:
    """Puts batches into the order of their rows, and tells the feed how many rows wait for an earlier one."""

    def __init__(self, feed: Feed, *, stop_at_failure: bool = False) -> None:
        self.feed, self.stop_at_failure = feed, stop_at_failure
        self._waiting: dict[int, Batch] = {}
        self._turn = 0

    def ready(self, batch: Batch) -> list[Batch]:
        """The batches whose turn has come with this one."""
        if batch.failures and self.stop_at_failure:
            # Whatever comes later will not be asked for; what came earlier is still awaited.
            self.feed.stop(batch.first + min(batch.failures))
        waiting = self._waiting
        if batch.first != self._turn:
            waiting[batch.first] = batch
            self.feed.held += len(batch.values)
            return []
        found = [batch]
        self._turn += len(batch.values)
        let_go = 0
        while self._turn in waiting:
            batch = waiting.pop(self._turn)
            let_go += len(batch.values)
            self._turn += len(batch.values)
            found.append(batch)
        if let_go:
            self.feed.let_go(let_go)
        return found


def in_order(batches: Iterator[Batch], feed: Feed, *, stop_at_failure: bool = False) -> Iterator[Batch]:
    """Batches in the order of their rows."""
    turns = Turns(feed, stop_at_failure=stop_at_failure)
    for batch in batches:
        yield from turns.ready(batch)
