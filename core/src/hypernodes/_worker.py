"""Whether code runs in a pool's worker. Helper threads that work for a worker count as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["as_here", "as_worker", "inside_worker", "mark_worker"]


class _Worker(threading.local):
    inside = False


_worker = _Worker()
_process_is_worker = False


def mark_worker(*, process: bool = False) -> None:
    """Say that this thread (or this whole process) is a pool's worker: pools named inside it run in line."""
    global _process_is_worker
    if process:
        _process_is_worker = True
    _worker.inside = True


@contextmanager
def as_worker() -> Iterator[None]:
    """In this block, this thread is a pool's worker."""
    before, _worker.inside = _worker.inside, True
    try:
        yield
    finally:
        _worker.inside = before


def inside_worker() -> bool:
    """Whether this code runs in a pool's worker, where another pool would wait for itself or multiply workers."""
    return _process_is_worker or _worker.inside


def as_here(target: Callable[[], None]) -> Callable[[], None]:
    """`target` for a helper thread that this thread waits for: a worker's helper is a worker too.

    Else it would hand work to the pool in whose worker this thread holds a place, and both would wait for ever.
    """
    if not _worker.inside:
        return target

    def marked() -> None:
        mark_worker()
        target()

    return marked
