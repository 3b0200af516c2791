"""What stands in each box of a diagram, and how large that makes it. Lengths are pixels."""

from __future__ import annotations

from dataclasses import dataclass

from hypernodes.plugin import DiagramCluster, DiagramEdge, DiagramNode
from hypernodes_visualize._text import cut, width

__all__ = ["HEADER", "Size", "Words", "cluster_words", "edge_text", "header_width", "node_size", "node_words"]

HEADER = 34.0
"""The height of the line above a cluster's nodes."""

_LONGEST = 40
_SIZES = {"name": 13.0, "note": 10.5, "result": 11.0, "place": 10.5, "title": 12.5}
_LEADING = 1.42


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text. `kind` decides how it looks."""

    text: str
    kind: str

    @property
    def size(self) -> float:
        return _SIZES[self.kind]

    @property
    def width(self) -> float:
        return width(self.text, self.size)

    @property
    def height(self) -> float:
        return self.size * _LEADING


@dataclass(frozen=True, slots=True)
class Size:
    width: float
    height: float

    @property
    def turned(self) -> Size:
        return Size(self.height, self.width)


def node_words(node: DiagramNode) -> list[Words]:
    """The lines of a box, the first being its name."""
    types = dict(node.outputs)
    if node.kind == "input":
        return [Words(_typed(node.label, types.get(node.label, "")), "result")]
    words = [Words(cut(node.label, _LONGEST), "name")]
    notes = _nested_notes(node) if node.kind == "nested" else _node_notes(node)
    if notes:
        words.append(Words(cut(" · ".join(notes), 56), "note"))
    if node.place:
        words.append(Words(_place(node.place, node.inherited), "place"))
    shown = node.results[:3]
    words += [Words(f"→ {_typed(name, types.get(name, ''))}", "result") for name in shown]
    if len(node.results) > len(shown):
        words.append(Words(f"→ {len(node.results) - len(shown)} more", "result"))
    return words


def node_size(node: DiagramNode) -> Size:
    words = node_words(node)
    if node.kind == "input":
        return Size(words[0].width + 24, 25)
    return Size(max(64, max(line.width for line in words) + 28), sum(line.height for line in words) + 16)


def cluster_words(cluster: DiagramCluster) -> list[Words]:
    """The parts of a cluster's header: its name, its place, and what it is mapped over."""
    words = [
        Words(cut(cluster.label, _LONGEST), "title"),
        Words(_place(cluster.place, cluster.inherited, default=not (cluster.chosen_by or cluster.parent)), "place"),
    ]
    if cluster.map_over:
        words.append(Words(_over(cluster.map_over, cluster.map_mode), "note"))
    return words


def header_width(cluster: DiagramCluster) -> float:
    return sum(line.width + 22 for line in cluster_words(cluster)) + 18


def edge_text(edge: DiagramEdge) -> str:
    return _typed(edge.name, edge.type)


def _typed(name: str, type_text: str) -> str:
    return cut(name, _LONGEST) + (f": {cut(type_text, 24)}" if type_text else "")


def _place(place: str, inherited: bool, default: bool = False) -> str:
    return place + (" (default)" if default else " (inherited)" if inherited else "")


def _over(names: tuple[str, ...], mode: str) -> str:
    return cut(f"for each of {(' x ' if mode == 'product' else ', ').join(names)}", 56)


def _nested_notes(node: DiagramNode) -> list[str]:
    notes = [f"{node.size} node{'' if node.size == 1 else 's'}"]
    return [*notes, _over(node.map_over, node.map_mode)] if node.map_over else notes


def _node_notes(node: DiagramNode) -> list[str]:
    notes = ["resource"] if node.kind == "resource" else []
    notes += ["async"] if node.is_async else []
    if node.retries:
        notes.append(f"{node.retries} {'retry' if node.retries == 1 else 'retries'}")
    if node.timeout is not None:
        notes.append(f"{node.timeout:g} s at most")
    return notes if node.cache else [*notes, "not cached"]
