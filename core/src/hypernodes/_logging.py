"""Runs in the log: who began and ended, how long it took, what failed. Names, times and types; never values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes._events import Callback, Event, Listener, Run
from hypernodes._tally import counted, duration, printable

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["LoggingCallback"]

INFO, WARNING = 20, 30  # of `logging`, which `import hypernodes` leaves alone
_WHOLE = ("pipeline", "map", "nested", "place", "resource")


class LoggingCallback(Callback):
    """Logs what the runs of a pipeline do to the logger called `logger`.

    At `level`: the start and the end of runs, maps, nested pipelines, places and resources, and of each item and node
    if `nodes` is true. At WARNING: each failure once, where it began, with its path, its items and the exception's
    type. The message is `encode > clean ended ok in 0.012 s`. The event's fields are the dict `record.hypernodes`, as
    plain values. An exception's message is never logged, since it may hold values.

    Raises TypeError if `level` is not a number of `logging`.
    """

    def __init__(self, logger: str = "hypernodes.run", level: int = INFO, nodes: bool = False) -> None:
        if type(level) is bool or not isinstance(level, int):
            raise TypeError(f"LoggingCallback: level={level!r} must be a level of logging, such as logging.INFO")
        self.logger, self.level, self.nodes = logger, level, nodes

    def __repr__(self) -> str:
        return f"LoggingCallback(logger={self.logger!r}, level={self.level}, nodes={self.nodes})"

    def begin(self, run: Run) -> Listener | None:
        import logging

        logger = logging.getLogger(self.logger)
        if not logger.isEnabledFor(self.level) and not logger.isEnabledFor(WARNING):
            return None
        return _Log(logger, self.level, self.nodes)


class _Log:
    """The listener of one run."""

    def __init__(self, logger: Logger, level: int, nodes: bool) -> None:
        self._logger, self._level = logger, level
        self._kinds = frozenset(_WHOLE + (("item", "node") if nodes else ()))
        # Spans that run now and inside which a failure was told: they fail because of it, which is no news.
        self._told: set[str] = set()

    def __call__(self, event: Event) -> None:
        failed = event.status == "error"
        level = self._level
        if failed:
            if event.span not in self._told:
                level = WARNING
            if event.parent:
                self._told.add(event.parent)
        if event.phase == "end":
            self._told.discard(event.span)
        if (event.kind in self._kinds or level == WARNING) and self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", message_of(event), extra={"hypernodes": fields_of(event)})


def message_of(event: Event) -> str:
    """`encode > clean ended ok in 0.012 s`."""
    where = printable(event.where) or event.kind
    if event.kind == "place":
        where += f": {printable(event.place)}"
    if event.phase == "start":
        items = "" if event.total is None else f", {counted(event.total, 'item')}"
        if event.kind == "resource":
            return f"{where} built in {duration(event.seconds or 0.0)}"
        return f"{where} {'opened' if event.kind == 'place' else 'started'}{items}"
    took = "" if event.seconds is None else duration(event.seconds)
    if event.status == "error":
        return f"{where} failed with {printable(event.error) or 'an error'}{took and f' after {took}'}{_origin(event)}"
    if event.status == "cached":
        return f"{where} came from the cache"
    if event.status == "stopped":
        return f"{where} was stopped{took and f' after {took}'}"
    if event.kind in ("place", "resource"):
        return f"{where} closed{took and f' after {took}'}"
    return f"{where} ended ok{took and f' in {took}'}"


def _origin(event: Event) -> str:
    """Where the failure began, if that is further in."""
    failure = event.failure
    if failure is None or (failure.path, failure.items) == (event.path, event.items):
        return ""
    return f", in {printable(failure.where)}"


def fields_of(event: Event) -> dict[str, Any]:
    """The event as plain values; of a failure its path and its items."""
    failure = event.failure
    origin = {} if failure is None else {"failed_path": list(failure.path), "failed_items": list(failure.items)}
    return {
        "kind": event.kind,
        "phase": event.phase,
        "run": event.run,
        "span": event.span,
        "parent": event.parent,
        "path": list(event.path),
        "items": list(event.items),
        "time": event.time,
        "seconds": event.seconds,
        "status": event.status,
        "error": event.error,
        "place": event.place,
        "worker": event.worker,
        "total": event.total,
        **origin,
    }
