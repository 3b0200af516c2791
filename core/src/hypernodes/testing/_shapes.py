"""What a case is made of, as plain data: functions as text, resources, pipelines, and one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

__all__ = ["Built", "Call", "Function", "Nest", "Parameter", "Tree", "Unit", "pinned"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function; `default` is an expression, `note` an annotation."""

    name: str
    default: str | None = None
    keyword_only: bool = False
    note: str = ""

    def text(self) -> str:
        """As it stands between the brackets."""
        if self.note:
            return f"{self.name}: {self.note}" + ("" if self.default is None else f" = {self.default}")
        return self.name if self.default is None else f"{self.name}={self.default}"


@dataclass(frozen=True)
class Function:
    """A node as text. `body` is for one item, and ends with what it returns.

    With a `batch_size` it is a batch node: those parameters that are `lists` take a list, and the body runs for each
    of their elements. `said` says that the decorator names them; else they follow from the wiring.
    """

    name: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    body: tuple[str, ...]
    is_async: bool = False
    kind: Literal["function"] = "function"
    batch_size: int = 0
    lists: tuple[str, ...] = ()
    said: bool = True
    yields: bool = False
    limits: tuple[str, ...] = ()
    demand: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> dict[str, str]:
        """Parameter by value name; the two are one for a function."""
        return {parameter.name: parameter.name for parameter in self.parameters}

    @property
    def output_name(self) -> str | tuple[str, ...]:
        """As `@node` takes it."""
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `@node`."""
        limit = self.limits if len(self.limits) > 1 else "".join(self.limits)
        over = self.lists if self.batch_size and self.said else ()
        options = {"batch_size": self.batch_size, "batch_over": list(over), "limit": limit}
        options["resources"] = dict(self.demand)
        return {"output_name": self.output_name} | {key: value for key, value in options.items() if value}

    def alone(self) -> Function:
        """The same for one item at a time."""
        return replace(self, batch_size=0, lists=())

    def text(self) -> str:
        """The function's source, without a decorator."""
        plain = [p for p in self.parameters if not p.keyword_only]
        plain.sort(key=lambda p: p.default is not None)
        keyword = [p for p in self.parameters if p.keyword_only]
        shown = [p.text() for p in (*plain, *keyword)]
        if keyword:
            shown.insert(len(plain), "*")
        head = f"{'async ' if self.is_async else ''}def {self.name}({', '.join(shown)}):"
        body = self._batched() if self.batch_size else self.body
        return "\n".join([head, *(f"    {line}" for line in body)]) + "\n"

    def _batched(self) -> list[str]:
        names = ", ".join(self.lists)
        each = f"zip({names}, strict=True)" if len(self.lists) > 1 else names
        result = self.body[-1].removeprefix("return ")
        several = len(self.outputs) > 1
        return [
            "made = []",
            f"for {names} in {each}:",
            *(f"    {line}" for line in self.body[:-1]),
            f"    made.append({f'({result})' if several else result})",
            "return tuple(map(list, zip(*made)))" if several else "return made",
        ]


@dataclass(frozen=True)
class Built:
    """A resource as text: what it needs, and the expression of its value; with `closes` as a generator function."""

    name: str
    needs: tuple[str, ...]
    expression: str
    closes: bool = False
    kind: Literal["resource"] = "resource"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What it provides."""
        return (self.name,)

    @property
    def reads(self) -> dict[str, str]:
        """The resources that it needs, as for a function."""
        return {name: name for name in self.needs}

    def text(self) -> str:
        """The function's source, without a decorator."""
        word = "yield" if self.closes else "return"
        return f"def {self.name}({', '.join(self.needs)}):\n    {word} {self.expression}\n"


@dataclass(frozen=True)
class Nest:
    """A pipeline used as a node."""

    tree: Tree
    input_mapping: Mapping[str, str]
    output_mapping: Mapping[str, str]
    map_over: tuple[str, ...] = ()
    map_mode: Literal["zip", "product"] = "zip"
    name: str | None = None
    bare: bool = False
    kind: Literal["nest"] = "nest"

    @property
    def label(self) -> str:
        """The name that stands in paths."""
        return self.name or self.tree.name

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names as the outer pipeline sees them."""
        return tuple(self.output_mapping.get(name, name) for name in self.tree.outputs)

    @cached_property
    def reads(self) -> dict[str, str]:
        """Inner input, or inner output that is overridden from outside, by outer name."""
        outer = {inner: outer for outer, inner in self.input_mapping.items()}
        return {outer.get(name, name): name for name in self.tree.inputs} | dict(self.input_mapping)

    def inner_output(self, name: str) -> str:
        """The inner name of an output."""
        return self.tree.outputs[self.outputs.index(name)]

    def text(self, variable: str) -> str:
        """The expression that makes this node out of the pipeline called `variable`."""
        if self.bare:
            return variable
        options: dict[str, Any] = {
            "input_mapping": dict(self.input_mapping),
            "output_mapping": dict(self.output_mapping),
        }
        options |= {"map_over": list(self.map_over), "map_mode": self.map_mode} if self.map_over else {}
        options["name"] = self.name
        return f"{variable}.as_node({', '.join(f'{key}={value!r}' for key, value in options.items() if value)})"


Unit: TypeAlias = Function | Built | Nest


@dataclass(frozen=True, eq=False)
class Tree:
    """A pipeline; `place` picks its backend where a build offers several, 0 leaving it to inherit."""

    name: str
    units: tuple[Unit, ...]
    place: int = 0
    limits: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def maker(self) -> dict[str, int]:
        """Index of the unit that makes a name."""
        return {name: index for index, unit in enumerate(self.units) for name in unit.outputs}

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Every output, in order of declaration."""
        return tuple(name for unit in self.units if not isinstance(unit, Built) for name in unit.outputs)

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """The names of its own resources."""
        return tuple(unit.name for unit in self.units if isinstance(unit, Built))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Every name that is read and not made, in order of declaration."""
        return tuple(dict.fromkeys(n for unit in self.units for n in unit.reads if n not in self.maker))

    def walk(self) -> Iterator[Tree]:
        """Every pipeline below and with this one, inner ones first, each once."""
        seen: dict[int, Tree] = {}
        for unit in self.units:
            if isinstance(unit, Nest):
                seen |= {id(tree): tree for tree in unit.tree.walk()}
        yield from (seen | {id(self): self}).values()


@dataclass(frozen=True)
class Call:
    """What is called, with which values; every value is an expression."""

    kind: Literal["run", "rows", "columns"]
    inputs: Mapping[str, str]
    rows: tuple[Mapping[str, str], ...] = ()
    map_over: tuple[str, ...] = ()
    map_mode: Literal["zip", "product"] = "zip"
    on_error: Literal["raise", "return"] = "raise"
    output_name: str | None = None
    output_nodes: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """The keyword arguments beside the values."""
        chosen: dict[str, Any] = {"output_name": self.output_name, "output_nodes": list(self.output_nodes)}
        if self.kind == "columns":
            chosen |= {"map_over": list(self.map_over), "map_mode": self.map_mode}
        if self.kind != "run" and self.on_error != "raise":
            chosen["on_error"] = self.on_error
        return {key: value for key, value in chosen.items() if value}


def pinned(tree: Tree) -> set[str]:
    """Resources, under their names in this pipeline, that another resource in it or below is built from."""
    found: set[str] = set()
    for unit in tree.units:
        if isinstance(unit, Built):
            found.update(unit.needs)
        elif isinstance(unit, Nest):
            below = pinned(unit.tree)
            found.update(outer for outer, name in unit.reads.items() if name in below)
    return found
