"""The places that are open in this process: one for each distinct backend, shared by all runs that use it."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hypernodes._backend import Backend, Session, engine_of, label
from hypernodes._engine import Engine, Site

__all__ = ["OpenPlace", "close", "close_all", "hold", "using"]


Told = Callable[[str, str, float], None]


class OpenPlace:
    """A backend's session and site. It closes when no run uses it, unless it is held by `with` or stays warm."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.engine: Engine = engine_of(backend)
        self.label = label(backend)
        self.session: Session = backend.open()
        self.site = Site(
            node_execution=backend.node_execution or "sequential",
            map_execution=backend.map_execution or "sequential",
            max_workers=backend.max_workers,
            handles=self.session.handles,
            name=backend.name,
            map_strategy=getattr(backend, "map_strategy", None),
        )
        self.users = 0
        self.held = False

    def close(self) -> None:
        try:
            self.site.close()
        finally:
            self.session.close()


_open: list[OpenPlace] = []
_lock = threading.RLock()


def _find(backend: Backend) -> OpenPlace | None:
    return next((place for place in _open if type(place.backend) is type(backend) and place.backend == backend), None)


def _get(backend: Backend) -> OpenPlace:
    place = _find(backend)
    if place is None:
        place = OpenPlace(backend)
        _open.append(place)
        # What it imported may have exit functions, and must be whole while the place is closed: ours runs first.
        atexit.unregister(close_all)
        atexit.register(close_all)
    return place


@contextmanager
def using(backend: Backend, told: Told | None = None) -> Iterator[OpenPlace]:
    """The open place of a backend, opened now if need be, for the length of the block.

    `told` hears when it is opened and when it is closed, with the place's name and the seconds it took.
    """
    started = time.perf_counter()
    with _lock:
        opened = _find(backend) is None
        place = _get(backend)
        place.users += 1
    try:
        if opened and told is not None:
            told("start", place.label, time.perf_counter() - started)
        yield place
    finally:
        with _lock:
            place.users -= 1
            over = not (place.users or place.held or place.session.warm) and place in _open
            if over:
                _open.remove(place)
        if over:
            started = time.perf_counter()
            try:
                place.close()
            finally:
                if told is not None:
                    told("end", place.label, time.perf_counter() - started)


def hold(backend: Backend) -> None:
    """Keep the backend's place open until `close`."""
    with _lock:
        _get(backend).held = True


def close(backend: Backend) -> None:
    """Close the backend's place, if it is open; a run that uses it keeps it until that run ends."""
    with _lock:
        place = _find(backend)
        if place is None:
            return
        place.held = place.session.warm = False
        over = not place.users
        if over:
            _open.remove(place)
    if over:
        place.close()


def close_all() -> None:
    """Close every place that no run is using. Runs by itself when the process ends."""
    with _lock:
        over = [place for place in _open if not place.users]
        _open[:] = [place for place in _open if place.users]
    for place in reversed(over):
        place.close()


def _forget() -> None:
    """A forked child owns nothing that its parent opened."""
    _open.clear()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
