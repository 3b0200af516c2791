"""What holds for the nodes of a pipeline: each thing from the nearest pipeline around them that named it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from hypernodes._errors import NodeDefinitionError, a_kind
from hypernodes._events import Callback, Listener

__all__ = ["INHERIT", "Inherit", "Setting", "checked_callbacks"]


class Inherit(Enum):
    """The type of `INHERIT`."""

    INHERIT = "inherit"

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final[Literal[Inherit.INHERIT]] = Inherit.INHERIT
"""What a pipeline gives for an option that it leaves to the pipeline around it, where None means "off"."""


class Setting(NamedTuple):
    """The settings of one pipeline where it is nested, and the names of the pipelines that chose them, `""` for none.

    `place` is an index into the places of the plan. `cache` is a cache, its address, or None. `heard`: the callbacks
    of this pipeline or of one around it hear something of it; without any of its own, when it begins and ends.
    """

    place: int
    place_origin: str
    cache: Any
    cache_origin: str
    callbacks: tuple[Any, ...]
    callbacks_origin: str
    heard: bool


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
