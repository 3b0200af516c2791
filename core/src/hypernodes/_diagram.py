"""A pipeline as a diagram: what there is to draw, as plain data, before anything is drawn.

Nothing here recurses over nodes or nesting: the depth limits what is shown, not what can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from hypernodes._backend import label
from hypernodes._compile import Planned
from hypernodes._errors import GraphError
from hypernodes._local import LocalBackend
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._resource import Resource
from hypernodes._typetext import input_text, listed, output_text

__all__ = ["Diagram", "DiagramCluster", "DiagramEdge", "DiagramNode", "diagram_of"]


@dataclass(frozen=True, slots=True)
class DiagramNode:
    """A box: an `"input"` of the pipeline, a `"node"`, a `"resource"`, or a `"nested"` pipeline that is not expanded.

    `path` is that of events and failures; `cluster` the id of the pipeline that it stands in. `outputs` are pairs of
    a name and a type's text, and `results` those names that no other box reads. An input has one output: itself.
    `place`, `inherited` and `map_over` are those of a nested pipeline, `size` counts its own nodes. `retries`,
    `timeout` in seconds, `cache` and `is_async` are a node's options; `required` is an input's.
    """

    id: str
    kind: str
    label: str
    path: tuple[str, ...]
    cluster: str
    outputs: tuple[tuple[str, str], ...]
    results: tuple[str, ...] = ()
    doc: str = ""
    is_async: bool = False
    cache: bool = True
    retries: int = 0
    timeout: float | None = None
    required: bool = True
    place: str = ""
    inherited: bool = False
    map_over: tuple[str, ...] = ()
    map_mode: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class DiagramEdge:
    """A value on its way: `name` is what the pipeline that holds both ends calls it, `parameter` what the reader does.

    `type` is the text of its annotation there. `mapped` says that it is a list which a mapped pipeline takes apart or
    puts together on the way.
    """

    source: str
    target: str
    name: str
    parameter: str
    type: str = ""
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class DiagramCluster:
    """A pipeline whose nodes are shown. `parent` is the cluster around it, `""` for the outermost.

    `place` names backend and engine, such as `"local:threaded"`. `inherited` says that an outer pipeline, or nobody,
    chose it; `chosen_by` is the name of that pipeline, `""` where it is the default.
    """

    id: str
    label: str
    path: tuple[str, ...]
    parent: str
    place: str
    chosen_by: str
    inherited: bool
    map_over: tuple[str, ...] = ()
    map_mode: str = ""


@dataclass(frozen=True, slots=True)
class Diagram:
    """What there is to draw of a pipeline. A cluster comes after the one around it, a node after what it reads."""

    name: str
    nodes: tuple[DiagramNode, ...]
    edges: tuple[DiagramEdge, ...]
    clusters: tuple[DiagramCluster, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as values that JSON can hold."""
        return asdict(self)


class _Value(NamedTuple):
    """Where a value comes from: its box, and the name and type it has in the pipeline that lies `home` levels deep.
    `spread` counts the maps that take it apart from there on, `gathered` says that one put it together."""

    source: str
    output: str
    name: str
    type: str
    home: int
    gathered: bool = False
    spread: int = 0


class _Frame:
    """A pipeline while its nodes are being drawn."""

    __slots__ = ("backend", "children", "cluster", "names", "nest", "origin", "parent", "path")

    def __init__(
        self,
        pipeline: Planned,
        path: tuple[str, ...],
        cluster: str,
        inherited: tuple[Any, str],
        parent: _Frame | None = None,
        nest: NestedPipeline | None = None,
    ) -> None:
        self.children: Iterator[GraphNode] = iter(pipeline.graph.order)
        self.path, self.cluster, self.parent, self.nest = path, cluster, parent, nest
        self.backend, self.origin = inherited if pipeline.backend is None else (pipeline.backend, path[-1])
        self.names: dict[str, _Value] = {}

    def bind(self, name: str, value: _Value) -> None:
        """Give a value its name, except where a given input overrides it."""
        self.names.setdefault(name, value)


def diagram_of(pipeline: Planned, depth: int | None = 1) -> Diagram:
    """The diagram of a pipeline. `depth=1` shows its own nodes, each further level opens the pipelines nested there,
    `None` opens all. Raises `GraphError` for another depth."""
    given: object = depth
    if depth is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise GraphError(
            f"pipeline '{pipeline.name}': depth={depth!r}; give a whole number, 1 or more, or None to show every level"
        )
    return _Drawing(depth).of(pipeline)


