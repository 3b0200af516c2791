"""The door for plugin authors: contracts, specs, hooks, and what engines, backends and caches call.

An engine over an executor subclasses `ExecutorEngine`; one that schedules by itself subclasses `Engine` and runs its
tasks with `run_task` or its steps with `run_step`. A backend subclasses `Backend` and `Session`, and calls `receive` on
the far side. A manifest module names them to hypernodes with `hookimpl`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec
from hypernodes.hookspecs import hookimpl

if TYPE_CHECKING:
    from hypernodes._backend import Backend, Session, check_workers, pair
    from hypernodes._blobs import FetchedBlobs, keep_blob, kept_blob
    from hypernodes._bytes_cache import BytesCache, Kept, Refused
    from hypernodes._cache import Cache, Found, Note
    from hypernodes._context import Context
    from hypernodes._demand import Demand, demand_of
    from hypernodes._diagram import Diagram, DiagramCluster, DiagramEdge, DiagramNode
    from hypernodes._engine import Engine, Feed, Site, run_in_line
    from hypernodes._engines import AsyncEngine, SequentialEngine
    from hypernodes._errors import (
        CacheError,
        CacheWarning,
        IncompatibleEngineError,
        PlaceError,
        RemoteError,
        UnsendableError,
        WorkerLostError,
    )
    from hypernodes._executor import ExecutorEngine, serve
    from hypernodes._failure import Failure
    from hypernodes._loops import run_coroutine
    from hypernodes._pace import Pace
    from hypernodes._payload import payload_of
    from hypernodes._plan import MapStep, Step
    from hypernodes._progress_lines import LineProgress, summary
    from hypernodes._rows import map_rows
    from hypernodes._scope import SharedScope, close_process
    from hypernodes._signing import SigningKey, signing_key_of
    from hypernodes._stoppable import Stoppable, Stopped
    from hypernodes._table import Table
    from hypernodes._tally import Part, Speed, Tally, counted, duration, printable
    from hypernodes._task import Batch, Outcome, Reply, Stage, Task, run_rows, run_rows_async, run_step, run_task
    from hypernodes._threads import ThreadPool
    from hypernodes._whole import write_whole
    from hypernodes._wire import receive, receive_async
    from hypernodes._worker import as_worker, inside_worker

__all__ = [
    "AsyncEngine",
    "Backend",
    "BackendSpec",
    "Batch",
    "BytesCache",
    "Cache",
    "CacheError",
    "CacheSpec",
    "CacheWarning",
    "Context",
    "Demand",
    "Diagram",
    "DiagramCluster",
    "DiagramEdge",
    "DiagramNode",
    "Engine",
    "EngineSpec",
    "ExecutorEngine",
    "Failure",
    "Feed",
    "FetchedBlobs",
    "Found",
    "IncompatibleEngineError",
    "Kept",
    "LineProgress",
    "MapStep",
    "Note",
    "Outcome",
    "Pace",
    "Part",
    "PlaceError",
    "Refused",
    "RemoteError",
    "Reply",
    "SequentialEngine",
    "Session",
    "SharedScope",
    "SigningKey",
    "Site",
    "Speed",
    "Stage",
    "Step",
    "Stoppable",
    "Stopped",
    "Table",
    "Tally",
    "Task",
    "ThreadPool",
    "UnsendableError",
    "WorkerLostError",
    "as_worker",
    "check_workers",
    "close_process",
    "counted",
    "demand_of",
    "duration",
    "hookimpl",
    "inside_worker",
    "keep_blob",
    "kept_blob",
    "map_rows",
    "pair",
    "payload_of",
    "printable",
    "receive",
    "receive_async",
    "run_coroutine",
    "run_in_line",
    "run_rows",
    "run_rows_async",
    "run_step",
    "run_task",
    "serve",
    "signing_key_of",
    "summary",
    "write_whole",
]

# A manifest needs specs and `hookimpl` alone: the rest, with asyncio behind it, loads when an engine does.
_HOMES = {
    "_blobs": ("FetchedBlobs", "keep_blob", "kept_blob"),
    "_backend": ("Backend", "Session", "check_workers", "pair"),
    "_bytes_cache": ("BytesCache", "Kept", "Refused"),
    "_cache": ("Cache", "Found", "Note"),
    "_context": ("Context",),
    "_demand": ("Demand", "demand_of"),
    "_diagram": ("Diagram", "DiagramCluster", "DiagramEdge", "DiagramNode"),
    "_engine": ("Engine", "Feed", "Site", "run_in_line"),
    "_engines": ("AsyncEngine", "SequentialEngine"),
    "_errors": (
        *("CacheError", "CacheWarning", "IncompatibleEngineError"),
        *("PlaceError", "RemoteError", "UnsendableError", "WorkerLostError"),
    ),
    "_executor": ("ExecutorEngine", "serve"),
    "_failure": ("Failure",),
    "_loops": ("run_coroutine",),
    "_pace": ("Pace",),
    "_payload": ("payload_of",),
    "_plan": ("MapStep", "Step"),
    "_progress_lines": ("LineProgress", "summary"),
    "_tally": ("Part", "Speed", "Tally", "counted", "duration", "printable"),
    "_rows": ("map_rows",),
    "_scope": ("SharedScope", "close_process"),
    "_signing": ("SigningKey", "signing_key_of"),
    "_stoppable": ("Stoppable", "Stopped"),
    "_table": ("Table",),
    "_task": ("Batch", "Outcome", "Reply", "Stage", "Task", "run_rows", "run_rows_async", "run_step", "run_task"),
    "_threads": ("ThreadPool",),
    "_whole": ("write_whole",),
    "_wire": ("receive", "receive_async"),
    "_worker": ("as_worker", "inside_worker"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hypernodes.plugin' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"hypernodes.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found
