"""What a node's function gave, checked against what the node declares: several outputs, the list of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

from hypernodes._errors import BatchLengthError, OutputCountError, a_kind
from hypernodes._node import Node

__all__ = ["as_single", "columns_from", "unpack"]


def unpack(value: Any, node: Node[..., Any]) -> Any:
    """The values of a node with several outputs; raises `OutputCountError` where there are more or fewer."""
    if isinstance(value, tuple | list) and len(value) == len(node.outputs):
        return value
    count = len(node.outputs)
    if isinstance(value, tuple | list):
        got = f"{len(value)} value{'' if len(value) == 1 else 's'}"
    else:
        got = f"{a_kind(value)}, not a tuple"
    names = ", ".join(f"'{name}'" for name in node.outputs)
    raise OutputCountError(
        f"node '{node.name}' declares {count} output{'' if count == 1 else 's'} ({names}) but returned {got}"
    )


def columns_from(value: Any, node: Node[..., Any], count: int) -> list[list[Any]]:
    """What a batch node returned for `count` items, as one list of that length for each output.

    Raises `BatchLengthError` where it is something else, and `OutputCountError` where it is not a list for each output.
    """
    if not node.unpacks:
        return [_column(value, node, count, "")]
    several = zip(unpack(value, node), node.outputs, strict=True)
    return [_column(one, node, count, f" for its output '{output}'") for one, output in several]


def as_single(call: Callable[..., Any], node: Node[..., Any]) -> Callable[..., Any]:
    """The call of a batch node that is given lists of one, giving what it has for that one item."""
    unpacks = node.unpacks
    if node.is_async:

        async def single_async(*args: Any, **kwargs: Any) -> Any:
            made = [column[0] for column in columns_from(await call(*args, **kwargs), node, 1)]
            return tuple(made) if unpacks else made[0]

        return single_async

    def single(*args: Any, **kwargs: Any) -> Any:
        made = [column[0] for column in columns_from(call(*args, **kwargs), node, 1)]
        return tuple(made) if unpacks else made[0]

    return single


def _column(value: Any, node: Node[..., Any], count: int, where: str) -> list[Any]:
    if type(value) is not list:
        value = _listed(value, node, count, where)
    if len(value) != count:
        got = f"{len(value)} value{'' if len(value) == 1 else 's'}"
        raise BatchLengthError(f"node '{node.name}' returned {got}{where} for a batch of {count}")
    return value  # type: ignore[no-any-return]


def _listed(value: Any, node: Node[..., Any], count: int, where: str) -> list[Any]:
    # Sets have no order and mappings iterate over keys: neither says which value is whose.
    if not isinstance(value, str | bytes | bytearray | Mapping | Set):
        try:
            len(value)
            return list(value)
        except TypeError:
            # A single value, or one that comes bit by bit: the sentence below says so.
            pass
    got = "None" if value is None else a_kind(value)
    raise BatchLengthError(
        f"node '{node.name}' returned {got}{where} for a batch of {count}; a batch node returns a list with one value "
        "for each item"
    )
