"""A blocking iterator seen from elsewhere: from an event loop, or from code that runs inside one."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from queue import Full, Queue
from typing import Any, TypeVar

from hypernodes._worker import as_here

__all__ = ["batches_from_thread", "from_thread"]

T = TypeVar("T")

_END = object()
AHEAD = 64


class _Pump:
    """Draws from an iterator in a thread of its own, into a bounded queue."""

    def __init__(self, make: Callable[[], Iterator[Any]], news: Callable[[], object]) -> None:
        self.queue: Queue[tuple[Any, BaseException | None]] = Queue(AHEAD)
        self.stopped = threading.Event()
        self.make, self.news = make, news
        context = contextvars.copy_context()
        self.thread = threading.Thread(
            target=context.run, args=(as_here(self._run),), name="hypernodes-bridge", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        iterator = self.make()
        try:
            for item in iterator:
                if not self._put((item, None)):
                    return
            self._put((_END, None))
        except BaseException as error:
            self._put((_END, error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _put(self, entry: tuple[Any, BaseException | None]) -> bool:
        while not self.stopped.is_set():
            try:
                self.queue.put(entry, timeout=0.1)
            except Full:
                continue
            self.news()
            return True
        return False

    def stop(self) -> None:
        self.stopped.set()


def from_thread(make: Callable[[], Iterator[T]]) -> Generator[T, None, None]:
    """The items of an iterator that is made and drawn in another thread, where no event loop is running."""
    pump = _Pump(make, lambda: None)
    try:
        while True:
            item, error = pump.queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        pump.stop()
        pump.thread.join(2.0)


async def batches_from_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[list[T], None]:
    """The same for a running loop, which is never blocked; items come in batches as they are ready."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    pump = _Pump(make, lambda: loop.call_soon_threadsafe(arrived.set))
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            batch: list[T] = []
            while not pump.queue.empty():
                item, error = pump.queue.get_nowait()
                if item is _END:
                    if batch:
                        yield batch
                    if error is not None:
                        raise error
                    return
                batch.append(item)
            if batch:
                yield batch
    finally:
        pump.stop()
        await asyncio.to_thread(pump.thread.join, 2.0)
