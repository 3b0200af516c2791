"""A node's call with its `retries` and its `timeout` around it."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from hypernodes._errors import NodeTimeoutError
from hypernodes._node import Node
from hypernodes._worker import as_here

__all__ = ["guarded", "overran"]

_overran = threading.local()


def guarded(node: Node[..., Any]) -> Callable[..., Any]:
    """The node's function, retried and timed out as the node says; the function itself where it says neither."""
    call = node.func
    if node.timeout is not None:
        call = _timed_async(node) if node.is_async else _timed(node)
    if node.retries:
        call = _retried_async(node, call) if node.is_async else _retried(node, call)
    return call


def overran() -> bool:
    """Whether a timed-out function may still be running in a helper thread of this process."""
    return getattr(_overran, "yes", False)


def _retried(node: Node[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def retried(*args: Any, **kwargs: Any) -> Any:
        for attempt in range(node.retries):
            try:
                return call(*args, **kwargs)
            except Exception:
                if node.retry_delay:
                    time.sleep(node.retry_delay * 2**attempt)
        return call(*args, **kwargs)

    return retried


def _retried_async(node: Node[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    async def retried(*args: Any, **kwargs: Any) -> Any:
        import asyncio

        for attempt in range(node.retries):
            try:
                return await call(*args, **kwargs)
            except Exception:
                await asyncio.sleep(node.retry_delay * 2**attempt)
        return await call(*args, **kwargs)

    return retried


def _timed(node: Node[..., Any]) -> Callable[..., Any]:
    """Run the function in a helper thread and leave it behind when time is up: Python cannot stop a thread."""
    func, seconds = node.func, node.timeout

    @functools.wraps(func)
    def timed(*args: Any, **kwargs: Any) -> Any:
        import contextvars

        outcome: list[Any] = []
        failed: list[BaseException] = []
        context = contextvars.copy_context()

        def target() -> None:
            try:
                outcome.append(context.run(func, *args, **kwargs))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=as_here(target), name=f"hypernodes-timeout-{node.name}", daemon=True)
        thread.start()
        thread.join(seconds)
        if failed:
            raise failed[0]
        if not outcome:
            _overran.yes = True
            raise _timeout(node)
        return outcome[0]

    return timed


def _timed_async(node: Node[..., Any]) -> Callable[..., Any]:
    func, seconds = node.func, node.timeout

    @functools.wraps(func)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        import asyncio

        ours = asyncio.timeout(seconds)
        try:
            async with ours:
                return await func(*args, **kwargs)
        except TimeoutError:
            if ours.expired():
                raise _timeout(node) from None
            raise

    return timed


def _timeout(node: Node[..., Any]) -> NodeTimeoutError:
    return NodeTimeoutError(f"node '{node.name}' ran longer than its timeout of {node.timeout:g} s")
