"""Daft in this process: loaded quietly, on a runner that was claimed, and never after a fork."""

from __future__ import annotations

import os
import sys
import threading
from contextvars import ContextVar
from types import ModuleType

from hypernodes.plugin import PlaceError

__all__ = ["in_query", "load", "native", "quiet"]

in_query: ContextVar[bool] = ContextVar("hypernodes_daft_in_query", default=False)
"""Whether this code runs for a query of Daft's, where another query would wait for threads that the first one holds."""

_QUIET = {"DAFT_ANALYTICS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "DAFT_SHOW_QUERY_ID": "0"}
"""What Daft tells others about its use, and what it draws. A variable that the user has set stays as it is."""

_lock = threading.Lock()
_claimed: int | None = None


def load() -> ModuleType:
    """Daft itself, without telemetry and bars of its own unless the user's environment asks for them."""
    if "daft" not in sys.modules:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    import daft

    return daft


def quiet() -> dict[str, str]:
    """The environment of processes elsewhere that load Daft: what the user says here holds there."""
    return {name: os.environ.get(name, value) for name, value in _QUIET.items()}


def native() -> ModuleType:
    """Daft, with its native runner claimed for this process. Raises `PlaceError` where that cannot be.

    Daft has one runner for each process. It would choose Ray by itself once a program has called `ray.init()`, and then
    what nodes return would have to travel.
    """
    global _claimed
    if _claimed == os.getpid():
        return load()
    with _lock:
        if _claimed is not None and _claimed != os.getpid():
            raise PlaceError(
                "Daft was used by this program before it forked this process, and would hang in here: its threads did "
                "not come along. Start processes with the method 'spawn' or 'forkserver', or use the engine 'daft' in "
                "one of them only"
            )
        daft = load()
        from daft import runners

        try:
            daft.set_runner_native()
        except Exception as error:
            found = runners.get_or_infer_runner_type()
            if found != "native":
                raise PlaceError(
                    f"this process already runs Daft on '{found}', and Daft has one runner for each process. The "
                    "engine 'daft' and map_frame need the native one: call daft.set_runner_native() before anything "
                    "else uses Daft, or run this pipeline in a process of its own"
                ) from error
        _claimed = os.getpid()
    return daft
