"""Graphviz, where its program is installed: the diagram in its language, its layout of our boxes, and PNG."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Any

from hypernodes import PluginLoadError
from hypernodes.plugin import Diagram, DiagramCluster
from hypernodes_visualize._boxes import HEADER, Size, cluster_words, header_width, node_size, node_words
from hypernodes_visualize._layout import Box, Layout, Wire, label_size, labelled
from hypernodes_visualize._text import plain

__all__ = ["dot_layout", "dot_of", "png_of"]

_INCH = 72.0
_MARGIN = 8.0
_SECONDS = 30.0  # that its program may take; a run waits for its report
_TONES = ("#4263eb", "#0c8599", "#9c36b5", "#d9480f", "#2b8a3e", "#c2255c")

Path = tuple[str, ...]


def dot_of(diagram: Diagram, orient: str) -> str:
    """The diagram in Graphviz' language, to look at or to change by hand."""
    tones: dict[str, str] = {}
    for cluster in diagram.clusters:
        tones.setdefault(cluster.place, _TONES[len(tones) % len(_TONES)])
    lines = [
        f"digraph {_quoted(diagram.name)} {{",
        f'  rankdir={orient}; bgcolor=white; fontname="DejaVu Sans Mono"; nodesep=0.3; ranksep=0.4; dpi=144;',
        '  node [shape=box, style="rounded,filled", fillcolor=white, color="#adb5bd", height=0.3];',
        '  node [fontname="DejaVu Sans Mono", fontsize=11];',
        '  edge [color="#868e96", fontname="DejaVu Sans Mono", fontsize=9, arrowsize=0.7];',
    ]
    nodes = {
        node.id: f"{_quoted(node.id)} [label={_quoted(*(line.text for line in node_words(node)))}{_look(node.kind)}];"
        for node in diagram.nodes
    }

    def head(cluster: DiagramCluster) -> list[str]:
        tone, text = tones[cluster.place], "   ".join(words.text for words in cluster_words(cluster))
        look = f'labeljust=l; style=rounded; color="{tone}"; fontcolor="{tone}"; fontsize=11; margin=14'
        return [f"label={_quoted(text)}; {look};"]

    lines += _clusters(diagram, nodes, head)
    inputs = {node.id for node in diagram.nodes if node.kind == "input"}
    for edge in diagram.edges:
        look = ", penwidth=2" if edge.mapped else ""
        text = _quoted(labelled(edge, inputs))
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [label={text}{look}];")
    return "\n".join([*lines, "}\n"])


def png_of(diagram: Diagram, orient: str) -> bytes:
    """The picture as PNG, drawn by Graphviz. Raises `PluginLoadError` where its program is not installed, or fails."""
    import shutil

    drawn = _pipe(dot_of(diagram, orient), "png")
    if drawn is not None:
        return drawn
    other = "save '.svg' or '.html', which need nothing"
    if shutil.which("dot") is None:
        raise PluginLoadError(
            f"pipeline '{diagram.name}' cannot be drawn as PNG here: that needs the program 'dot' of Graphviz, which "
            "was not found; install it with the system's package manager, such as 'apt install graphviz' or "
            f"'brew install graphviz', or {other}"
        )
    raise PluginLoadError(
        f"pipeline '{diagram.name}' cannot be drawn as PNG: the program 'dot' of Graphviz failed, or took longer than "
        f"{_SECONDS:.0f} s for {len(diagram.nodes):,} boxes; show fewer with depth=, or {other}"
    )


def dot_layout(diagram: Diagram, orient: str) -> Layout | None:
    """Graphviz' layout of boxes of our sizes; None where its program is not installed or gives up."""
    inputs = {node.id for node in diagram.nodes if node.kind == "input"}
    home = {node.id: node.cluster for node in diagram.nodes}
    paths = {cluster.id: cluster.path for cluster in diagram.clusters}
    by_path = {cluster.path: cluster.id for cluster in diagram.clusters}
    nodes = {node.id: f"{_quoted(node.id)} [{_fixed(node_size(node))}];" for node in diagram.nodes}
    cluster_of = dict(home)
    trunks: dict[tuple[str, str, Path], list[int]] = {}
    for at, edge in enumerate(diagram.edges):
        # A label outside a pipeline that holds both ends would pull the arrow out of it, and back upwards.
        around = _shared(paths[home[edge.source]], paths[home[edge.target]])
        trunks.setdefault((edge.source, edge.name, around), []).append(at)
    links: list[str] = []
    texts: dict[str, str] = {}
    for number, ((source, _, around), readers) in enumerate(trunks.items()):
        edges = [diagram.edges[at] for at in readers]
        start, text = source, labelled(edges[0], inputs)
        if text:
            start = f"t{number}"
            texts[start] = text
            nodes[start] = f"{_quoted(start)} [{_fixed(label_size(text))}];"
            cluster_of[start] = by_path[around]
            links.append(f"  {_quoted(source)} -> {_quoted(start)} [comment={_quoted(f'stem {number}')}, dir=none];")
        for at in readers:
            target = diagram.edges[at].target
            links.append(f"  {_quoted(start)} -> {_quoted(target)} [comment={_quoted(f'branch {number}')}];")

    def head(cluster: DiagramCluster) -> list[str]:
        wide = header_width(cluster)
        cell = f'<TABLE BORDER="0" CELLPADDING="0" FIXEDSIZE="TRUE" WIDTH="{wide:.0f}" HEIGHT="{HEADER - 8:.0f}">'
        return [f"label=<{cell}<TR><TD></TD></TR></TABLE>>; labeljust=l; margin=14;"]

    lines = [
        "digraph g {",
        f"  rankdir={orient}; nodesep=0.3; ranksep=0.3;",
        '  node [shape=box, fixedsize=true, label=""]; edge [arrowsize=0.7];',
        *_clusters(diagram, nodes, head, cluster_of),
        *links,
        "}\n",
    ]
    drawn = _pipe("\n".join(lines), "json")
    if drawn is None:
        return None
    try:
        return _read(json.loads(drawn), diagram, trunks, texts)
    except (KeyError, ValueError, IndexError):
        # A release of Graphviz that writes something else: our own layout does as well.
        return None


