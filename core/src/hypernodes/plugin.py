"""The door for plugin authors: contracts, specs, hooks, and what engines and backends call.

An engine over an executor subclasses `ExecutorEngine`; one that schedules by itself subclasses `Engine` and runs its
tasks with `run_task` or its steps with `run_step`. A backend subclasses `Backend` and `Session`, and calls `receive` on
the far side. A manifest module names them to hypernodes with `hookimpl`.
"""

from __future__ import annotations

from hypernodes._backend import Backend, Session, pair
from hypernodes._context import Context
from hypernodes._engine import Engine, Feed, Site, inside_worker
from hypernodes._errors import IncompatibleEngineError, PlaceError, RemoteError, UnsendableError, WorkerLostError
from hypernodes._executor import ExecutorEngine, serve
from hypernodes._failure import Failure
from hypernodes._pace import Pace
from hypernodes._specs import BackendSpec, EngineSpec
from hypernodes._task import Outcome, Reply, Stage, Task, run_rows, run_step, run_task
from hypernodes._threads import ThreadPool
from hypernodes._wire import receive
from hypernodes.hookspecs import hookimpl

__all__ = [
    "Backend",
    "BackendSpec",
    "Context",
    "Engine",
    "EngineSpec",
    "ExecutorEngine",
    "Failure",
    "Feed",
    "IncompatibleEngineError",
    "Outcome",
    "Pace",
    "PlaceError",
    "RemoteError",
    "Reply",
    "Session",
    "Site",
    "Stage",
    "Task",
    "ThreadPool",
    "UnsendableError",
    "WorkerLostError",
    "hookimpl",
    "inside_worker",
    "pair",
    "receive",
    "run_rows",
    "run_step",
    "run_task",
    "serve",
]
