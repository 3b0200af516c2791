"""`DaskEngine`, `DaskBackend` and `CoiledBackend`: pipelines on Dask clusters, on this machine or elsewhere."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes_coiled._backend import DaskBackend
    from hypernodes_coiled._coiled import CoiledBackend
    from hypernodes_coiled._engine import DaskEngine
    from hypernodes_coiled._errors import CoiledLoginError, CoiledStartError, NoWorkersError, SchedulerLostError

__all__ = [
    "CoiledBackend",
    "CoiledLoginError",
    "CoiledStartError",
    "DaskBackend",
    "DaskEngine",
    "NoWorkersError",
    "SchedulerLostError",
]

# The manifest lies in this package and must not load Dask.
_HOMES = {
    "CoiledBackend": "_coiled",
    "CoiledLoginError": "_errors",
    "CoiledStartError": "_errors",
    "DaskBackend": "_backend",
    "DaskEngine": "_engine",
    "NoWorkersError": "_errors",
    "SchedulerLostError": "_errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hypernodes_coiled' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hypernodes_coiled.{_HOMES[name]}"), name)
