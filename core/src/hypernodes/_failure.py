"""A failing node as data: where it happened, what it was, and how it becomes the user's own exception again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol

from hypernodes._errors import HypernodesError, RemoteError, ResourceError

__all__ = ["Failure", "Located", "failure_of", "raise_failure", "raise_if_it_ends"]

_ATTRIBUTE = "__hypernodes_failure__"
LONGEST_TEXT = 10_000
"""Characters of an exception's text that travel; the rest is cut, so that one huge message cannot fill logs."""


class Replay(Protocol):
    """A node's call that can be made again. `lost` says why not; it is empty where it can."""

    @property
    def lost(self) -> str: ...
    @property
    def inputs(self) -> dict[str, Any]: ...
    def call(self) -> Any: ...


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """What is left of an item whose node raised; `map(..., on_error="return")` puts it in the item's place.

    `path` names the pipelines from the outermost to the node. `items` runs parallel to `path`: the index of the
    item within that pipeline's map, or None where the level was not mapped. `error` is the exception itself, or a
    `RemoteError` when the original could not travel. `place` says where it ran, for example `"local:threaded"`.
    `made` holds, on the way to a cache, what the steps before the failing one made.
    `places` says for each pipeline of the path where it runs. `kept` is the node's call, where its pipeline keeps
    inputs; it is told to nobody who does not ask for it, since inputs may be secret.
    """

    path: tuple[str, ...]
    items: tuple[int | None, ...]
    type_name: str
    message: str
    error: BaseException
    place: str = ""
    traceback_text: str = ""
    made: dict[int, Any] | None = field(default=None, compare=False)
    places: tuple[str, ...] = field(default=(), compare=False)
    kept: Replay | None = field(default=None, compare=False)

    @property
    def item(self) -> int | None:
        """The index of the outermost mapped item, or None when nothing was mapped."""
        return next((index for index in self.items if index is not None), None)

    @property
    def node(self) -> str:
        """The name of the node that failed."""
        return self.path[-1]

    @property
    def where(self) -> str:
        """The path as people read it: `main > inner (item 3) > encode`."""
        return " > ".join(
            name if index is None else f"{name} (item {index})"
            for name, index in zip(self.path, self.items, strict=True)
        )

    @property
    def hops(self) -> str:
        """Each pipeline of the path with the place it runs on: `main (local:sequential) > gpu (modal) > encode`."""
        names = [f"{name} ({place})" for name, place in zip(self.path, self.places, strict=False)]
        return " > ".join([*names, *self.path[len(names) :]])

    @property
    def inputs(self) -> dict[str, Any] | None:
        """What the node was called with, by parameter; None where it was not kept or could not be brought home.

        The values themselves, not copies: what the node changed in them before it failed stays changed.
        """
        return None if self.kept is None or self.kept.lost else self.kept.inputs

    def reproduce(self) -> Any:
        """Call the node's function again, here, with the inputs it failed with; a coroutine function is awaited.

        Raises what it raises, or gives what it returns where it does not fail here. Without retries and timeout.
        Needs `Pipeline(keep_inputs=True)`; raises `HypernodesError` where there are no inputs, with the reason.
        """
        if self.kept is None:
            raise HypernodesError(
                f"the inputs of '{self.where}' were not kept; make the pipeline with keep_inputs=True. Where no node's "
                "function was called - a worker died, an input could not be sent - there are none"
            )
        if self.kept.lost:
            raise HypernodesError(f"the inputs of '{self.where}' could not be brought home: {self.kept.lost}")
        return self.kept.call()

    def through(self, places: Mapping[tuple[str, ...], str]) -> Failure:
        """The same failure, with the place of each pipeline of its path."""
        found = (places.get(self.path[:depth]) for depth in range(1, len(self.path)))
        return replace(self, places=tuple(place or "" for place in found))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values, without the exception object."""
        return {
            "path": list(self.path),
            "items": list(self.items),
            "item": self.item,
            "type": self.type_name,
            "message": self.message,
            "place": self.place,
            "places": list(self.places),
            "traceback": self.traceback_text,
        }

    def at(self, index: int) -> Failure:
        """The same failure, seen as item `index` of the outermost pipeline's map."""
        return replace(self, items=(index, *self.items[1:]))

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message} (in {self.where})"

    def __repr__(self) -> str:
        return f"<Failure {self}>"

    def reraise(self) -> NoReturn:
        """Raise the user's exception, with notes that say where it happened."""
        raise_failure(self)


class Located(BaseException):
    """Carries a user's exception and its place from a nested run up to the run around it; never leaves core.

    `step` is the index of the failing step in its plan, by which the earliest of several failures is chosen.
    """

    def __init__(
        self,
        error: BaseException,
        path: tuple[str, ...],
        items: tuple[int | None, ...],
        step: int,
        kept: Replay | None = None,
    ) -> None:
        self.error, self.path, self.items, self.step, self.kept = error, path, items, step, kept

    def failure(self, place: str, *, traceback_text: str = "") -> Failure:
        return describe(self.error, self.path, self.items, place, traceback_text, self.kept)


def describe(
    error: BaseException,
    path: tuple[str, ...],
    items: tuple[int | None, ...],
    place: str,
    traceback_text: str = "",
    kept: Replay | None = None,
) -> Failure:
    """A `Failure` from a live exception."""
    if isinstance(error, RemoteError):
        name, message = error.type_name, error.message
    else:
        name, message = type(error).__qualname__, text_of(error)
    return Failure(path, items, name, message, error, place, traceback_text, kept=kept)


def text_of(error: BaseException) -> str:
    """`str(error)`, cut to a sane length; a sentence when `__str__` itself raises."""
    try:
        text = str(error)
    except Exception as broken:
        return f"<the message of this {type(error).__qualname__} cannot be read: {type(broken).__name__}>"
    if len(text) > LONGEST_TEXT:
        return f"{text[:LONGEST_TEXT]}... ({len(text):,} characters)"
    return text


def raise_failure(failure: Failure) -> NoReturn:
    """Raise the failure's exception with notes: the path, the item, the place, and a remote traceback if any."""
    error = failure.error
    notes = [f"in {failure.where}" + (f", on {failure.place}" if failure.place else "")]
    if len(set(failure.places)) > 1:
        notes.append(f"through {failure.hops}")
    if failure.traceback_text:
        notes.append(f"remote traceback:\n{failure.traceback_text.rstrip()}")
    present = getattr(error, "__notes__", ())
    try:
        for note in notes:
            if note not in present:
                error.add_note(note)
        object.__setattr__(error, _ATTRIBUTE, failure)
    except (AttributeError, TypeError):
        # An exception class may forbid new attributes; the notes are then all that is lost.
        raise error from error.__cause__
    raise error


def raise_if_it_ends(failure: Failure) -> None:
    """Raise what is no failure of an item but the end of the call, where an engine took it for one."""
    if isinstance(failure.error, ResourceError) and failure.error.ends:
        raise failure.error.at(failure.place)


def failure_of(error: BaseException) -> Failure | None:
    """The `Failure` of an exception that came out of a run: its path, items and place; None for any other."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, Failure) else None
