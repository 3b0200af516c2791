"""A layout as an SVG document: self-contained, readable on light and dark ground, with every text escaped."""

from __future__ import annotations

import math

from hypernodes.plugin import Diagram, DiagramCluster, DiagramNode
from hypernodes_visualize._boxes import Words, cluster_words, node_words
from hypernodes_visualize._layout import LABEL, Box, Layout, Wire, label_size
from hypernodes_visualize._text import escape

__all__ = ["STYLE", "svg_of"]

_LIGHT = ("#4263eb", "#0c8599", "#9c36b5", "#d9480f", "#2b8a3e", "#c2255c")
_DARK = ("#91a7ff", "#66d9e8", "#e599f7", "#ffa94d", "#8ce99a", "#faa2c1")
_TONES = len(_LIGHT)


def _tones(colours: tuple[str, ...]) -> str:
    return "".join(
        f".hn-{at} .frame{{stroke:{colour};fill:{colour}}}.hn-{at} .pill{{fill:{colour}}}"
        f".hn-{at} .place{{fill:{colour}}}.hn-{at} .title{{fill:{colour}}}"
        for at, colour in enumerate(colours)
    )


STYLE = (
    ".hn{max-width:100%;height:auto;font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',"
    "monospace}"
    ".hn text{fill:#212529}.hn .ground{fill:#fff}"
    ".hn .frame{fill-opacity:.045;stroke-opacity:.55;stroke-width:1.2}.hn .title{font-weight:700}"
    ".hn .pill{fill-opacity:.13}.hn .place{font-weight:600}.hn .note{fill:#868e96}"
    ".hn .box{fill:#fff;stroke:#adb5bd;stroke-width:1.1}.hn .name{font-weight:600}"
    ".hn .input .box{fill:#f1f3f5;stroke:#ced4da}.hn .optional .box,.hn .resource .box{stroke-dasharray:4 3}"
    ".hn .nested .box{stroke-width:1.4}.hn .back{fill:#fff;stroke:#ced4da}"
    ".hn .result{fill:#495057}.hn .wire{fill:none;stroke:#868e96;stroke-width:1.3}"
    ".hn .mapped .wire{stroke-width:2.6}.hn .head{fill:#868e96;stroke:none}"
    ".hn .label{fill:#495057}.hn .plate{fill:#fff;fill-opacity:.88}"
    ".hn .header,.hn .plate,.hn .label{pointer-events:none}"
    ".hn .node.chosen .box{stroke:#f08c00;stroke-width:2.6}" + _tones(_LIGHT) + "@media (prefers-color-scheme:dark){"
    ".hn text{fill:#f1f3f5}.hn .ground{fill:#16191d}.hn .note{fill:#9aa2aa}"
    ".hn .frame{fill-opacity:.07}.hn .pill{fill-opacity:.2}"
    ".hn .box{fill:#22262b;stroke:#5c636b}.hn .input .box{fill:#1b1e22;stroke:#495057}"
    ".hn .back{fill:#1b1e22;stroke:#495057}.hn .result,.hn .label{fill:#ced4da}"
    ".hn .wire{stroke:#7d858d}.hn .head{fill:#7d858d}.hn .plate{fill:#16191d}"
    ".hn .node.chosen .box{stroke:#ffc078}" + _tones(_DARK) + "}"
)
"""Everything about colour, so that a page with a strict policy can allow it by its hash."""


def svg_of(diagram: Diagram, layout: Layout, *, style: bool = True) -> str:
    """The document. `style=False` leaves the style sheet to the page around it."""
    tones: dict[str, int] = {}
    for place in [cluster.place for cluster in diagram.clusters] + [node.place for node in diagram.nodes if node.place]:
        tones.setdefault(place, len(tones) % _TONES)
    wide, tall = math.ceil(layout.width), math.ceil(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="hn" viewBox="0 0 {wide} {tall}"',
        f' width="{wide}" height="{tall}" role="img" aria-label="{escape(f"pipeline {diagram.name}")}">',
        f"<style>{STYLE}</style>" if style else "",
        f'<rect class="ground" width="{wide}" height="{tall}" rx="10"/>',
    ]
    parts += [_cluster(cluster, layout.clusters[cluster.id], tones[cluster.place]) for cluster in diagram.clusters]
    parts += [_wire(wire) for wire in layout.wires]
    parts += [_header(cluster, layout.clusters[cluster.id], tones[cluster.place]) for cluster in diagram.clusters]
    parts += [_node(node, layout.nodes[node.id], tones.get(node.place)) for node in diagram.nodes]
    parts += [_label(wire) for wire in layout.wires if wire.label]
    return "\n".join([*filter(None, parts), "</svg>\n"])


