"""The type check between nodes: only a clear mismatch is one, so it never cries wolf.

Two annotations clash when both are plain classes (or generics over plain classes, compared by the class alone) and
neither is a subclass of the other. Of a batch node's lists the elements are compared. Everything else - `Any`, unions,
type variables, protocols, literals, strings that cannot be resolved - passes, because it may well be right.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from hypernodes._batching import element_of
from hypernodes._errors import TypeMismatchError
from hypernodes._graph import Graph
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._resource import Resource

__all__ = ["check_types"]

_UNKNOWN = object()
_TOWER = {bool: (int, float, complex), int: (float, complex), float: (complex,)}


def check_types(graph: Graph) -> None:
    """Raise `TypeMismatchError` where what one node returns can clearly not be what another takes."""
    for reader in graph.nodes:
        for parameter in reader.parameters:
            at = graph.producers.get(parameter.name)
            if at is None:
                continue
            maker = graph.nodes[at]
            made, taken = _output(maker, parameter.name), _input(reader, parameter.name)
            if made is not taken and _clash(made, taken):
                makes = "resource" if isinstance(maker, Resource) else "node"
                takes = "resource" if isinstance(reader, Resource) else "node"
                raise TypeMismatchError(
                    f"pipeline '{graph.name}': {makes} '{maker.name}' returns '{parameter.name}' as {_name(made)}, but "
                    f"{takes} '{reader.name}' takes '{parameter.name}' as {_name(taken)}; correct an annotation, or "
                    "switch the check off with Pipeline(..., check_types=False)"
                )


def _output(node: GraphNode, name: str) -> Any:
    while isinstance(node, NestedPipeline):
        if node.map_over:
            return _UNKNOWN
        name = next(inner for inner, outer in node.outer_names.items() if outer == name)
        graph = node.pipeline.graph
        node = graph.nodes[graph.producers[name]]
    if isinstance(node, Resource):
        return _built(node)
    if not isinstance(node, Node):
        return _UNKNOWN
    if node.is_generator:
        return _UNKNOWN if node.unpacks else list
    hint = _hint(node.func, "return")
    if node.unpacks:
        parts = typing.get_args(hint)
        if typing.get_origin(hint) is not tuple or len(parts) != len(node.outputs) or ... in parts:
            return _UNKNOWN
        hint = parts[node.outputs.index(name)]
    return hint if node.batching is None else _element(hint)


_YIELDS = {"Iterator", "Generator", "Iterable", "AsyncIterator", "AsyncGenerator", "AsyncIterable"}


def _built(resource: Resource) -> Any:
    """What a resource is: what its function returns, or what it yields."""
    hint = _hint(resource.func, "return")
    if not resource.is_generator:
        return hint
    parts = typing.get_args(hint)
    yields = getattr(typing.get_origin(hint), "__name__", "") in _YIELDS
    return parts[0] if yields and parts else _UNKNOWN


def _input(node: GraphNode, name: str) -> Any:
    if not isinstance(node, Node):
        return _hint(node.func, name) if isinstance(node, Resource) else _UNKNOWN
    hint = _hint(node.func, name)
    # What another node makes comes as a list, one element for each item, unless the parameter never takes one.
    return hint if node.batching is None or name in node.batching.singles else _element(hint)


def _element(hint: Any) -> Any:
    """What one item's element of a batch is."""
    found = element_of(hint)
    return _UNKNOWN if found is None else found


def _hint(func: Callable[..., Any], name: str) -> Any:
    annotations = getattr(func, "__annotations__", None)
    if not annotations or name not in annotations:
        return _UNKNOWN
    hint = annotations[name]
    if isinstance(hint, str):
        module = sys.modules.get(getattr(func, "__module__", ""), None)
        plain = getattr(module, hint, None) or getattr(typing, "__builtins__", {}).get(hint)
        if isinstance(plain, type) and hint.isidentifier():
            return plain
        try:
            hint = typing.get_type_hints(func).get(name, _UNKNOWN)
        except Exception:
            # An annotation that cannot be evaluated says nothing; it is not ours to refuse.
            return _UNKNOWN
    return hint


def _clash(made: Any, taken: Any) -> bool:
    if made is None:
        made = type(None)
    if taken is None:
        taken = type(None)
    source, target = _class(made), _class(taken)
    if source is None or target is None or issubclass(source, target) or issubclass(target, source):
        return False
    return target not in _TOWER.get(source, ())


def _class(hint: Any) -> type | None:
    """The plain class of an annotation, or None where the annotation says something subtler."""
    if isinstance(hint, types.GenericAlias) or type(hint) is getattr(typing, "_GenericAlias", None):
        hint = typing.get_origin(hint)
    if not isinstance(hint, type) or hint is object or getattr(hint, "_is_protocol", False):
        return None
    if hint.__module__ == "typing" or typing.is_typeddict(hint):
        return None
    # A class with its own idea of what is a subclass (an ABC, a numeric kind) cannot be judged from outside.
    return hint if type(hint) is type else None


def _name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
