"""What holds for the nodes of a pipeline: each thing from the nearest pipeline around them that named it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from hypernodes._errors import NodeDefinitionError, a_kind
from hypernodes._events import Callback, Listener
from hypernodes._limits import Retry
from hypernodes._quota import Quota, quotas_of

if TYPE_CHECKING:
    from hypernodes._node import Node

__all__ = ["INHERIT", "Bounds", "Inherit", "Setting", "checked_callbacks"]


class Inherit(Enum):
    """The type of `INHERIT`."""

    INHERIT = "inherit"

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final[Literal[Inherit.INHERIT]] = Inherit.INHERIT
"""What a pipeline gives for an option that it leaves to the pipeline around it, where None means "off"."""


class Bounds(Protocol):
    """The limits that a pipeline names for its nodes; None where it leaves one to the pipeline around it."""

    @property
    def timeout(self) -> float | None: ...
    @property
    def retries(self) -> int | None: ...
    @property
    def retry_delay(self) -> float | None: ...
    @property
    def keep_inputs(self) -> bool | None: ...
    @property
    def limits(self) -> Mapping[str, Any] | None: ...


class Setting(NamedTuple):
    """The settings of one pipeline where it is nested, and the names of the pipelines that chose them, `""` for none.

    `place` is an index into the places of the plan. `cache` is a cache, its address, or None. `heard`: the callbacks
    of this pipeline or of one around it hear something of it; without any of its own, when it begins and ends.
    `timeout` is the shortest of those around, in seconds. `limits` are those that its nodes may count against.
    """

    place: int
    place_origin: str
    cache: Any
    cache_origin: str
    callbacks: tuple[Any, ...]
    callbacks_origin: str
    heard: bool
    timeout: float | None = None
    timeout_origin: str = ""
    retries: int = 0
    retries_origin: str = ""
    retry_delay: float = 0.0
    keep_inputs: bool = False
    limits: tuple[Quota, ...] = ()

    def bounded_by(self, pipeline: Bounds, path: tuple[str, ...]) -> Setting:
        """This setting with the pipeline's limits, under the path it has here. A longer timeout bounds nothing."""
        found, name = self, path[-1]
        if pipeline.timeout is not None and (self.timeout is None or pipeline.timeout < self.timeout):
            found = found._replace(timeout=pipeline.timeout, timeout_origin=name)
        if pipeline.retries is not None:
            found = found._replace(retries=pipeline.retries, retries_origin=name)
        if pipeline.retry_delay is not None:
            found = found._replace(retry_delay=pipeline.retry_delay)
        if pipeline.keep_inputs is not None:
            found = found._replace(keep_inputs=pipeline.keep_inputs)
        if pipeline.limits:
            known = {quota.name: quota for quota in found.limits}
            for quota in quotas_of(f"pipeline '{name}'", pipeline.limits).values():
                known[quota.name] = quota._replace(origin=name, key=f"{quota.name} of {' > '.join(path)}")
            found = found._replace(limits=tuple(known.values()))
        return found

    def retry_of(self, node: Node[..., Any]) -> Retry | None:
        """The node's rule to retry, and this one's where it names none; None where nothing is retried."""
        times = self.retries if node.retries is None else node.retries
        if not times:
            return None
        delay = self.retry_delay if node.retry_delay is None else node.retry_delay
        return Retry(times, delay, node.max_retry_delay, node.retry_on, node.retry_jitter)


def checked_callbacks(pipeline: str, callbacks: object) -> Iterator[Callback | Listener]:
    """The callbacks, if they are a sequence of `Callback`s and functions; else raises `NodeDefinitionError`."""
    if isinstance(callbacks, Callback) or callable(callbacks):
        raise NodeDefinitionError(f"pipeline '{pipeline}': callbacks takes a list; write callbacks=[...]")
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise NodeDefinitionError(f"pipeline '{pipeline}': callbacks takes a list, not {a_kind(callbacks)}")
    for callback in callbacks:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise NodeDefinitionError(
                f"pipeline '{pipeline}': {callback.__name__} among its callbacks is a class; call it: "
                f"{callback.__name__}()"
            )
        if not isinstance(callback, Callback) and not callable(callback):
            raise NodeDefinitionError(
                f"pipeline '{pipeline}': {callback!r} among its callbacks is neither a Callback nor a function of an "
                "event"
            )
        yield callback
