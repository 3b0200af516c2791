"""What is told of a run while it goes on: plain records, the same on every engine and backend.

The events of a call make a tree: a `pipeline` (one run) or a `map` at the root; below a map one `item` for each row;
below those a `nested` for each nested pipeline, with an `item` for each row where it is mapped; at the leaves a `node`
for each call of a function. `place` events stand below the root, one pair for each place that the call opened: it ends
when the place is closed, or with the call where the place stays open for others. So do `resource` events: one starts
when a resource has been built for the call, in whatever process, and ends with the call. Every start comes after its
parent's start and every end before its parent's end. A node taken from the cache starts and ends at once with the
status `"cached"`. What had not come to its end when the call did ends with it, as `"stopped"`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes._failure import Failure

__all__ = ["KINDS", "STATUSES", "Callback", "Event", "Listener", "Run"]

KINDS = ("pipeline", "map", "item", "nested", "node", "place", "resource")
STATUSES = ("ok", "error", "cached", "stopped")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that began or ended. It holds names, times and types, never the values that nodes take or make.

    `kind` is one of `KINDS`, `phase` is `"start"` or `"end"`. `run` names the call; `span` this part of it, the same
    at its start and its end, and `parent` the span around it, `""` for the root: 16 hexadecimal digits each.
    `path` and `items` say where, as in a `Failure`. `time` is when it began or ended, in seconds since the epoch.

    At an end `seconds` is how long it took, or how long a place was open, and `status` one of `STATUSES`; `error` is
    the name of the exception's type, that of the earliest failing node where several nodes are in it. At the start of
    a place `seconds` is how long it took to open, at the start of a resource how long it took to build.
    `place` says where a node ran (`"local:threaded"`) and `worker` which process and thread ran it. `total` is how many
    items a map has, where that is known when it starts. `failure` is the failure of an item, a pipeline or a map that
    ended in one; it is left out of the event's repr, since an exception's message may hold values.
    """

    kind: str
    phase: str
    run: str
    span: str
    parent: str
    path: tuple[str, ...]
    items: tuple[int | None, ...]
    time: float
    seconds: float | None = None
    status: str = ""
    error: str = ""
    place: str = ""
    worker: str = ""
    total: int | None = None
    failure: Failure | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The last name of the path: the node, or the pipeline."""
        return self.path[-1] if self.path else ""

    @property
    def where(self) -> str:
        """The path as people read it: `main > inner (item 3) > encode`."""
        return " > ".join(
            name if index is None else f"{name} (item {index})"
            for name, index in zip(self.path, self.items, strict=True)
        )


Listener = Callable[[Event], object]


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a pipeline, as those who listen to it know it.

    `kind` is `"pipeline"` for a run of one item, else `"map"`. `total` is the number of items, where it is known.
    `steps` are the paths of the nodes that may run, in order, with the place each is for. `facts` are settings
    of the run by name, for display.
    """

    id: str
    pipeline: str
    kind: str
    total: int | None = None
    steps: Sequence[tuple[tuple[str, ...], str]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Callback:
    """Something that listens to runs: give it as `Pipeline(callbacks=[...])`. Subclass it and write `begin`.

    A plain function of one event will do as well. Listeners are called one event at a time, in the process where the
    pipeline was called; one that raises is logged and hears no more of that run.
    """

    def begin(self, run: Run) -> Listener | None:
        """A listener for the events of this run; None to hear nothing of it."""
        raise NotImplementedError(f"{type(self).__qualname__} must define begin(run)")