def _shared(one: Path, other: Path) -> Path:
    """The path of the innermost pipeline that holds both."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(name for name, _ in same)


def _clusters(diagram: Diagram, nodes: dict[str, str], head: Any, home: dict[str, str] | None = None) -> list[str]:
    """The clusters with what stands in them, from the outermost in."""
    inside: dict[str, list[str]] = {cluster.id: [] for cluster in diagram.clusters}
    where = home or {node.id: node.cluster for node in diagram.nodes}
    for at, line in nodes.items():
        inside[where[at]].append(line)
    children: dict[str, list[DiagramCluster]] = {}
    for cluster in diagram.clusters:
        children.setdefault(cluster.parent, []).append(cluster)
    lines: list[str] = []
    todo: list[DiagramCluster | None] = list(reversed(children.get("", [])))
    while todo:
        following = todo.pop()
        if following is None:
            lines.append("  }")
            continue
        cluster = following
        lines.append(f"  subgraph {_quoted(f'cluster_{cluster.id}')} {{")
        lines += [f"    {line}" for line in (*head(cluster), *inside[cluster.id])]
        todo += [None, *reversed(children.get(cluster.id, []))]
    return lines


def _read(
    found: dict[str, Any], diagram: Diagram, trunks: dict[tuple[str, str, Path], list[int]], texts: dict[str, str]
) -> Layout:
    """Graphviz' answer, with its y turned downwards."""
    _, _, wide, tall = (float(part) for part in found["bb"].split(","))

    def point(text: str) -> tuple[float, float]:
        x, y = text.split(",")[-2:]
        return float(x) + _MARGIN, tall - float(y) + _MARGIN

    nodes: dict[str, Box] = {}
    clusters: dict[str, Box] = {}
    labels: dict[str, tuple[float, float, str]] = {}
    for entry in found["objects"]:
        name = entry["name"]
        if name.startswith("cluster_"):
            left, low, right, high = (float(part) for part in entry["bb"].split(","))
            clusters[name.removeprefix("cluster_")] = Box(
                left + _MARGIN, tall - high + _MARGIN, right - left, high - low
            )
            continue
        x, y = point(entry["pos"])
        if name in texts:
            labels[name] = (x, y, texts[name])
        else:
            w, h = float(entry["width"]) * _INCH, float(entry["height"]) * _INCH
            nodes[name] = Box(x - w / 2, y - h / 2, w, h)
    paths: dict[int, list[str]] = {}
    heads: dict[int, list[tuple[float, float, float, float]]] = {}
    for entry in found.get("edges", []):
        number = int(entry["comment"].split()[1])
        tip, *rest = entry["pos"].split() if entry["pos"].startswith("e,") else ["", *entry["pos"].split()]
        curve = [point(part) for part in rest]
        d = f"M{curve[0][0]:.1f},{curve[0][1]:.1f}C" + " ".join(f"{x:.1f},{y:.1f}" for x, y in curve[1:])
        if tip:
            x, y = point(tip)
            back = curve[-1]
            length = ((x - back[0]) ** 2 + (y - back[1]) ** 2) ** 0.5 or 1.0
            heads.setdefault(number, []).append((x, y, (x - back[0]) / length, (y - back[1]) / length))
        paths.setdefault(number, []).append(d)
    wires = tuple(
        Wire(
            " ".join(paths.get(number, [])),
            tuple(heads.get(number, [])),
            tuple(diagram.edges[at] for at in readers),
            labels.get(f"t{number}"),
        )
        for number, readers in enumerate(trunks.values())
    )
    if set(nodes) != {node.id for node in diagram.nodes}:
        raise ValueError("a box is missing")
    return Layout(wide + 2 * _MARGIN, tall + 2 * _MARGIN, nodes, clusters, wires)


def _pipe(source: str, form: str) -> bytes | None:
    """What `dot` makes of the source; None where it is absent, fails or takes too long."""
    import subprocess

    from graphviz.backend import DOT_BINARY

    command = [str(DOT_BINARY), f"-T{form}"]
    try:
        # The library's own `pipe` waits without end.
        done = subprocess.run(command, input=source.encode(), capture_output=True, check=True, timeout=_SECONDS)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout


def _fixed(size: Size) -> str:
    return f"width={size.width / _INCH:.4f}, height={size.height / _INCH:.4f}"


def _look(kind: str) -> str:
    if kind == "input":
        return ', shape=box, style="rounded,filled", fillcolor="#f1f3f5", color="#ced4da"'
    if kind == "resource":
        return ', style="rounded,filled,dashed"'
    return ", peripheries=2" if kind == "nested" else ""


def _quoted(*lines: str) -> str:
    """A string of the language: quotes, backslashes, entities and line ends cannot end or change it."""
    texts = (plain(line).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;") for line in lines)
    return '"' + "\\n".join(texts) + '"'
