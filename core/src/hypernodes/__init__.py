"""hypernodes: write functions for one item, compose them, and choose where and how they run.

    from hypernodes import LocalBackend, Pipeline, node

    @node(output_name="cleaned")
    def clean(text: str) -> str:
        return text.strip().lower()

    pipeline = Pipeline(nodes=[clean], backend=LocalBackend(engine="threaded"))
    pipeline.map([{"text": " A "}, {"text": " B "}], output_name="cleaned")

Engines, backends, caches and callbacks of plugins are names of this module too (`from hypernodes import ModalBackend`):
they are found by entry point when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes._cache import Cache
from hypernodes._errors import (
    BatchLengthError,
    CacheError,
    CacheWarning,
    CycleError,
    DuplicateNameError,
    DuplicateOutputError,
    GraphError,
    HypernodesError,
    IncompatibleEngineError,
    MissingInputError,
    NodeDefinitionError,
    NodeTimeoutError,
    OutputCountError,
    PipelineTimeoutError,
    PlaceError,
    PluginError,
    PluginLoadError,
    RemoteError,
    ResourceError,
    TypeMismatchError,
    UnkeyableError,
    UnknownInputError,
    UnknownNameError,
    UnknownOutputError,
    UnsendableError,
    VersionMismatchError,
    WorkerLostError,
)
from hypernodes._events import Callback, Event, Run
from hypernodes._failure import Failure, failure_of
from hypernodes._local import LocalBackend
from hypernodes._logging import LoggingCallback
from hypernodes._node import Node, node
from hypernodes._pipeline import Pipeline
from hypernodes._resource import Resource, resource
from hypernodes._version import __version__

if TYPE_CHECKING:
    from hypernodes._disk import DiskCache
    from hypernodes._memory import MemoryCache

__all__ = [
    "BatchLengthError",
    "Cache",
    "CacheError",
    "CacheWarning",
    "Callback",
    "CycleError",
    "DiskCache",
    "DuplicateNameError",
    "DuplicateOutputError",
    "Event",
    "Failure",
    "GraphError",
    "HypernodesError",
    "IncompatibleEngineError",
    "LocalBackend",
    "LoggingCallback",
    "MemoryCache",
    "MissingInputError",
    "Node",
    "NodeDefinitionError",
    "NodeTimeoutError",
    "OutputCountError",
    "Pipeline",
    "PipelineTimeoutError",
    "PlaceError",
    "PluginError",
    "PluginLoadError",
    "RemoteError",
    "Resource",
    "ResourceError",
    "Run",
    "TypeMismatchError",
    "UnkeyableError",
    "UnknownInputError",
    "UnknownNameError",
    "UnknownOutputError",
    "UnsendableError",
    "VersionMismatchError",
    "WorkerLostError",
    "__version__",
    "failure_of",
    "node",
    "resource",
]


def __getattr__(name: str) -> Any:
    """The engine, backend, cache or callback class of that name, from whichever installed plugin declares it."""
    if not name.startswith("_") and name.endswith(("Engine", "Backend", "Cache", "Callback")):
        from hypernodes._registry import find_class

        found = find_class(name)
        if found is not None:
            return found
    raise AttributeError(f"module 'hypernodes' has no attribute {name!r}")
