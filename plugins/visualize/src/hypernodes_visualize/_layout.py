"""Where everything in a diagram stands. Lengths are pixels, y grows downwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypernodes.plugin import Diagram, DiagramEdge
from hypernodes_visualize._boxes import Size, edge_text
from hypernodes_visualize._text import width

__all__ = ["Box", "Layout", "Wire", "label_size", "labelled", "lay_out"]

LABEL = 10.5
"""The size of the letters on arrows."""

MOST_FOR_DOT = 250
"""Boxes and arrows up to which Graphviz is asked: its time grows much faster than the diagram."""


@dataclass(frozen=True, slots=True)
class Box:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Wire:
    """A value's way, or one level's part of it: `path` in the language of SVG, and each arrow's tip and direction.

    `edges` are the arrows of the diagram that it stands for, and `label` says where its text goes.
    """

    path: str
    heads: tuple[tuple[float, float, float, float], ...]
    edges: tuple[DiagramEdge, ...]
    label: tuple[float, float, str] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of all nodes and clusters by id, and the wires between them."""

    width: float
    height: float
    nodes: Mapping[str, Box]
    clusters: Mapping[str, Box]
    wires: tuple[Wire, ...]


def lay_out(diagram: Diagram, orient: str) -> Layout:
    """A layout from Graphviz where its program is installed and the diagram is not large, else our own."""
    from hypernodes_visualize._graphviz import dot_layout
    from hypernodes_visualize._levels import layered

    deepest = max((len(cluster.path) for cluster in diagram.clusters), default=0)
    if len(diagram.nodes) + len(diagram.edges) <= MOST_FOR_DOT and deepest <= 30:
        found = dot_layout(diagram, orient)
        if found is not None:
            return found
    return layered(diagram, orient)


def labelled(edge: DiagramEdge, inputs: set[str]) -> str:
    """The text of an arrow: none where the box it leaves says it already."""
    return "" if edge.source in inputs else edge_text(edge)


def label_size(text: str) -> Size:
    return Size(width(text, LABEL) + 10, LABEL + 6)
