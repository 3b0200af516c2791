"""Event loops: running coroutines from plain code, also where a loop is running already."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from hypernodes._scope import keeps_on
from hypernodes._stoppable import at_loop, at_work, start, uninterrupted
from hypernodes._worker import as_here

__all__ = [
    "OwnLoop",
    "close_abandoned_loops",
    "close_thread_loop",
    "is_loop_running",
    "keep_thread_loop",
    "keeping_thread_loop",
    "run_coroutine",
    "run_in_fresh_thread",
    "run_on",
]

T = TypeVar("T")

LONGEST_CLOSING = 5.0
"""Seconds that closing something waits for an event loop that is busy in another thread."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, threading.Lock] = WeakKeyDictionary()
"""Whose turn it is to run a loop that a thread keeps: a call that ends may have something to close on it."""


class OwnLoop:
    """A loop for the length of a `with` block. What was built on it for nodes is closed before it ends."""

    def __enter__(self) -> OwnLoop:
        self._runner = _open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _close(self._runner, interrupted=kind is not None and issubclass(kind, KeyboardInterrupt))

    def run(self, coroutine: Coroutine[Any, Any, T], context: contextvars.Context | None = None) -> T:
        """The coroutine's result."""
        return _run_on(self._runner, coroutine, context)


def _open() -> asyncio.Runner:
    """A runner with a loop, which work that is stopped closes at its end if nothing else does."""
    with uninterrupted:
        runner = asyncio.Runner()
        runner.get_loop()
        if (work := at_work()) is not None:
            work.open.add(runner)
        return runner


def _run_on(runner: asyncio.Runner, coroutine: Coroutine[Any, Any, T], context: contextvars.Context | None = None) -> T:
    return at_loop(runner.get_loop(), lambda: runner.run(coroutine, context=context))


def _close(runner: asyncio.Runner, *, interrupted: bool = False) -> None:
    """Close a loop, and before it what was built on it."""

    def close() -> None:
        try:
            if interrupted:
                _break_off(runner)
            _leave(runner)
        finally:
            try:
                runner.close()
            finally:
                if (work := at_work()) is not None:
                    work.open.discard(runner)

    at_loop(runner.get_loop(), close, closing=True)


def _break_off(runner: asyncio.Runner) -> None:
    """Cancel what an interrupted run left on the loop, and wait for that: it must not go on under the next run."""
    loop = runner.get_loop()
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    loop.call_soon(loop.stop)  # as may have been left to do: then the next run would be stopped
    loop.run_forever()
    if rest := {task for task in rest if not task.done()}:
        runner.run(_wait_for(rest))


async def _wait_for(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=LONGEST_CLOSING)


def _leave(runner: asyncio.Runner) -> None:
    """Close what was built on this loop; what that raises is told when the call ends."""
    for keep, held in keeps_on(runner.get_loop()):
        try:
            if held.aclose is not None:
                runner.run(_awaited(held.aclose))
        except BaseException as error:
            keep.faulty(error)


async def _awaited(function: Callable[[], Any]) -> None:
    await function()


class _ThreadLoop(threading.local):
    """The loop that a worker thread keeps for all coroutines it runs; closed when the thread ends."""

    runner: asyncio.Runner | None = None
    keep = False
    always = False

    def __del__(self) -> None:
        if self.runner is not None:
            self.runner.close()


_loop = _ThreadLoop()


def keep_thread_loop() -> None:
    """Let this thread keep its loop from call to call, so that clients bound to it stay usable."""
    _loop.keep = _loop.always = True


def close_thread_loop() -> None:
    """Close the loop that this thread kept, if any."""
    kept, _loop.runner = _loop.runner, None
    if kept is not None:
        with _turns[kept.get_loop()]:
            _close(kept)


def close_abandoned_loops(opened: Iterable[asyncio.Runner]) -> None:
    """Close those of the loops opened in this thread that an exception from outside kept from being closed."""
    _loop.keep = _loop.always
    if not _loop.keep:
        _loop.runner = None
    for runner in opened:
        if runner is not _loop.runner:
            _close(runner, interrupted=True)


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
    try:
        return _run(coroutine)
    finally:
        if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            coroutine.close()  # something stopped this thread first; Python would warn of what is never awaited


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    if is_loop_running():
        return run_in_fresh_thread(coroutine)
    if _loop.keep:
        if _loop.runner is None:
            runner = _open()
            _turns[runner.get_loop()] = threading.Lock()
            _loop.runner = runner  # not before it is known whose turn it is
        with _turns[_loop.runner.get_loop()]:
            try:
                return _run_on(_loop.runner, coroutine, contextvars.copy_context())
            except KeyboardInterrupt:
                at_loop(_loop.runner.get_loop(), functools.partial(_break_off, _loop.runner))
                raise
    with OwnLoop() as own:
        return own.run(coroutine)


def run_on(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
    """Await the function's coroutine on a loop that belongs to another thread, which may or may not run it now."""
    if is_loop_running() and asyncio.get_running_loop() is loop:
        raise RuntimeError("the event loop that it was built on is busy in this very thread")
    turn = _turns.get(loop)
    while turn is not None and not turn.acquire(timeout=0.05):
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(_awaited(function), loop).result(LONGEST_CLOSING)
            return
    try:
        if loop.is_closed():
            return
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(_awaited(function), loop).result(LONGEST_CLOSING)
        elif is_loop_running():
            _in_thread(lambda: loop.run_until_complete(_awaited(function)))
        else:
            loop.run_until_complete(_awaited(function))
    finally:
        if turn is not None:
            turn.release()


def _in_thread(target: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="hypernodes-loop", daemon=True)
    start(thread)
    thread.join()
    if errors:
        raise errors[0]


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
            with OwnLoop() as own:
                results.append(own.run(main(), context=context))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=as_here(target), name="hypernodes-loop", daemon=True)
    start(thread)
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
