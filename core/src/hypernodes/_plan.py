"""A pipeline compiled for one choice of inputs and outputs: plain steps over numbered slots, nests flattened.

A slot is the place of one value. Nested pipelines become steps of the same plan, whose `path` keeps where they came
from; a mapped nested pipeline becomes one `MapStep` with a plan of its own. Each step knows its place: the index
of its backend in `places`. Nothing here recurses over nodes or nesting, except into plans of mapped pipelines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from hypernodes._graph import Graph, missing_inputs
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node

__all__ = ["MapStep", "Plan", "Planned", "Step", "compile_plan"]


class Planned(Protocol):
    """What compiling needs to know of a pipeline."""

    @property
    def name(self) -> str: ...
    @property
    def graph(self) -> Graph: ...
    @property
    def backend(self) -> Any: ...


class Step(NamedTuple):
    """One call of one node: each parameter with the slot it reads, and the slots it writes.

    `place` is the index of its backend; `origin` names the pipeline that chose it, `""` where none did.
    """

    node: Node[..., Any]
    path: tuple[str, ...]
    reads: tuple[tuple[str, int], ...]
    writes: tuple[int, ...]
    place: int
    origin: str = ""

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(slot for _, slot in self.reads)


class MapStep(NamedTuple):
    """A nested pipeline mapped over lists: `inner` runs once for each row.

    `inner.inputs` lists the inner inputs; `sources` holds for each the outer slot that feeds it. `mapped` are the
    positions of those that give one element a row, in the order of `map_over`, and `names` what the outer pipeline
    calls them. `writes` are the outer slots for the
    lists of results, in the order of `inner.outputs`.
    """

    path: tuple[str, ...]
    inner: Plan
    sources: tuple[int, ...]
    mapped: tuple[int, ...]
    names: tuple[str, ...]
    mode: str
    writes: tuple[int, ...]
    place: int

    @property
    def crosses(self) -> bool:
        """Whether any inner step runs somewhere else than this step's surroundings."""
        return any(
            step.place != self.place or (isinstance(step, MapStep) and step.crosses) for step in self.inner.steps
        )


