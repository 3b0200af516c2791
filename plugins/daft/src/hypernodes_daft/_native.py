"""The native form of a node: a Daft expression beside its Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from hypernodes import Node

__all__ = ["expressions_of", "native", "native_form_of"]

N = TypeVar("N", bound=Node[..., Any])

_forms: WeakKeyDictionary[Node[..., Any], Callable[..., Any]] = WeakKeyDictionary()


def native(form: Callable[..., Any]) -> Callable[[N], N]:
    """Give a node a native form, which `map_frame` computes instead of calling the function.

    `form` takes a Daft expression for each of the node's parameters, by name, and returns an expression, or a tuple
    of them where the node has several outputs. It stands above `@node`; the node stays what it is, and every engine
    calls its function. Expressions often differ from Python: `-7 // 2` is -3, and `None + 1` is None. So compare both
    with `map_frame(..., check_native=10)`. Raises `TypeError` where it decorates no node, or one that cannot have one.
    """
    if isinstance(form, Node) or not callable(form):
        raise TypeError(
            f"native={form!r}; give a function of expressions: @native(lambda text: text.lower()) above @node(...)"
        )

    def decorate(node: N) -> N:
        if not isinstance(node, Node):
            raise TypeError(f"@native stands above @node and takes a node, not {node!r}")
        if node.batching is not None or node.is_generator:
            kind = "takes batches" if node.batching is not None else "yields"
            raise TypeError(f"node '{node.name}' {kind}; only a node of one value for one item has a native form")
        _forms[node] = form
        return node

    return decorate


def native_form_of(node: Any) -> Callable[..., Any] | None:
    """The node's native form, if it has one."""
    return _forms.get(node) if isinstance(node, Node) else None


def expressions_of(daft: Any, node: Node[..., Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The expression of each output. Raises `TypeError` where the form gives anything else."""
    form = _forms[node]
    owner = f"the native form of node '{node.name}'"
    try:
        made = form(**inputs)
    except Exception as error:
        error.add_note(f"in {owner}, which takes Daft expressions and no values")
        raise
    found = tuple(made) if node.unpacks and isinstance(made, tuple | list) else (made,)
    if len(found) != len(node.outputs):
        raise TypeError(f"{owner} gives {len(found)} of {len(node.outputs)} expressions, for {', '.join(node.outputs)}")
    for name, one in zip(node.outputs, found, strict=True):
        if not isinstance(one, daft.Expression):
            raise TypeError(f"{owner} gives {one!r} for '{name}', which is no Daft expression")
    return dict(zip(node.outputs, found, strict=True))
