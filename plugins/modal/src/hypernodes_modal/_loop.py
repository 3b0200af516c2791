"""The one background thread whose event loop makes all calls to Modal.

A program's own thread waits for futures. So scripts, notebooks with a running loop and Ctrl-C all behave: an interrupt
strikes while a future is waited for, never inside Modal's client.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

_lock = threading.Lock()
_loop: _Loop | None = None


class _Loop:
    def __init__(self) -> None:
        self.users = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="hypernodes-modal", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


def hold() -> asyncio.AbstractEventLoop:
    """The loop, running until `release` was called as often as this."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = _Loop()
        _loop.users += 1
        return _loop.loop


def release() -> None:
    global _loop
    with _lock:
        assert _loop is not None
        _loop.users -= 1
        over = None if _loop.users else _loop
        if over is not None:
            _loop = None
    if over is not None:
        over.stop()


def wait_for(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine gives, run on the loop while this thread waits; an interrupt cancels it."""
    future: Future[Result] = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _forget() -> None:
    """A forked child has no such thread."""
    global _loop
    _loop = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