class _Drawing:
    def __init__(self, depth: int | None) -> None:
        self.depth = depth
        self.nodes: list[DiagramNode] = []
        self.edges: dict[DiagramEdge, None] = {}
        self.clusters: list[DiagramCluster] = []
        self.read: set[tuple[str, str]] = set()

    def of(self, pipeline: Planned) -> Diagram:
        root = frame = _Frame(pipeline, (pipeline.name,), "c0", (LocalBackend(), ""))
        self._cluster(root, pipeline)
        self._inputs(root, pipeline)
        while True:
            node = next(frame.children, None)
            if node is None:
                if frame.parent is None:
                    break
                self._close(frame, frame.parent)
                frame = frame.parent
            elif isinstance(node, NestedPipeline) and (self.depth is None or len(frame.path) < self.depth):
                frame = self._open(frame, node)
            else:
                self._box(frame, node)
        nodes = (_with_results(node, self.read) for node in self.nodes)
        return Diagram(pipeline.name, tuple(nodes), tuple(self.edges), tuple(self.clusters))

    def _cluster(self, frame: _Frame, pipeline: Planned) -> None:
        nest, parent = frame.nest, frame.parent
        self.clusters.append(
            DiagramCluster(
                id=frame.cluster,
                label=frame.path[-1],
                path=frame.path,
                parent="" if parent is None else parent.cluster,
                place=label(frame.backend),
                chosen_by=frame.origin,
                inherited=pipeline.backend is None,
                map_over=nest.map_over if nest else (),
                map_mode=nest.map_mode if nest and nest.map_over else "",
            )
        )

    def _inputs(self, root: _Frame, pipeline: Planned) -> None:
        first: dict[str, GraphNode] = {}
        for node in pipeline.graph.nodes:
            for parameter in node.parameters:
                first.setdefault(parameter.name, node)
        for name, parameter in pipeline.graph.inputs.items():
            text = input_text(first[name], name)
            at = f"n{len(self.nodes)}"
            path, outputs = (*root.path, name), ((name, text),)
            self.nodes.append(DiagramNode(at, "input", name, path, root.cluster, outputs, required=parameter.required))
            root.bind(name, _Value(at, name, name, text, home=1))

    def _box(self, frame: _Frame, node: GraphNode) -> None:
        at = f"n{len(self.nodes)}"
        outputs = tuple((name, output_text(node, name)) for name in node.outputs)
        over = node.map_over if isinstance(node, NestedPipeline) else ()
        make = _nested if isinstance(node, NestedPipeline) else _resource if isinstance(node, Resource) else _node
        self.nodes.append(make(at, node, frame, outputs))
        for parameter in node.parameters:
            value = frame.names.get(parameter.name)
            if value is None:
                continue
            self.read.add((value.source, value.output))
            text = value.type or listed(input_text(node, parameter.name), value.spread)
            mapped = value.gathered or value.spread > 0 or parameter.name in over
            self.edges[DiagramEdge(value.source, at, value.name, parameter.name, text, mapped)] = None
        for name, text in outputs:
            frame.bind(name, _Value(at, name, name, text, len(frame.path), gathered=bool(over)))

    def _open(self, frame: _Frame, nest: NestedPipeline) -> _Frame:
        path = (*frame.path, nest.name)
        inner = _Frame(nest.pipeline, path, f"c{len(self.clusters)}", (frame.backend, frame.origin), frame, nest)
        self._cluster(inner, nest.pipeline)
        for outer, name in nest.inner_names.items():
            value = frame.names.get(outer)
            if value is not None:
                inner.bind(name, value._replace(spread=value.spread + (outer in nest.map_over)))
        return inner

    def _close(self, frame: _Frame, parent: _Frame) -> None:
        """Give the outer pipeline what the inner one made, under the outer names."""
        nest = frame.nest
        assert nest is not None
        mapped, home = bool(nest.map_over), len(parent.path)
        for inner, outer in nest.outer_names.items():
            value = frame.names[inner]
            if value.home > home:
                text = listed(value.type, mapped)
                value = value._replace(name=outer, type=text, home=home, gathered=value.gathered or mapped)
            parent.bind(outer, value)


_Outputs = tuple[tuple[str, str], ...]


def _node(at: str, node: GraphNode, frame: _Frame, outputs: _Outputs) -> DiagramNode:
    assert isinstance(node, Node)
    return DiagramNode(
        id=at,
        kind="node",
        label=node.name,
        path=(*frame.path, node.name),
        cluster=frame.cluster,
        outputs=outputs,
        doc=_first_line(node.func.__doc__),
        is_async=node.is_async,
        cache=node.cache,
        retries=node.retries or 0,
        timeout=node.timeout,
    )


def _resource(at: str, resource: GraphNode, frame: _Frame, outputs: _Outputs) -> DiagramNode:
    assert isinstance(resource, Resource)
    return DiagramNode(
        id=at,
        kind="resource",
        label=resource.name,
        path=(*frame.path, resource.name),
        cluster=frame.cluster,
        outputs=outputs,
        doc=_first_line(resource.func.__doc__),
        is_async=resource.is_async,
    )


def _nested(at: str, nest: GraphNode, frame: _Frame, outputs: _Outputs) -> DiagramNode:
    assert isinstance(nest, NestedPipeline)
    backend = nest.pipeline.backend
    return DiagramNode(
        id=at,
        kind="nested",
        label=nest.name,
        path=(*frame.path, nest.name),
        cluster=frame.cluster,
        outputs=outputs,
        place=label(frame.backend if backend is None else backend),
        inherited=backend is None,
        map_over=nest.map_over,
        map_mode=nest.map_mode if nest.map_over else "",
        size=len(nest.pipeline.graph.nodes),
    )


def _with_results(node: DiagramNode, read: set[tuple[str, str]]) -> DiagramNode:
    results = tuple(name for name, _ in node.outputs if (node.id, name) not in read)
    return node if node.kind in ("input", "resource") else replace(node, results=results)


def _first_line(doc: object) -> str:
    lines = doc.strip().splitlines() if isinstance(doc, str) else []
    return lines[0].strip()[:200] if lines else ""
