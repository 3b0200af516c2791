"""The wiring of a pipeline by names: who makes what, in which order, and what is wrong with it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from hypernodes._errors import (
    CycleError,
    DuplicateOutputError,
    MissingInputError,
    UnknownInputError,
    UnknownOutputError,
    did_you_mean,
    quoted,
)
from hypernodes._node import GraphNode, Parameter
from hypernodes._resource import Resource

__all__ = ["Graph"]


class Graph:
    """Nodes wired by name, checked when it is made.

    `order` holds the nodes so that each comes after what it reads; among those that could come next, the one
    listed first does. `inputs` are the names that no node makes; an input is required where any reader requires it.
    `producers` says who makes each name; those that resources provide are no outputs, and `asked` are the names that
    resources need and nobody here provides.
    Raises `DuplicateOutputError` and `CycleError`.
    """

    __slots__ = ("asked", "inputs", "name", "nodes", "order", "outputs", "producers")

    def __init__(self, name: str, nodes: Sequence[GraphNode]) -> None:
        self.name = name
        self.nodes = tuple(nodes)
        self.producers = _producers(name, self.nodes)
        self.outputs = tuple([name for name, at in self.producers.items() if not isinstance(self.nodes[at], Resource)])
        self.inputs = self._free_inputs()
        taken = {p.name for node in self.nodes if isinstance(node, Resource) for p in node.parameters}
        self.asked = tuple(sorted(taken.difference(self.producers)))
        self.order = self._sorted()

    def _free_inputs(self) -> dict[str, Parameter]:
        inputs: dict[str, Parameter] = {}
        producers = self.producers
        for node in self.nodes:
            if isinstance(node, Resource):
                continue  # built once for many items, it takes nothing that could differ between them
            for parameter in node.parameters:
                name = parameter.name
                if name in producers:
                    continue
                known = inputs.get(name)
                if known is None or (parameter.required and not known.required):
                    inputs[name] = Parameter(name, parameter.required)
        return inputs

    def _sorted(self) -> tuple[GraphNode, ...]:
        producers, nodes = self.producers, self.nodes
        readers: list[list[int]] = [[] for _ in nodes]
        waits = [0] * len(nodes)
        for at, node in enumerate(nodes):
            sources = {producers[p.name] for p in node.parameters if p.name in producers}
            waits[at] = len(sources)
            for source in sources:
                readers[source].append(at)
        ready = [at for at, count in enumerate(waits) if not count]
        order: list[GraphNode] = []
        while ready:
            at = heapq.heappop(ready)
            order.append(nodes[at])
            for reader in readers[at]:
                waits[reader] -= 1
                if not waits[reader]:
                    heapq.heappush(ready, reader)
        if len(order) < len(nodes):
            raise CycleError(self._cycle([at for at, count in enumerate(waits) if count]))
        return tuple(order)

    def _cycle(self, stuck: list[int]) -> str:
        """The sentence for a cycle: walk from a stuck node to whatever it waits for until one comes twice."""
        left = set(stuck)
        at = stuck[0]
        seen: dict[int, int] = {}
        walk: list[tuple[int, str]] = []
        while at not in seen:
            seen[at] = len(walk)
            name, source = next(
                (p.name, self.producers[p.name])
                for p in self.nodes[at].parameters
                if self.producers.get(p.name) in left
            )
            walk.append((at, name))
            at = source
        loop = walk[seen[at] :][::-1]
        path = " -> ".join([self.nodes[reader].name for reader, _ in loop] + [self.nodes[loop[0][0]].name])
        values = quoted(name for _, name in loop)
        if len(loop) == 1:
            node = self.nodes[at]
            if isinstance(node, Resource):
                return f"pipeline '{self.name}': resource '{node.name}' takes itself; rename its parameter {values}"
            return f"pipeline '{self.name}': node '{node.name}' takes its own output {values}; rename one of them"
        return f"pipeline '{self.name}' has a cycle: {path} (through {values}); one of them must not read the other"

    def check_outputs(self, wanted: Iterable[str]) -> None:
        """Raise `UnknownOutputError` for a wanted name that no node makes."""
        for name in wanted:
            at = self.producers.get(name)
            if at is not None and isinstance(self.nodes[at], Resource):
                raise UnknownOutputError(
                    f"pipeline '{self.name}': {name!r} is a resource, which is passed to nodes and never returned; "
                    f"let a node return what you need of it. The outputs are {quoted(self.outputs)}"
                )
            if at is None:
                raise UnknownOutputError(
                    f"pipeline '{self.name}' has no output {name!r}{did_you_mean(name, self.outputs)}; "
                    f"its outputs are {quoted(self.outputs)}"
                )

    def check_inputs(self, given: Iterable[str]) -> None:
        """Raise `UnknownInputError` for a given name that no node takes or makes."""
        for name in given:
            if name not in self.inputs and name not in self.producers:
                near = did_you_mean(name, [*self.inputs, *self.producers])
                raise UnknownInputError(
                    f"pipeline '{self.name}' has no input {name!r}{near}; its inputs are {quoted(self.inputs)}"
                )


def missing_inputs(
    pipeline: str, missing: Iterable[tuple[tuple[str, ...], str]], given: Iterable[str], known: Iterable[str]
) -> MissingInputError:
    """The error for needed inputs that were not given: each with the node and the parameter that need it.

    `known` are the names that are there, one of which may have been meant.
    """
    known = list(known)
    needs = [f"'{name}' (parameter of {' > '.join(path)}){did_you_mean(name, known)}" for path, name in missing]
    return MissingInputError(
        f"pipeline '{pipeline}' is missing {'input' if len(needs) == 1 else 'inputs'} {', '.join(needs)}; "
        f"given: {quoted(given)}"
    )


def _producers(pipeline: str, nodes: tuple[GraphNode, ...]) -> dict[str, int]:
    producers: dict[str, int] = {}
    for at, node in enumerate(nodes):
        for output in node.outputs:
            if output in producers:
                earlier = nodes[producers[output]]
                first = earlier.name
                if isinstance(node, Resource) or isinstance(earlier, Resource):
                    raise DuplicateOutputError(_two_providers(pipeline, earlier, node, output))
                raise DuplicateOutputError(
                    f"pipeline '{pipeline}': nodes '{first}' and '{node.name}' both make the output '{output}'; "
                    "rename one with output_name= (or output_mapping= for a nested pipeline)"
                )
            producers[output] = at
    return producers


def _two_providers(pipeline: str, first: GraphNode, second: GraphNode, name: str) -> str:
    if first is second:
        return f"pipeline '{pipeline}': resource '{name}' is twice among its nodes; list it once"
    kinds = [f"{'resource' if isinstance(one, Resource) else 'node'} '{one.name}'" for one in (first, second)]
    return (
        f"pipeline '{pipeline}': {kinds[0]} and {kinds[1]} both provide '{name}'; "
        "give a resource another name with @resource(name=...), or an output with output_name="
    )
