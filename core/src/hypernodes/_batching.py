"""How a batch node takes its inputs: which parameters are lists, one element for each item, and which are shared."""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Container, Iterable
from types import UnionType
from typing import Any, NamedTuple

from hypernodes._errors import NodeDefinitionError, did_you_mean, quoted

__all__ = ["Batching", "batching_of", "element_of"]

_LISTS = frozenset({"list", "List", "Sequence", "MutableSequence", "Iterable", "Collection"})
_UNSAID = frozenset({"Any", "object"})


class Batching(NamedTuple):
    """The batches of one node: at most `size` items each.

    `lists` are the parameters that always take a list, `singles` those that always take one value for the whole batch;
    any other takes a list unless all items of the map share its value. With `isolate` a batch that raises is halved
    until the items at fault are alone.
    """

    size: int
    isolate: bool
    lists: frozenset[str]
    singles: frozenset[str]

    def over(self, parameters: Iterable[str], shared: Container[str]) -> tuple[str, ...]:
        """Those of the parameters with a value that take lists; `shared` are the names that all items share.

        Where everything is shared and nothing says otherwise, a batch of equal items is still a batch.
        """
        given = [name for name in parameters if name not in self.singles]
        over = tuple([name for name in given if name in self.lists or name not in shared])
        return over or tuple(given)


def batching_of(
    owner: str, func: Callable[..., Any], parameters: dict[str, bool], size: object, over: object, isolate: object
) -> Batching | None:
    """The batching that the options of a node ask for, None where they ask for none.

    `parameters` says for each whether it has no default. Raises `NodeDefinitionError` for options that make no sense.
    """
    if size is None:
        for option, value in (("batch_over", over), ("isolate", isolate)):
            if value is not None:
                raise NodeDefinitionError(
                    f"{owner}: {option}={value!r} is for batch nodes; give batch_size= too, or leave it out"
                )
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise NodeDefinitionError(f"{owner}: batch_size={size!r}; give a whole number, 1 or more")
    if isolate is not None and not isinstance(isolate, bool):
        raise NodeDefinitionError(f"{owner}: isolate={isolate!r}; give True or False")
    if not parameters:
        raise NodeDefinitionError(f"{owner}: a batch node takes at least one input, the items of the batch")
    if over is not None:
        lists = _named(owner, over, parameters)
        return Batching(size, isolate is not False, frozenset(lists), frozenset(parameters).difference(lists))
    annotations = getattr(func, "__annotations__", None) or {}
    said = {name: _takes_list(annotations[name]) for name in parameters if name in annotations}
    # A list by annotation may still be one list for all items, such as stop words: its wiring says so.
    singles = [name for name, required in parameters.items() if not required or said.get(name) is False]
    if len(singles) == len(parameters):
        raise NodeDefinitionError(
            f"{owner}: none of {quoted(parameters)} is a list of items, so there is no batch: each has a default or is "
            f"annotated as something else than a list; name what comes as lists, such as batch_over={singles[0]!r}"
        )
    return Batching(size, isolate is not False, frozenset(), frozenset(singles))


def element_of(hint: Any) -> Any:
    """What one element of an annotated list is; None where the annotation does not say."""
    if typing.get_origin(hint) is None:
        return None
    parts = [part for part in typing.get_args(hint) if part is not ...]
    return parts[0] if len(parts) == 1 else None


def _named(owner: str, over: object, parameters: Collection[str]) -> tuple[str, ...]:
    names = (over,) if isinstance(over, str) else tuple(over) if isinstance(over, Iterable) else (over,)
    if not names:
        raise NodeDefinitionError(f"{owner}: batch_over is empty; name at least one parameter, or leave it out")
    for name in names:
        if name not in parameters:
            raise NodeDefinitionError(
                f"{owner}: batch_over names {name!r}, which is no parameter of it{did_you_mean(name, parameters)}; "
                f"its parameters are {quoted(parameters)}"
            )
    return tuple(str(name) for name in names)


def _takes_list(hint: Any) -> bool | None:
    """Whether an annotation means a list; None where it says nothing."""
    if isinstance(hint, str):
        head = hint.split("[")[0].split("|")[0].split(".")[-1].strip()
        return None if head in _UNSAID or not head.isidentifier() else head in _LISTS
    if isinstance(hint, typing.TypeVar) or hint is Any or hint is object:
        return None
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        said = {_takes_list(part) for part in typing.get_args(hint) if part is not type(None)}
        return said.pop() if len(said) == 1 else None
    origin = typing.get_origin(hint) or hint
    return getattr(origin, "__name__", "") in _LISTS