class Plan(NamedTuple):
    """Steps in an order that respects what they read, with the slots of inputs and outputs by name."""

    path: tuple[str, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    steps: tuple[Step | MapStep, ...]
    places: tuple[Any, ...]


class _Frame:
    """One pipeline while its nodes are being laid out."""

    __slots__ = ("children", "names", "nest", "origin", "parent", "path", "place")

    def __init__(
        self,
        pipeline: Planned,
        path: tuple[str, ...],
        place: int,
        origin: str,
        names: dict[str, int],
        parent: _Frame | None = None,
        nest: NestedPipeline | None = None,
    ) -> None:
        self.children: Iterator[GraphNode] = iter(pipeline.graph.order)
        self.path, self.place, self.origin, self.names = path, place, origin, names
        self.parent, self.nest = parent, nest


class _Mapped:
    """A mapped nested pipeline before its inner plan is known: which outputs are needed is found out first."""

    __slots__ = ("nest", "origin", "path", "place", "reads", "slots")

    def __init__(
        self,
        nest: NestedPipeline,
        path: tuple[str, ...],
        place: int,
        origin: str,
        reads: dict[str, int],
        slots: dict[str, int],
    ) -> None:
        self.nest, self.path, self.place, self.origin, self.reads, self.slots = nest, path, place, origin, reads, slots


def compile_plan(pipeline: Planned, given: Iterable[str], wanted: Iterable[str], default_backend: Any) -> Plan:
    """The plan that makes `wanted` from `given`, with only the steps that are needed upstream.

    A given name that a node makes overrides it: its producer runs only if something else needs it.
    Raises `MissingInputError` for all needed inputs that are not given, at once.
    """
    backend = default_backend if pipeline.backend is None else pipeline.backend
    origin = "" if pipeline.backend is None else pipeline.name
    places = [backend]
    plan = _Compiler(places).plan(pipeline, (pipeline.name,), 0, origin, tuple(given), tuple(wanted))
    return plan._replace(places=tuple(places))


class _Compiler:
    """Lays out one plan after another over one table of places."""

    def __init__(self, places: list[Any]) -> None:
        self.places = places

    def _place(self, nest: NestedPipeline, place: int, origin: str) -> tuple[int, str]:
        """Where a nested pipeline runs, and who chose it: inherited means stay here, explicit means go there.

        Equal backends are one place.
        """
        backend = nest.pipeline.backend
        if backend is None:
            return place, origin
        for at, known in enumerate(self.places):
            if type(known) is type(backend) and known == backend:
                return at, nest.name
        self.places.append(backend)
        return len(self.places) - 1, nest.name

    def plan(
        self,
        pipeline: Planned,
        path: tuple[str, ...],
        place: int,
        origin: str,
        given: tuple[str, ...],
        wanted: tuple[str, ...],
    ) -> Plan:
        slots = len(given)
        names = {name: slot for slot, name in enumerate(given)}
        root = frame = _Frame(pipeline, path, place, origin, names)
        laid: list[Step | _Mapped] = []
        while True:
            node = next(frame.children, None)
            if node is None:
                if frame.parent is None:
                    break
                self._close(frame)
                frame = frame.parent
            elif isinstance(node, NestedPipeline):
                inner_path = (*frame.path, node.name)
                reads = {inner: frame.names[outer] for outer, inner in node.inner_names.items() if outer in frame.names}
                if node.map_over:
                    made = {}
                    for inner in node.outer_names:
                        made[inner], slots = slots, slots + 1
                    laid.append(_Mapped(node, inner_path, frame.place, frame.origin, reads, made))
                    self._bind(frame, {node.outer_names[inner]: slot for inner, slot in made.items()})
                else:
                    inner_place, inner_origin = self._place(node, frame.place, frame.origin)
                    frame = _Frame(node.pipeline, inner_path, inner_place, inner_origin, reads, frame, node)
            else:
                assert isinstance(node, Node)
                known = frame.names
                found = tuple([(p.name, known[p.name]) for p in node.parameters if p.name in known])
                writes = tuple(range(slots, slots + len(node.outputs)))
                slots += len(writes)
                laid.append(Step(node, (*frame.path, node.name), found, writes, frame.place, frame.origin))
                self._bind(frame, dict(zip(node.outputs, writes, strict=True)))
        outputs = tuple((name, root.names[name]) for name in wanted)
        steps = self._needed(laid, {slot for _, slot in outputs}, path[0], given)
        return Plan(path, tuple((name, slot) for slot, name in enumerate(given)), outputs, steps, ())

    @staticmethod
    def _bind(frame: _Frame, made: dict[str, int]) -> None:
        """Give names to made values, except where a given input overrides them."""
        names = frame.names
        for name, slot in made.items():
            names.setdefault(name, slot)

    def _close(self, frame: _Frame) -> None:
        nest, parent = frame.nest, frame.parent
        assert nest is not None and parent is not None
        self._bind(parent, {outer: frame.names[inner] for inner, outer in nest.outer_names.items()})

    def _needed(
        self, laid: list[Step | _Mapped], needed: set[int], pipeline: str, given: tuple[str, ...]
    ) -> tuple[Step | MapStep, ...]:
        kept: list[Step | MapStep] = []
        missing: list[tuple[tuple[str, ...], str]] = []
        for step in reversed(laid):
            if isinstance(step, Step):
                if needed.isdisjoint(step.writes):
                    continue
                if len(step.reads) < len(step.node.parameters):
                    have = {name for name, _ in step.reads}
                    missing += [(step.path, p.name) for p in step.node.parameters if p.required and p.name not in have]
                needed.update(slot for _, slot in step.reads)
                kept.append(step)
            else:
                outputs = tuple(inner for inner, slot in step.slots.items() if slot in needed)
                if not outputs:
                    continue
                nest = step.nest
                absent = [outer for outer in nest.map_over if nest.inner_names[outer] not in step.reads]
                if absent:
                    missing += [(step.path, outer) for outer in absent]
                    continue
                mapped_step = self._map_step(step, outputs)
                needed.update(mapped_step.sources)
                kept.append(mapped_step)
        if missing:
            raise missing_inputs(pipeline, missing[::-1], given)
        return tuple(kept[::-1])

    def _map_step(self, step: _Mapped, outputs: tuple[str, ...]) -> MapStep:
        nest = step.nest
        place, origin = self._place(nest, step.place, step.origin)
        inner = self.plan(nest.pipeline, step.path, place, origin, tuple(step.reads), outputs)
        over = [nest.inner_names[outer] for outer in nest.map_over]
        used = {slot for inner_step in inner.steps for slot in inner_step.sources}
        used.update(slot for _, slot in inner.outputs)
        # What only pruned nodes would read is not needed from outside either; mapped lists always set the rows.
        inputs = tuple((name, slot) for name, slot in inner.inputs if slot in used or name in over)
        position = {name: at for at, (name, _) in enumerate(inputs)}
        return MapStep(
            path=step.path,
            inner=inner._replace(inputs=inputs),
            sources=tuple(step.reads[name] for name, _ in inputs),
            mapped=tuple(position[name] for name in over),
            names=nest.map_over,
            mode=nest.map_mode,
            writes=tuple(step.slots[name] for name in outputs),
            place=step.place,
        )
