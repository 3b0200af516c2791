"""A pipeline as a node of another: other names, and a map over lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hypernodes._errors import NodeDefinitionError, UnknownInputError, UnknownOutputError, did_you_mean, quoted
from hypernodes._node import GraphNode, Parameter, check_name

if TYPE_CHECKING:
    from hypernodes._compile import Planned

__all__ = ["MAP_MODES", "NestedPipeline", "check_map_mode", "names_of"]

MAP_MODES = ("zip", "product")


class NestedPipeline(GraphNode):
    """An inner pipeline under outer names. `inner_names` maps each outer input to the inner one, `outer_names`
    each inner output to the outer one; `map_over` holds outer input names that take lists."""

    __slots__ = ("inner_names", "map_mode", "map_over", "name", "outer_names", "outputs", "parameters", "pipeline")

    def __init__(
        self,
        pipeline: Planned,
        *,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: str = "zip",
        name: str | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.name = pipeline.name if name is None else _checked_name(pipeline.name, name)
        owner = f"nested pipeline '{self.name}'"
        graph = pipeline.graph
        inner_of = _checked_mapping(owner, "input_mapping", input_mapping)
        for outer, inner in inner_of.items():
            check_name(owner, outer, "input name")
            check_name(owner, inner, "inner name in input_mapping")
            if inner not in graph.inputs and inner not in graph.producers:
                raise UnknownInputError(
                    f"{owner}: input_mapping={{{outer!r}: {inner!r}}} names no input of it"
                    f"{did_you_mean(inner, graph.inputs)}; it goes from outer to inner names, "
                    f"and the inner inputs are {quoted(graph.inputs)}"
                )
        _once(owner, "input_mapping", list(inner_of.values()))
        renamed = {inner: outer for outer, inner in inner_of.items()}
        self.inner_names: dict[str, str] = {renamed.get(inner, inner): inner for inner in graph.inputs}
        if len(self.inner_names) < len(graph.inputs):
            _clash(owner, "input", [renamed.get(inner, inner) for inner in graph.inputs])
        # An inner output may be overridden from outside: it is an input only where the mapping says so.
        self.inner_names.update({outer: inner for outer, inner in inner_of.items() if inner in graph.producers})
        outer_of = _checked_mapping(owner, "output_mapping", output_mapping)
        for inner, outer in outer_of.items():
            check_name(owner, outer, "output name")
            if inner not in graph.outputs:
                raise UnknownOutputError(
                    f"{owner}: output_mapping={{{inner!r}: {outer!r}}} names no output of it"
                    f"{did_you_mean(inner, graph.outputs)}; it goes from inner to outer names, "
                    f"and the inner outputs are {quoted(graph.outputs)}"
                )
        self.outer_names: dict[str, str] = {inner: outer_of.get(inner, inner) for inner in graph.outputs}
        self.outputs = tuple(self.outer_names.values())
        if len(set(self.outputs)) < len(self.outputs):
            _clash(owner, "output", list(self.outputs))
        self.map_over = names_of(owner, "map_over", map_over)
        for outer in self.map_over:
            if outer not in self.inner_names:
                raise UnknownInputError(
                    f"{owner}: map_over names {outer!r}, which is no input of it"
                    f"{did_you_mean(outer, self.inner_names)}; "
                    f"use the names that the outer pipeline sees: {quoted(self.inner_names)}"
                )
        self.map_mode = check_map_mode(owner, map_mode)
        needed = {inner for inner, parameter in graph.inputs.items() if parameter.required}
        self.parameters = tuple(
            Parameter(outer, inner in needed or outer in self.map_over or inner in graph.producers)
            for outer, inner in self.inner_names.items()
        )

    @property
    def options(self) -> dict[str, Any]:
        """What `as_node` needs to make this again."""
        made = self.pipeline.graph.producers
        return {
            "input_mapping": {o: inner for o, inner in self.inner_names.items() if o != inner or inner in made},
            "output_mapping": {inner: outer for inner, outer in self.outer_names.items() if outer != inner},
            "map_over": self.map_over or None,
            "map_mode": self.map_mode,
            "name": self.name,
        }

    def __repr__(self) -> str:
        over = f" mapped over {quoted(self.map_over)}" if self.map_over else ""
        return f"<nested pipeline '{self.name}'{over}>"


def names_of(owner: str, option: str, names: str | Sequence[str] | None) -> tuple[str, ...]:
    """One name or several as a tuple; each must be a string and come once."""
    if names is None:
        return ()
    if not isinstance(names, str | Iterable):
        raise NodeDefinitionError(f"{owner}: {option}={names!r}; give the name of an input, or a list of names")
    found: tuple[Any, ...] = (names,) if isinstance(names, str) else tuple(names)
    if not found:
        raise NodeDefinitionError(f"{owner}: {option} is empty; name at least one input, or leave it out")
    for name in found:
        if not isinstance(name, str):
            raise NodeDefinitionError(f"{owner}: {option} holds {name!r}; give names of inputs as strings")
    _once(owner, option, list(found))
    return found


def check_map_mode(owner: str, mode: object) -> str:
    if mode not in MAP_MODES:
        raise NodeDefinitionError(
            f"{owner}: map_mode={mode!r}{did_you_mean(mode, MAP_MODES)}; "
            "give 'zip' (item by item) or 'product' (all pairs)"
        )
    return str(mode)


def _checked_name(pipeline: str, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise NodeDefinitionError(f"nested pipeline '{pipeline}': name={name!r}; give a string")
    return name


def _checked_mapping(owner: str, option: str, mapping: Mapping[str, str] | None) -> dict[str, str]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise NodeDefinitionError(f"{owner}: {option}={mapping!r}; give a dict of names")
    return dict(mapping)


def _once(owner: str, option: str, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise NodeDefinitionError(f"{owner}: {option} names '{twice}' twice")


def _clash(owner: str, what: str, names: list[str]) -> None:
    twice = next(name for name in names if names.count(name) > 1)
    raise NodeDefinitionError(f"{owner}: two {what}s would both be called '{twice}' outside; map one to another name")
