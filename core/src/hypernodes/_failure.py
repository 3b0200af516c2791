"""A failing node as data: where it happened, what it was, and how it becomes the user's own exception again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from hypernodes._errors import RemoteError

__all__ = ["Failure", "Located", "failure_of", "raise_failure"]

_ATTRIBUTE = "__hypernodes_failure__"
LONGEST_TEXT = 10_000
"""Characters of an exception's text that travel; the rest is cut, so that one huge message cannot fill logs."""


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """What is left of an item whose node raised; `map(..., on_error="return")` puts it in the item's place.

    `path` names the pipelines from the outermost to the node. `items` runs parallel to `path`: the index of the
    item within that pipeline's map, or None where the level was not mapped. `error` is the exception itself, or a
    `RemoteError` when the original could not travel. `place` says where it ran, for example `"local:threaded"`.
    `made` holds, on the way to a cache, what the steps before the failing one made.
    """

    path: tuple[str, ...]
    items: tuple[int | None, ...]
    type_name: str
    message: str
    error: BaseException
    place: str = ""
    traceback_text: str = ""
    made: dict[int, Any] | None = field(default=None, compare=False)

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

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values, without the exception object."""
        return {
            "path": list(self.path),
            "items": list(self.items),
            "item": self.item,
            "type": self.type_name,
            "message": self.message,
            "place": self.place,
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

    def __init__(self, error: BaseException, path: tuple[str, ...], items: tuple[int | None, ...], step: int) -> None:
        self.error, self.path, self.items, self.step = error, path, items, step

    def failure(self, place: str, *, traceback_text: str = "") -> Failure:
        return describe(self.error, self.path, self.items, place, traceback_text)


def describe(
    error: BaseException,
    path: tuple[str, ...],
    items: tuple[int | None, ...],
    place: str,
    traceback_text: str = "",
) -> Failure:
    """A `Failure` from a live exception."""
    if isinstance(error, RemoteError):
        name, message = error.type_name, error.message
    else:
        name, message = type(error).__qualname__, text_of(error)
    return Failure(path, items, name, message, error, place, traceback_text)


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


def failure_of(error: BaseException) -> Failure | None:
    """The `Failure` of an exception that came out of a run: its path, items and place; None for any other."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, Failure) else None
