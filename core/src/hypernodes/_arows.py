"""Rows from an async iterable, drawn on the running loop no faster than results are taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Any

from hypernodes._calls import not_a_row
from hypernodes._engine import QueueFeed
from hypernodes._errors import GraphError, quoted
from hypernodes._task import Task

__all__ = ["AsyncRows"]

AHEAD = 256
"""Rows that may be drawn before the first of them has been delivered."""


class AsyncRows:
    """Draws rows of equal keys into a feed. Use `first`, then `start`, tell each `delivered`, and `close`."""

    def __init__(self, pipeline: str, items: AsyncIterable[Any]) -> None:
        self.pipeline = pipeline
        self._items: AsyncIterator[Any] = aiter(items)
        self._room = asyncio.Semaphore(AHEAD)
        self._first: Mapping[str, Any] | None = None
        self._pump: asyncio.Task[None] | None = None

    async def first(self) -> Mapping[str, Any] | None:
        """The first row, by whose keys the call is compiled; None when there is none."""
        row = await anext(self._items, None)
        self._first = None if row is None else self._checked(0, row)
        return self._first

    def start(self, values_of: Callable[[Mapping[str, Any]], tuple[Any, ...]]) -> QueueFeed:
        """Begin to draw; the feed ends with the rows."""
        feed = QueueFeed()
        assert self._first is not None
        feed.put(Task(0, values_of(self._first)))
        self._pump = asyncio.get_running_loop().create_task(self._draw(feed, values_of))
        return feed

    async def _draw(self, feed: QueueFeed, values_of: Callable[[Mapping[str, Any]], tuple[Any, ...]]) -> None:
        index = 1
        try:
            async for row in self._items:
                await self._room.acquire()
                feed.put(Task(index, values_of(self._checked(index, row))))
                index += 1
        except Exception as error:
            feed.error = error
        finally:
            feed.close()

    def _checked(self, index: int, row: Any) -> Mapping[str, Any]:
        if not isinstance(row, Mapping):
            raise not_a_row(self.pipeline, index, row)
        if self._first is not None and row.keys() != self._first.keys():
            raise GraphError(
                f"pipeline '{self.pipeline}': item {index} has the keys {quoted(row)}, item 0 has "
                f"{quoted(self._first)}; give all items of an async iterable the same keys"
            )
        return row

    def delivered(self) -> None:
        """One result was taken: one more row may be drawn."""
        self._room.release()

    async def close(self) -> None:
        """Draw no more."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
