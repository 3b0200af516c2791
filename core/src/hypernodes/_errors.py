"""The exception tree, and the sentence builders that messages share.

HypernodesError
├── GraphError (ValueError)          something is wrong with a pipeline, found before any node runs
│   ├── NodeDefinitionError (TypeError)
│   ├── CycleError
│   ├── DuplicateOutputError
│   ├── UnknownInputError
│   ├── UnknownOutputError
│   ├── MissingInputError
│   └── TypeMismatchError (TypeError)
├── PluginError                      a plugin is unknown, absent, broken or not unique
│   ├── UnknownNameError (LookupError)
│   ├── PluginLoadError (ImportError)
│   └── DuplicateNameError
├── IncompatibleEngineError (ValueError)   an engine, a mode and a backend that do not fit
├── OutputCountError (ValueError)    a node returned another number of values than it declares
├── NodeTimeoutError (TimeoutError)  a node ran longer than its `timeout`
├── PipelineTimeoutError (TimeoutError)  a run of a pipeline took longer than the pipeline's `timeout`
├── PlaceError                       the place, not the user's code, failed
│   ├── WorkerLostError
│   ├── ResourceError
│   ├── UnsendableError (TypeError)
│   └── VersionMismatchError
├── RemoteError                      stands in for an exception that could not travel
├── CacheError
└── UnkeyableError (TypeError)       no cache key can be made of a value or of a function

CacheWarning (UserWarning) is what trouble with a cache becomes while pipelines run.

Exceptions that user code raises are never wrapped: they arrive as they are, with notes.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BatchLengthError",
    "CacheError",
    "CacheWarning",
    "CycleError",
    "DuplicateNameError",
    "DuplicateOutputError",
    "GraphError",
    "HypernodesError",
    "IncompatibleEngineError",
    "MissingInputError",
    "NodeDefinitionError",
    "NodeTimeoutError",
    "OutputCountError",
    "PipelineTimeoutError",
    "PlaceError",
    "PluginError",
    "PluginLoadError",
    "RemoteError",
    "ResourceError",
    "TypeMismatchError",
    "UnkeyableError",
    "UnknownInputError",
    "UnknownNameError",
    "UnknownOutputError",
    "UnsendableError",
    "VersionMismatchError",
    "WorkerLostError",
]


class HypernodesError(Exception):
    """Base of every error that hypernodes itself raises."""


class GraphError(HypernodesError, ValueError):
    """A pipeline is wired wrongly, or called with inputs or outputs that it does not have."""


class NodeDefinitionError(GraphError, TypeError):
    """A function or an option given to `@node`, `Pipeline` or `as_node` cannot be used."""


class CycleError(GraphError):
    """Nodes wait for each other; the message shows the path."""


class DuplicateOutputError(GraphError):
    """Two nodes make the same output."""


class UnknownInputError(GraphError):
    """An input was given that no node of the pipeline takes or makes."""


class UnknownOutputError(GraphError):
    """An output was asked for that no node of the pipeline makes."""


class MissingInputError(GraphError):
    """A needed input was not given; the message names node and parameter."""


class TypeMismatchError(GraphError, TypeError):
    """What one node returns can not be what another takes, by their annotations."""


class PluginError(HypernodesError):
    """A plugin could not be found, loaded or told from another."""


class UnknownNameError(PluginError, LookupError):
    """No engine or backend of that name is installed."""


class PluginLoadError(PluginError, ImportError):
    """A plugin is installed but could not be imported; `__cause__` holds the original."""


class DuplicateNameError(PluginError):
    """Two installed plugins claim one name."""


class IncompatibleEngineError(HypernodesError, ValueError):
    """An engine, its modes and a backend do not fit together."""


class OutputCountError(HypernodesError, ValueError):
    """A node returned another number of values than it has output names."""


class BatchLengthError(HypernodesError, ValueError):
    """A batch node returned no list, or one of another length than its batch; the message says both."""


class NodeTimeoutError(HypernodesError, TimeoutError):
    """A node ran longer than its `timeout`, in seconds."""


class PipelineTimeoutError(HypernodesError, TimeoutError):
    """A run of a pipeline, or of one item of its map, took longer than the pipeline's `timeout`, in seconds."""


class PlaceError(HypernodesError):
    """The place where nodes run failed, rather than the nodes."""


class WorkerLostError(PlaceError):
    """A worker died while it ran this item, and died again when the item was tried alone."""


class ResourceError(PlaceError):
    """A resource could not be built, or not be closed; `__cause__` holds what its function raised.

    `resource` and `pipeline` name it and the pipeline that provides it, `what` is `"built"` or `"closed"`, and `place`
    says where, as far as that is known. `ends` is the call that it ends, empty when that call is over.
    """

    ends: str = ""

    def __init__(self, resource: str, pipeline: str, what: str, reason: str, place: str = "") -> None:
        super().__init__(resource, pipeline, what, reason, place)
        self.resource, self.pipeline, self.what, self.reason, self.place = resource, pipeline, what, reason, place

    def __str__(self) -> str:
        where = f" on {self.place}" if self.place else ""
        return f"resource '{self.resource}' (of {self.pipeline}) could not be {self.what}{where}: {self.reason}"

    def at(self, place: str) -> ResourceError:
        """The same error, which now knows where; the first to say so counts."""
        self.place = self.place or place
        return self


def ends_call(error: BaseException) -> bool:
    """Whether this is no failure of an item, but the end of the call that it came up in."""
    return isinstance(error, ResourceError) and bool(error.ends)


class UnsendableError(PlaceError, TypeError):
    """A function, an input or a result cannot be pickled; the message names it and the part at fault."""


class VersionMismatchError(PlaceError):
    """The far side runs another Python or hypernodes version than this one."""


class RemoteError(HypernodesError):
    """Stands in for an exception that could not travel; holds its type's name, text and traceback as text."""

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"


class CacheError(HypernodesError):
    """A cache address cannot be opened, or a cache's settings cannot be used."""


class CacheWarning(UserWarning):
    """A cache could not be read or written. The run goes on without it, and nothing is lost but time."""


class UnkeyableError(HypernodesError, TypeError):
    """A value, or what a function reaches, has no content that could be told soundly; the message names it."""


def quoted(names: Iterable[object]) -> str:
    """`'a', 'b', 'c'`, or `none` when there is nothing to name."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def a_kind(value: object) -> str:
    """The type of a value as people say it: `a str`, `an int`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or an empty string when nothing known is near."""
    import difflib  # 1 ms of importing, for a mistake that most runs never make

    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def without_secrets(url: str) -> str:
    """The address without what may be a password: the part before an @, and everything after a question mark."""
    import re

    return re.sub(r"\?.*", "?...", re.sub(r"://[^/@]*@", "://...@", url))