def _cluster(cluster: DiagramCluster, box: Box, tone: int) -> str:
    origin = f"chosen by '{cluster.chosen_by}'" if cluster.chosen_by else "the default"
    title = f"{' > '.join(cluster.path)}\nruns on {cluster.place}, {origin}"
    return (
        f'<g class="cluster hn-{tone}" data-id="{escape(cluster.id)}"><title>{_lines(title)}</title>'
        f"{_rect('frame', box, 12)}</g>"
    )


def _header(cluster: DiagramCluster, box: Box, tone: int) -> str:
    parts = [f'<g class="header hn-{tone}">']
    x, y = box.x + 14, box.y + 21
    for words in cluster_words(cluster):
        pill = words.kind == "place"
        back = Box(x - 4, y - 13, words.width + (18 if pill else 8), 18)
        parts.append(_rect("plate", back, 9))  # lines that pass below stay off the letters
        if pill:
            parts.append(_rect("pill", Box(x - 1, y - 12.5, words.width + 14, 17), 8.5))
        parts.append(_text(x + (6 if pill else 0), y, words))
        x += words.width + (24 if pill else 14)
    return "".join([*parts, "</g>"])


def _node(node: DiagramNode, box: Box, tone: int | None) -> str:
    kinds = ["node", node.kind] + (["optional"] if node.kind == "input" and not node.required else [])
    kinds += [] if tone is None else [f"hn-{tone}"]
    parts = [
        f'<g class="{" ".join(kinds)}" data-id="{escape(node.id)}"><title>{_lines(_tip(node))}</title>',
    ]
    if node.kind == "nested":
        parts.append(_rect("back", Box(box.x + 4, box.y + 4, box.width, box.height), 8))
    parts.append(_rect("box", box, box.height / 2 if node.kind == "input" else 8))
    words = node_words(node)
    y = box.y + (box.height - sum(line.height for line in words)) / 2
    for line in words:
        middle = box.x + box.width / 2
        base = y + line.height / 2 + line.size * 0.35
        if line.kind == "place":
            parts.append(_rect("pill", Box(middle - line.width / 2 - 6, base - 11.5, line.width + 12, 15.5), 7.5))
        parts.append(_text(middle, base, line, anchor="middle"))
        y += line.height
    return "".join([*parts, "</g>"])


def _tip(node: DiagramNode) -> str:
    lines = [" > ".join(node.path)]
    if node.kind == "input":
        lines[0] = f"input {node.label}" + ("" if node.required else " (has a default)")
    lines += [node.doc] if node.doc else []
    if node.kind != "input":
        lines.append("makes " + ", ".join(f"{name}: {text}" if text else name for name, text in node.outputs))
    if node.place:
        lines.append(f"runs on {node.place}" + (" (inherited)" if node.inherited else ""))
    return "\n".join(lines)


def _wire(wire: Wire) -> str:
    if not wire.path:
        return ""
    mapped = any(edge.mapped for edge in wire.edges)
    ends = escape(" ".join(f"{edge.source}-{edge.target}" for edge in wire.edges))
    tip = f"<title>{_lines(_edge_tip(wire))}</title>" if wire.edges else ""
    heads = "".join(_head(*head) for head in wire.heads)
    kind = "edge mapped" if mapped else "edge"
    return f'<g class="{kind}" data-edges="{ends}">{tip}<path class="wire" d="{wire.path}"/>{heads}</g>'


def _edge_tip(wire: Wire) -> str:
    edge = wire.edges[0]
    text = f"{edge.name}: {edge.type}" if edge.type else edge.name
    return f"{text}\na list, mapped element by element" if edge.mapped else text


def _head(x: float, y: float, dx: float, dy: float) -> str:
    back, side = 7.5, 3.6
    left = f"{x - back * dx - side * dy:.1f},{y - back * dy + side * dx:.1f}"
    right = f"{x - back * dx + side * dy:.1f},{y - back * dy - side * dx:.1f}"
    return f'<path class="head" d="M{x:.1f},{y:.1f}L{left}L{right}Z"/>'


def _label(wire: Wire) -> str:
    assert wire.label is not None
    x, y, text = wire.label
    size = label_size(text)
    plate = _rect("plate", Box(x - size.width / 2, y - size.height / 2, size.width, size.height), 4)
    return (
        f'{plate}<text class="label" x="{x:.1f}" y="{y + LABEL * 0.35:.1f}" font-size="{LABEL:g}" '
        f'text-anchor="middle">{escape(text)}</text>'
    )


def _rect(kind: str, box: Box, radius: float) -> str:
    return (
        f'<rect class="{kind}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{radius:g}"/>'
    )


def _text(x: float, y: float, words: Words, anchor: str = "start") -> str:
    return (
        f'<text class="{words.kind}" x="{x:.1f}" y="{y:.1f}" font-size="{words.size:g}" '
        f'text-anchor="{anchor}">{escape(words.text)}</text>'
    )


def _lines(text: str) -> str:
    return "\n".join(escape(line) for line in text.split("\n"))
