"""A step's call with all that stands around it, the same for one item and for a batch."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from hypernodes._clock import Clock, Deadline
from hypernodes._errors import NodeTimeoutError
from hypernodes._flow import function_of
from hypernodes._late import importing
from hypernodes._limits import Retry
from hypernodes._node import Node
from hypernodes._plan import Step
from hypernodes._scope import Scope
from hypernodes._stoppable import start
from hypernodes._worker import as_here

__all__ = ["guarded", "overran"]

_overran = threading.local()

Call = Callable[..., Any]


def guarded(step: Step) -> Call:
    """The node's function with everything around it that the step says; the function itself where it says nothing.

    Of a generator node it gives the list; what is around it is for the whole of it.

    The deadline comes as the first argument of a step with a clock, then the scope of a step with one. Within, every
    layer is a call `(deadline, *arguments)`. From the function outwards: the timeout, what is done in the scope, the
    retries, and the resources, which are built before anything counts and never retried. So only the node's own work
    counts against its timeout, and each attempt is one by itself.
    """
    node, retry = step.node, step.retry
    limited, scoped = step.clock is not None, step.scope is not None
    if isinstance(node, Clock) or not (limited or scoped or retry or node.timeout):
        return function_of(node)
    if step.needs:
        with importing("hypernodes._acquire"):
            from hypernodes._acquire import supplied
    if step.needs and not (limited or retry or node.timeout or step.gates):
        return supplied(step.path, step.needs, function_of(node), is_async=node.is_async, alone=True)
    if limited or node.timeout is not None:
        call = _timed_async(node) if node.is_async else _timed(node)
    else:
        call = _without_deadline(node)
    if scoped:
        call = _in_scope(step, call)
    if retry is not None:
        call = _retried_async(retry, call) if node.is_async else _retried(retry, call)
    if step.needs:
        call = supplied(step.path, step.needs, call, is_async=node.is_async)
    return call if limited else functools.partial(call, None)


def _in_scope(step: Step, call: Call) -> Call:
    """A call `(deadline, scope, *arguments)` that gives the step what it needs and passes its gates, around `call`.

    Each of these layers is made here, and only for a step that has use for it.
    """
    call = _without_scope(step.node, call)
    if step.gates:
        with importing("hypernodes._gated"):
            from hypernodes._gated import gated

        call = gated(step.gates, step.node.name, call, is_async=step.node.is_async)
    return call


def _without_scope(node: Node[..., Any], call: Call) -> Call:
    """The scope ends here: what is further in knows nothing of it."""
    if node.is_async:

        async def unscoped_async(deadline: Deadline | None, _: Scope, /, *args: Any, **kwargs: Any) -> Any:
            return await call(deadline, *args, **kwargs)

        return unscoped_async

    def unscoped(deadline: Deadline | None, _: Scope, /, *args: Any, **kwargs: Any) -> Any:
        return call(deadline, *args, **kwargs)

    return unscoped


def overran() -> bool:
    """Whether a timed-out function may still be running in a helper thread of this process."""
    return getattr(_overran, "yes", False)


def _without_deadline(node: Node[..., Any]) -> Call:
    func = function_of(node)
    if node.is_async:

        async def plain_async(_: None, /, *args: Any, **kwargs: Any) -> Any:
            return await func(*args, **kwargs)

        return plain_async

    def plain(_: None, /, *args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return plain


def _again(retry: Retry, attempt: int, deadline: Deadline | None) -> float | None:
    """Seconds to wait before the next attempt; None where there is none, or no time left for it."""
    if attempt >= retry.times:
        return None
    pause = retry.pause(attempt)
    return None if deadline is not None and time.time() + pause >= deadline.at else pause


def _retried(retry: Retry, call: Call) -> Call:
    def retried(deadline: Deadline | None, /, *args: Any, **kwargs: Any) -> Any:
        attempt = 0
        while True:
            try:
                return call(deadline, *args, **kwargs)
            except retry.on:
                pause = _again(retry, attempt, deadline)
                if pause is None:
                    raise
            if pause:
                time.sleep(pause)
            attempt += 1

    return retried


def _retried_async(retry: Retry, call: Call) -> Call:
    async def retried(deadline: Deadline | None, /, *args: Any, **kwargs: Any) -> Any:
        import asyncio

        attempt = 0
        while True:
            try:
                return await call(deadline, *args, **kwargs)
            except retry.on:
                pause = _again(retry, attempt, deadline)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            attempt += 1

    return retried


def _limit(node: Node[..., Any], deadline: Deadline | None) -> tuple[float, Deadline | None]:
    """How many seconds a call may take now, and the deadline if that is what bounds it."""
    own = node.timeout
    if deadline is None:
        assert own is not None
        return min(own, threading.TIMEOUT_MAX), None
    left = deadline.left(node.name)
    if own is not None and own <= left:
        return min(own, threading.TIMEOUT_MAX), None
    return min(left, threading.TIMEOUT_MAX), deadline


def _timed(node: Node[..., Any]) -> Call:
    """Run the function in a helper thread and leave it behind when time is up: Python cannot stop a thread."""
    func = function_of(node)

    def timed(deadline: Deadline | None, /, *args: Any, **kwargs: Any) -> Any:
        import contextvars

        seconds, bound = _limit(node, deadline)
        outcome: list[Any] = []
        failed: list[BaseException] = []
        context = contextvars.copy_context()

        def target() -> None:
            try:
                outcome.append(context.run(func, *args, **kwargs))
            except BaseException as error:
                failed.append(error)

        started = time.perf_counter()
        thread = threading.Thread(target=as_here(target), name=f"hypernodes-timeout-{node.name}", daemon=True)
        start(thread)
        thread.join(seconds)
        if failed:
            raise failed[0]
        if not outcome:
            _overran.yes = True
            raise _timeout(node, bound, started)
        return outcome[0]

    return timed


def _timed_async(node: Node[..., Any]) -> Call:
    func = function_of(node)

    async def timed(deadline: Deadline | None, /, *args: Any, **kwargs: Any) -> Any:
        import asyncio

        seconds, bound = _limit(node, deadline)
        started = time.perf_counter()
        ours = asyncio.timeout(seconds)
        try:
            async with ours:
                return await func(*args, **kwargs)
        except TimeoutError:
            if ours.expired():
                raise _timeout(node, bound, started) from None
            raise

    return timed


def _timeout(node: Node[..., Any], bound: Deadline | None, started: float) -> Exception:
    if bound is not None:
        return bound.error(f"node '{node.name}' was given up after {time.perf_counter() - started:.3g} s")
    return NodeTimeoutError(f"node '{node.name}' ran longer than its timeout of {node.timeout:g} s")
