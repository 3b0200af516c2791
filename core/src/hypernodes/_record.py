"""What is noted of each call of a watched node, where it runs, and how it finds its way to whoever watches.

A node that runs in the process of its run tells the run's watcher at once, in the thread and context it runs in. One
that runs elsewhere leaves records in a list that travels home with the reply.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter, time
from typing import Any, NamedTuple, Protocol

__all__ = [
    "Built",
    "Record",
    "RecordedBatch",
    "Watcher",
    "below",
    "cancelled",
    "collecting",
    "deliver",
    "is_stopped",
    "recorded",
    "watching",
    "worker_name",
]

Span = tuple[str, tuple[tuple[int, int], ...]]
"""Which row of a run: the run's id, and the index of the item at each level of the path that is mapped."""


class Record(NamedTuple):
    """One call of one node that is over. `started` is in seconds since the epoch."""

    span: Span
    path: tuple[str, ...]
    started: float
    seconds: float
    status: str
    error: str
    worker: str


class Built(NamedTuple):
    """A resource that was built, or could not be, in so many seconds: `path` is its provider's and its name, `node` is
    that of the node that needed it first. The first of `span` is the id of the call's scope.
    """

    span: Span
    path: tuple[str, ...]
    started: float
    seconds: float
    status: str
    error: str
    worker: str
    node: tuple[str, ...]


class Watcher(Protocol):
    """Who hears of the nodes of a run, in the process of the run."""

    def started(self, span: Span, path: tuple[str, ...], at: float, worker: str) -> Any:
        """A node begins, in this thread; what is returned comes back with its end."""

    def ended(self, token: Any, record: Record) -> None:
        """It is over."""

    def told(self, record: Record | Built) -> None:
        """A node that ran elsewhere, or did not need to run, is over; or a resource was built, here or elsewhere."""


_watchers: dict[str, Watcher] = {}
_sink: ContextVar[list[Record | Built] | None] = ContextVar("hypernodes_records", default=None)


@contextmanager
def watching(run: str, watcher: Watcher) -> Iterator[None]:
    """Let the watcher hear of every node of this run, for the length of the block."""
    _watchers[run] = watcher
    try:
        yield
    finally:
        del _watchers[run]


@contextmanager
def collecting() -> Iterator[list[Record | Built]]:
    """Records of nodes whose run is another process's, as they are made inside the block."""
    records: list[Record | Built] = []
    token = _sink.set(records)
    try:
        yield records
    finally:
        _sink.reset(token)


def deliver(records: Iterable[Record | Built]) -> None:
    """Pass records on, to the watcher of their run or towards home."""
    for record in records:
        watcher = _watchers.get(record.span[0])
        if watcher is not None:
            watcher.told(record)
        else:
            sink = _sink.get()
            if sink is not None:
                sink.append(record)


def below(span: Span, depth: int, index: int) -> Span:
    """The row `index` of a map whose pipeline is at `depth` in the path, within the row `span`."""
    return (span[0], (*span[1], (depth, index)))


def worker_name() -> str:
    """This process and thread, as events name them."""
    return f"{os.getpid()}/{threading.current_thread().name}"


def recorded(path: tuple[str, ...], call: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """The call with a first argument more, the row it is for, and what is noted of it."""
    if is_async:

        async def record_async(span: Span, /, *args: Any, **kwargs: Any) -> Any:
            watcher = _watchers.get(span[0])
            started, worker = time(), worker_name()
            token = None if watcher is None else watcher.started(span, path, started, worker)
            clock = perf_counter()
            try:
                value = await call(*args, **kwargs)
            except BaseException as error:
                _end(watcher, token, Record(span, path, started, perf_counter() - clock, *_fault(error), worker))
                raise
            _end(watcher, token, Record(span, path, started, perf_counter() - clock, "ok", "", worker))
            return value

        return record_async

    def record(span: Span, /, *args: Any, **kwargs: Any) -> Any:
        watcher = _watchers.get(span[0])
        started, worker = time(), worker_name()
        token = None if watcher is None else watcher.started(span, path, started, worker)
        clock = perf_counter()
        try:
            value = call(*args, **kwargs)
        except BaseException as error:
            _end(watcher, token, Record(span, path, started, perf_counter() - clock, *_fault(error), worker))
            raise
        _end(watcher, token, Record(span, path, started, perf_counter() - clock, "ok", "", worker))
        return value

    return record


class RecordedBatch:
    """What is noted of the items of one batch: they begin one after another, at one time, and end the other way round.

    Begun when it is made. The watchers are called in the thread of the call.
    """

    def __init__(self, path: tuple[str, ...], spans: Sequence[Span]) -> None:
        self.path, self.spans = path, spans
        self.started, self.worker = time(), worker_name()
        self._begun: list[tuple[Watcher | None, Any]] = []
        for span in spans:
            watcher = _watchers.get(span[0])
            token = None if watcher is None else watcher.started(span, path, self.started, self.worker)
            self._begun.append((watcher, token))
        self._clock = perf_counter()

    def end(self, errors: Mapping[int, BaseException], rest: BaseException | None = None) -> None:
        """It is over: those of the items at these positions raised, and the others, where there is a `rest`, that."""
        seconds = perf_counter() - self._clock
        for at in reversed(range(len(self.spans))):
            error = errors.get(at, rest)
            fault = ("ok", "") if error is None else _fault(error)
            watcher, token = self._begun[at]
            _end(watcher, token, Record(self.spans[at], self.path, self.started, seconds, *fault, self.worker))


def is_stopped(error: BaseException) -> bool:
    """Whether this stops a coroutine from outside, and is no failure of what it does."""
    return isinstance(error, KeyboardInterrupt | GeneratorExit) or cancelled(error)


def _fault(error: BaseException) -> tuple[str, str]:
    return "stopped" if is_stopped(error) else "error", type(error).__qualname__


def cancelled(error: BaseException) -> bool:
    """Whether this stops the task from outside; what a node itself raises is its own failure."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


def _end(watcher: Watcher | None, token: Any, record: Record) -> None:
    if watcher is not None:
        watcher.ended(token, record)
    else:
        sink = _sink.get()
        if sink is not None:
            sink.append(record)
