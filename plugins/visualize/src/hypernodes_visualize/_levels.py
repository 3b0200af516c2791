"""A layout of our own: each pipeline is laid out by itself, the innermost first, and is one box in that around it.

So a cluster holds its own nodes and no others, and no two boxes overlap, at any depth. A value that crosses a border
has a port there: a point at the edge of the inner level, and the place where its line meets the box in the outer one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypernodes.plugin import Diagram, DiagramCluster, DiagramEdge
from hypernodes_visualize._boxes import HEADER, Size, header_width, node_size
from hypernodes_visualize._layers import Arranged, Route, Stop, Trunk, arrange
from hypernodes_visualize._layout import Box, Layout, Wire, label_size, labelled

__all__ = ["layered"]

_PAD = 16.0
_NOTHING = Size(0.0, 0.0)
_MARGIN = 8.0

_Item = tuple[str, str]  # a kind - "box", "in", "out" - with the id of a node or cluster, or a port's value
_Value = tuple[_Item, str, str]  # the item that it leaves on this level, its source's id, its name


@dataclass(slots=True)
class _Thread:
    """A value on one level, with the arrows that it stands for."""

    label: str = ""
    targets: dict[_Item, None] = field(default_factory=dict)
    edges: list[DiagramEdge] = field(default_factory=list)


@dataclass(slots=True)
class _Level:
    cluster: DiagramCluster
    items: dict[_Item, int] = field(default_factory=dict)
    threads: dict[_Value, _Thread] = field(default_factory=dict)
    arranged: Arranged | None = None
    size: Size = _NOTHING
    shift: tuple[float, float] = (0.0, 0.0)  # from the cluster's corner to where its items begin

    def item(self, item: _Item) -> int:
        return self.items.setdefault(item, len(self.items))

    def join(self, start: _Item, end: _Item, edge: DiagramEdge) -> _Thread:
        self.item(start)
        self.item(end)
        thread = self.threads.setdefault((start, edge.source, edge.name), _Thread())
        thread.targets[end] = None
        return thread


def layered(diagram: Diagram, orient: str = "TB") -> Layout:
    """The layout of a diagram. `orient` is `"TB"` or `"LR"`."""
    return _Layered(diagram, turned=orient == "LR").layout()


class _Layered:
    """Works as if everything flowed downwards; where it is `turned`, sizes go in and places come out swapped."""

    def __init__(self, diagram: Diagram, turned: bool) -> None:
        self.diagram, self.turned = diagram, turned
        self.levels = {cluster.id: _Level(cluster) for cluster in diagram.clusters}
        self.home = {node.id: node.cluster for node in diagram.nodes}
        self.depth: dict[str, int] = {}
        for cluster in diagram.clusters:
            self.depth[cluster.id] = self.depth.get(cluster.parent, -1) + 1
        self.sizes = {node.id: self._turn(node_size(node)) for node in diagram.nodes}
        self.inputs = {node.id for node in diagram.nodes if node.kind == "input"}

    def _turn(self, size: Size) -> Size:
        return size.turned if self.turned else size

    def layout(self) -> Layout:
        for node in self.diagram.nodes:
            self.levels[node.cluster].item(("box", node.id))
        for cluster in self.diagram.clusters:
            if cluster.parent:
                self.levels[cluster.parent].item(("box", cluster.id))
        for edge in self.diagram.edges:
            self._thread(edge)
        for cluster in reversed(self.diagram.clusters):
            self._arrange(self.levels[cluster.id])
        return self._placed()

    def _thread(self, edge: DiagramEdge) -> None:
        """Cut an arrow into its parts, one for each level that it passes."""
        source_home, target_home = self.home[edge.source], self.home[edge.target]
        start: _Item = ("box", edge.source)
        end: _Item = ("box", edge.target)
        port = f"{edge.source} {edge.name}"
        while source_home != target_home:
            if self.depth[source_home] >= self.depth[target_home]:
                self.levels[source_home].join(start, ("out", port), edge)
                start = ("box", source_home)
                source_home = self.levels[source_home].cluster.parent
            else:
                thread = self.levels[target_home].join(("in", port), end, edge)
                if end[1] == edge.target and edge.parameter != edge.name:
                    thread.label = edge.parameter
                end = ("box", target_home)
                target_home = self.levels[target_home].cluster.parent
        level = self.levels[source_home]
        thread = level.join(start, end, edge)
        thread.label = labelled(edge, self.inputs)
        thread.edges.append(edge)

    def _arrange(self, level: _Level) -> None:
        sizes = [self._size(item) for item in level.items]
        trunks = []
        for (start, source, name), thread in level.threads.items():
            port = f"{source} {name}"
            trunks.append(
                Trunk(
                    source=level.items[start],
                    targets=[level.items[end] for end in thread.targets],
                    label=self._turn(label_size(thread.label)) if thread.label else None,
                    leaves=self._port(start, "out", port),
                    enters=[self._port(end, "in", port) for end in thread.targets],
                )
            )
        first = {at for item, at in level.items.items() if item[0] == "in"}
        last = {at for item, at in level.items.items() if item[0] == "out"}
        arranged = arrange(sizes, trunks, first, last)
        wide, tall = arranged.size.width, arranged.size.height
        before = (HEADER, _PAD) if self.turned else (_PAD, HEADER + 6)
        header = header_width(level.cluster)
        if self.turned:
            level.size = Size(wide + before[0] + _PAD, max(tall + 2 * _PAD, header))
            level.shift = (before[0], (level.size.height - tall) / 2)
        else:
            level.size = Size(max(wide + 2 * _PAD, header), tall + before[1] + _PAD)
            level.shift = ((level.size.width - wide) / 2, before[1])
        level.arranged = arranged

    def _size(self, item: _Item) -> Size:
        if item[0] != "box":
            return _NOTHING
        return self.sizes[item[1]] if item[1] in self.sizes else self.levels[item[1]].size

    def _port(self, item: _Item, side: str, port: str) -> float | None:
        """Where the line of a value meets a cluster, from its middle; None for a node."""
        if item[0] != "box":
            return 0.0
        level = self.levels.get(item[1])
        if level is None:
            return None
        assert level.arranged is not None
        x, _ = level.arranged.items[level.items[(side, port)]]
        return x + level.shift[0] - level.size.width / 2

    def _placed(self) -> Layout:
        nodes: dict[str, Box] = {}
        clusters: dict[str, Box] = {}
        wires: list[Wire] = []
        corners = {self.diagram.clusters[0].id: (_MARGIN, _MARGIN)}
        for cluster in self.diagram.clusters:
            level, (left, top) = self.levels[cluster.id], corners[cluster.id]
            arranged = level.arranged
            assert arranged is not None
            clusters[cluster.id] = self._box(left, top, level.size)
            x0, y0 = left + level.shift[0], top + level.shift[1]
            for (kind, of), (x, y) in zip(level.items, arranged.items, strict=True):
                if kind == "box" and of in self.sizes:
                    size = self.sizes[of]
                    nodes[of] = self._box(x0 + x - size.width / 2, y0 + y, size)
                elif kind == "box":
                    corners[of] = (x0 + x - self.levels[of].size.width / 2, y0 + y)
            edges = (top, top + level.size.height)
            for thread, route in zip(level.threads.items(), arranged.routes, strict=True):
                wires.append(self._wire(thread[0][0], thread[1], route, x0, y0, edges))
        whole = self.levels[self.diagram.clusters[0].id].size
        size = self._turn(Size(whole.width + 2 * _MARGIN, whole.height + 2 * _MARGIN))
        return Layout(size.width, size.height, nodes, clusters, tuple(wires))

    def _box(self, left: float, top: float, size: Size) -> Box:
        if self.turned:
            return Box(top, left, size.height, size.width)
        return Box(left, top, size.width, size.height)

    def _wire(
        self, start: _Item, thread: _Thread, route: Route, x0: float, y0: float, edges: tuple[float, float]
    ) -> Wire:
        stem = [Stop(stop.x + x0, stop.top + y0, stop.bottom + y0) for stop in route.stem]
        if start[0] == "in":
            stem[0] = Stop(stem[0].x, edges[0], edges[0] + HEADER if not self.turned else stem[0].bottom)
        parts = [self._through(stem)]
        heads = []
        for target, leaves, end in zip(thread.targets, route.leaves, route.ends, strict=True):
            bottom = edges[1] if target[0] == "out" else end.bottom + y0
            stop = Stop(end.x + x0, end.top + y0, bottom)
            parts.append(self._through([Stop(stem[leaves].x, stem[leaves].bottom, stem[leaves].bottom), stop]))
            if target[1] in self.sizes:
                heads.append((*self._point(stop.x, stop.bottom), *self._point(0.0, 1.0)))
        label = None
        if route.label is not None:
            label = (*self._point(route.label[0] + x0, route.label[1] + y0), thread.label)
        return Wire(" ".join(filter(None, parts)), tuple(heads), tuple(thread.edges), label)

    def _through(self, stops: list[Stop]) -> str:
        """A smooth line through these stops, as SVG draws it."""
        drawn = [f"M{self._text(stops[0].x, stops[0].top)}"]
        if stops[0].bottom > stops[0].top:
            drawn.append(f"L{self._text(stops[0].x, stops[0].bottom)}")
        for before, after in pairwise(stops):
            middle = (before.bottom + after.top) / 2
            ends = (before.x, middle), (after.x, middle), (after.x, after.top)
            drawn.append(f"C{' '.join(self._text(x, y) for x, y in ends)}")
            if after.bottom > after.top:
                drawn.append(f"L{self._text(after.x, after.bottom)}")
        return "".join(drawn) if len(drawn) > 1 else ""

    def _point(self, x: float, y: float) -> tuple[float, float]:
        return (y, x) if self.turned else (x, y)

    def _text(self, x: float, y: float) -> str:
        x, y = self._point(x, y)
        return f"{x:.1f},{y:.1f}"
