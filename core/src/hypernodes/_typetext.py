"""Annotations as short text: what flows along an edge, as people would write it."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Sequence
from typing import Any

from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._resource import Resource

__all__ = ["LONGEST", "input_text", "listed", "output_text", "short"]

LONGEST = 40
"""Characters of a type's text; the rest is cut."""

_MODULES = re.compile(r"(?:\b\w+\.)+(?=\w)|(?:[\w.]+\.)?<locals>\.")


def output_text(node: GraphNode, name: str) -> str:
    """The type of this output as the pipeline around the node sees it, `""` where nothing is said."""
    lists = 0
    while isinstance(node, NestedPipeline):
        lists += bool(node.map_over)
        if node.outer_names.get(name) != name:
            name = next(inner for inner, outer in node.outer_names.items() if outer == name)
        graph = node.pipeline.graph
        node = graph.nodes[graph.producers[name]]
    if isinstance(node, Resource):
        return "" if node.is_generator else short(_annotations(node).get("return"))
    return listed(_returned(node, name), lists) if isinstance(node, Node) else ""


def input_text(node: GraphNode, name: str) -> str:
    """The type of this input as the pipeline around the node sees it: that of the first inner node that says one."""
    todo = [(node, name, 0)]
    seen: set[tuple[int, str]] = set()
    while todo:
        reader, read, lists = todo.pop()
        if (id(reader), read) in seen:
            continue
        seen.add((id(reader), read))
        if isinstance(reader, NestedPipeline):
            inner = reader.inner_names[read]
            lists += read in reader.map_over
            nodes = reader.pipeline.graph.nodes
            takers = [each for each in nodes if any(parameter.name == inner for parameter in each.parameters)]
            todo += [(taker, inner, lists) for taker in reversed(takers)]
        elif isinstance(reader, Node | Resource):
            text = short(_annotations(reader).get(read))
            if text:
                return listed(text, lists)
    return ""


def listed(text: str, lists: int) -> str:
    """The type of a list of such values, `lists` times over."""
    return _cut("list[" * lists + text + "]" * lists) if text and lists else text


def short(hint: Any) -> str:
    """An annotation without the modules of its names: `DataFrame`, `list[str]`, `int | None`."""
    if hint is None:
        return ""
    if isinstance(hint, type) and not typing.get_args(hint):
        return _cut(hint.__name__)
    try:
        text = hint if isinstance(hint, str) else repr(hint)
    except Exception:
        # Whatever a user's object does when it is shown, it must not stop a picture.
        return ""
    return _cut(_MODULES.sub("", text.strip().strip("'\"")))


def _returned(node: Node[..., Any], name: str) -> str:
    hint = _annotations(node).get("return")
    if node.is_generator:
        return "" if node.unpacks or hint is None else listed(short(_yielded(hint)), 1) or "list"
    if not node.unpacks:
        return short(hint)
    parts = _parts(hint)
    return short(parts[node.outputs.index(name)]) if len(parts) == len(node.outputs) else ""


def _yielded(hint: Any) -> Any:
    """What the annotation of a generator, `Iterator[str]` say, tells of each item; None where it tells nothing."""
    if not isinstance(hint, str):
        return next(iter(typing.get_args(hint)), None)
    try:
        read = ast.parse(hint.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(read, ast.Subscript):
        return None
    # Of `Generator[str, None, None]` the first.
    return ast.unparse(read.slice.elts[0] if isinstance(read.slice, ast.Tuple) and read.slice.elts else read.slice)


def _parts(hint: Any) -> Sequence[Any]:
    """What a tuple's annotation says of each place; nothing where it is no tuple of known length."""
    if not isinstance(hint, str):
        parts = typing.get_args(hint)
        return parts if typing.get_origin(hint) is tuple and ... not in parts else ()
    # An annotation that nobody has evaluated, as under `from __future__ import annotations`.
    try:
        read = ast.parse(hint.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    if not isinstance(read, ast.Subscript) or ast.unparse(read.value).rpartition(".")[2] not in ("tuple", "Tuple"):
        return ()
    places = read.slice.elts if isinstance(read.slice, ast.Tuple) else [read.slice]
    texts = [ast.unparse(place) for place in places]
    return () if "..." in texts else texts


def _annotations(node: Node[..., Any] | Resource) -> dict[str, Any]:
    found = getattr(node.func, "__annotations__", None)
    return found if isinstance(found, dict) else {}


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
