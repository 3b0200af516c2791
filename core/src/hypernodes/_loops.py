"""Event loops: running coroutines from plain code, also where a loop is running already."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from hypernodes._worker import as_here

__all__ = [
    "close_thread_loop",
    "is_loop_running",
    "keep_thread_loop",
    "keeping_thread_loop",
    "run_coroutine",
    "run_in_fresh_thread",
]

T = TypeVar("T")


class _ThreadLoop(threading.local):
    """The loop that a worker thread keeps for all coroutines it runs; closed when the thread ends."""

    runner: asyncio.Runner | None = None
    keep = False

    def __del__(self) -> None:
        if self.runner is not None:
            self.runner.close()


_loop = _ThreadLoop()


def keep_thread_loop() -> None:
    """Let this thread keep its loop from call to call, so that clients bound to it stay usable."""
    _loop.keep = True


def close_thread_loop() -> None:
    """Close the loop that this thread kept, if any."""
    runner, _loop.runner = _loop.runner, None
    if runner is not None:
        runner.close()


@contextlib.contextmanager
def keeping_thread_loop(wanted: bool = True) -> Iterator[None]:
    """Keep one loop for all coroutines that run in this block; a block inside such a block shares its loop."""
    if not wanted or _loop.keep:
        yield
        return
    _loop.keep = True
    try:
        yield
    finally:
        _loop.keep = False
        close_thread_loop()


def is_loop_running() -> bool:
    """Whether an event loop is running in this thread, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, from plain code.

    In a worker thread it runs on the loop that the thread keeps; elsewhere on a loop of its own; and where a loop is
    running already (a notebook) in a fresh thread, with this thread's context variables.
    """
    if is_loop_running():
        return run_in_fresh_thread(coroutine)
    if _loop.keep:
        if _loop.runner is None:
            _loop.runner = asyncio.Runner()
        return _loop.runner.run(coroutine, context=contextvars.copy_context())
    with asyncio.Runner() as runner:
        return runner.run(coroutine)


def run_in_fresh_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on a new loop in a new thread; an interrupt here cancels it there."""
    context = contextvars.copy_context()
    results: list[T] = []
    errors: list[BaseException] = []
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.append((asyncio.get_running_loop(), task))
        return await coroutine

    def target() -> None:
        try:
            with asyncio.Runner() as runner:
                results.append(runner.run(main(), context=context))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=as_here(target), name="hypernodes-loop", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        for loop, task in started:
            loop.call_soon_threadsafe(task.cancel)
        thread.join(1.0)
        raise
    if errors:
        raise errors[0]
    return results[0]
