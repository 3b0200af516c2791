"""A pipeline cut for a dataframe: nodes with a native form are expressions, what lies between them runs in Python."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from hypernodes import Node, Pipeline
from hypernodes_daft._native import native_form_of

__all__ = ["Island", "Native", "cut"]


class Native(NamedTuple):
    """A node that Daft computes."""

    node: Node[..., Any]


class Island(NamedTuple):
    """Nodes that the pipeline computes: the names it is given, and those it is asked for."""

    reads: tuple[str, ...]
    makes: tuple[str, ...]


def cut(pipeline: Pipeline, wanted: Sequence[str], *, native: bool) -> list[Native | Island]:
    """What is to be computed for the wanted outputs, in order.

    Only nodes of the pipeline itself have native forms: what is nested runs whole.
    """
    graph = pipeline.graph
    resources = set(graph.producers).difference(graph.outputs)
    parts: list[list[Any]] = []
    left = _needed(pipeline, wanted)
    there: set[str] = set(resources)
    while left:
        # In turns: whatever Daft can compute by now, then whatever Python can.
        for is_native in (True, False):
            ready: list[Any] = []
            known = set(there)
            for node in left:
                if (native and native_form_of(node) is not None) is is_native and all(
                    p.name in known or p.name not in graph.producers for p in node.parameters
                ):
                    ready.append(node)
                    known.update(node.outputs)
            if ready:
                parts.append(ready)
                there = known
                left = [node for node in left if node not in ready]
    found: list[Native | Island] = []
    for number, part in enumerate(parts):
        if native and native_form_of(part[0]) is not None:
            found += [Native(node) for node in part]
            continue
        later = {p.name for rest in parts[number + 1 :] for node in rest for p in node.parameters}
        inside = {name for node in part for name in node.outputs}
        reads = [p.name for node in part for p in node.parameters if p.name not in inside | resources]
        makes = [name for name in graph.outputs if name in inside and (name in wanted or name in later)]
        found.append(Island(tuple(dict.fromkeys(reads)), tuple(makes)))
    return found


def _needed(pipeline: Pipeline, wanted: Collection[str]) -> list[Any]:
    """The nodes that these outputs need, each after what it reads; without resources, which are built on need."""
    graph = pipeline.graph
    needed: set[str] = set(wanted)
    found = []
    for node in reversed(graph.order):
        if needed.intersection(node.outputs) and set(node.outputs) <= set(graph.outputs):
            found.append(node)
            needed.update(parameter.name for parameter in node.parameters)
    return found[::-1]
