"""A case: one random pipeline, the call made on it and the program that shows both.

A case is plain data. Its functions are text, so a failing case prints itself as a program a reader can run, and
`inspect.getsource` finds every function.
"""

from __future__ import annotations

import asyncio
import itertools
import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypernodes import MemoryCache
from hypernodes.testing import _oracle
from hypernodes.testing._compare import compare
from hypernodes.testing._event_tree import Branch, EventLog, outline
from hypernodes.testing._values import IMPORTS, PRELUDE

if TYPE_CHECKING:
    from hypernodes import Pipeline

__all__ = ["Call", "Case", "Function", "Nest", "Parameter", "Tree"]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function; `default` is an expression."""

    name: str
    default: str | None = None
    keyword_only: bool = False


@dataclass(frozen=True)
class Function:
    """A node as text."""

    name: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]
    body: tuple[str, ...]
    is_async: bool = False
    kind: Literal["function"] = "function"

    @property
    def reads(self) -> dict[str, str]:
        """Parameter by value name; the two are one for a function."""
        return {parameter.name: parameter.name for parameter in self.parameters}

    @property
    def output_name(self) -> str | tuple[str, ...]:
        """As `@node` takes it."""
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]

    def text(self) -> str:
        """The function's source, without a decorator."""
        plain = [p for p in self.parameters if not p.keyword_only]
        plain.sort(key=lambda p: p.default is not None)
        keyword = [p for p in self.parameters if p.keyword_only]
        shown = [p.name if p.default is None else f"{p.name}={p.default}" for p in (*plain, *keyword)]
        if keyword:
            shown.insert(len(plain), "*")
        head = f"{'async ' if self.is_async else ''}def {self.name}({', '.join(shown)}):"
        return "\n".join([head, *(f"    {line}" for line in self.body)]) + "\n"


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


Unit: TypeAlias = Function | Nest


@dataclass(frozen=True, eq=False)
class Tree:
    """A pipeline; `place` picks its backend where a build offers several, 0 leaving it to inherit."""

    name: str
    units: tuple[Unit, ...]
    place: int = 0

    @cached_property
    def maker(self) -> dict[str, int]:
        """Index of the unit that makes a name."""
        return {name: index for index, unit in enumerate(self.units) for name in unit.outputs}

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Every output, in order of declaration."""
        return tuple(self.maker)

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


@dataclass(frozen=True, eq=False)
class Case:
    """A random pipeline and one call of it; `features` names what was drawn."""

    tree: Tree
    call: Call
    features: frozenset[str]

    @cached_property
    def namespace(self) -> dict[str, Any]:
        """The executed prelude and functions. Their module cannot be imported, so they travel by value."""
        name = f"<hypernodes case {next(_numbers)}>"
        text = self._definitions(decorated=False)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        namespace: dict[str, Any] = {"__name__": f"case_{name[17:-1]}"}
        exec(compile(text, name, "exec", dont_inherit=True), namespace)
        return namespace

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The plain functions by name."""
        return {f.name: self.namespace[f.name] for f in self._functions()}

    def value(self, text: str) -> Any:
        """A fresh value of an expression."""
        return eval(text, self.namespace)

    def items(self) -> list[dict[str, Any]]:
        """The inputs of every item of the call; a `run` has one."""
        call, shared = self.call, {name: self.value(text) for name, text in self.call.inputs.items()}
        if call.kind == "run":
            return [shared]
        if call.kind == "rows":
            return [shared | {name: self.value(text) for name, text in row.items()} for row in call.rows]
        columns = [shared[name] for name in call.map_over]
        combos = itertools.product(*columns) if call.map_mode == "product" else zip(*columns, strict=True)
        return [shared | dict(zip(call.map_over, combo, strict=True)) for combo in combos]

    def expected(self) -> Any:
        """What the reference interpreter gives; see `_oracle.expected`."""
        return _oracle.expected(self)

    def build(self, backend: Any = None, backends: Sequence[Any] = (), **given: Any) -> Pipeline:
        """The real pipeline, on `backend` and with what else is `given`; nested ones that drew a place get one of
        `backends`."""
        from hypernodes import Pipeline, node

        built: dict[int, Any] = {}
        for tree in self.tree.walk():
            nodes: list[Any] = []
            for unit in tree.units:
                if isinstance(unit, Function):
                    nodes.append(node(output_name=unit.output_name)(self.namespace[unit.name]))
                else:
                    nodes.append(eval(unit.text("inner"), {"inner": built[id(unit.tree)]}))
            options: dict[str, Any] = dict(given) if tree is self.tree else {}
            if tree is self.tree and backend is not None:
                options["backend"] = backend
            elif tree is not self.tree and backends and tree.place % (len(backends) + 1):
                options["backend"] = backends[tree.place % (len(backends) + 1) - 1]
            built[id(tree)] = Pipeline(nodes=nodes, name=tree.name, **options)
        result: Pipeline = built[id(self.tree)]
        return result

    def run(self, pipeline: Any, *, use_async: bool = False) -> Any:
        """Make the call on a built pipeline; `use_async` takes `arun` and `amap` on a loop of its own."""
        call, options = self.call, self.call.options()
        inputs = {name: self.value(text) for name, text in call.inputs.items()}
        given = () if call.kind != "rows" else ([{n: self.value(t) for n, t in row.items()} for row in call.rows],)
        if use_async:
            method = pipeline.arun if call.kind == "run" else pipeline.amap
            return asyncio.run(method(*given, inputs=inputs, **options))
        return (pipeline.run if call.kind == "run" else pipeline.map)(*given, inputs=inputs, **options)

    def check(
        self, backend: Any = None, *, backends: Sequence[Any] = (), any_order: bool = False, use_async: bool = False
    ) -> None:
        """Build, call and compare with the reference interpreter.

        `any_order` accepts whichever failing node a parallel schedule met first. Raises `AssertionError` with the
        difference and the whole program.
        """
        self._compare(self._outcome(self.build(backend, backends), use_async=use_async), "", any_order=any_order)

    def check_events(self, backend: Any = None, *, backends: Sequence[Any] = ()) -> None:
        """The events of the call make the tree that they make where one node runs after another in this process."""
        expected, found = EventLog(), EventLog()
        self._outcome(self.build(callbacks=[expected]))
        self._outcome(self.build(backend, backends, callbacks=[found]))
        self._same_trees(expected.tree(), found.tree())

    def check_cached(self, backend: Any = None, *, backends: Sequence[Any] = (), any_order: bool = False) -> None:
        """With an empty cache and with a filled one the call gives what it gives without; nothing that was kept runs
        again; and the events of the call with a filled cache are those of one node after another in this process."""
        expected, found = EventLog(), EventLog()
        for where, log, places in ((None, expected, ()), (backend, found, backends)):
            cache = MemoryCache()
            pipeline = self.build(where, places, cache=cache, callbacks=[log])
            self._compare(self._outcome(pipeline), "with an empty cache: ", any_order=any_order)
            kept = len(cache)
            self._compare(self._outcome(pipeline), "with a filled cache: ", any_order=any_order)
            failing = "error" in {event.status for event in log.events}
            if len(cache) != kept and not failing:
                raise AssertionError(f"{len(cache) - kept} results were made again under other keys\n\n{self.source()}")
        self._same_trees(expected.tree(), found.tree())

    def _outcome(self, pipeline: Any, *, use_async: bool = False) -> Any:
        try:
            return self.run(pipeline, use_async=use_async)
        except Exception as error:
            # Python lets no coroutine raise a StopIteration: it comes as the cause of a RuntimeError.
            return error.__cause__ if use_async and isinstance(error.__cause__, StopIteration) else error

    def _compare(self, actual: Any, when: str, *, any_order: bool) -> None:
        try:
            compare(self.expected(), actual, any_order=any_order)
        except AssertionError as difference:
            cause = actual if isinstance(actual, Exception) else None
            raise AssertionError(f"{when}{difference}\n\n{self.source()}") from cause

    def _same_trees(self, expected: Branch | None, actual: Branch | None) -> None:
        if expected != actual:
            lines = unified_diff(outline(expected), outline(actual), "expected", "got", lineterm="")
            shown = "\n".join(lines)
            raise AssertionError(f"other events than expected\n{shown}\n\n{self.source()}")

    def source(self) -> str:
        """The case as a program: running it makes the call and prints what came back."""
        lines, names = [self._definitions(decorated=True)], dict[int, str]()
        for tree in self.tree.walk():
            names[id(tree)] = f"pipeline_{tree.name}"
            nodes = [u.name if isinstance(u, Function) else u.text(names[id(u.tree)]) for u in tree.units]
            place = f"  # place {tree.place}" if tree.place else ""
            shown = "".join(f"    {one},\n" for one in nodes)
            lines.append(f"{names[id(tree)]} = Pipeline(name={tree.name!r}, nodes=[{place}\n{shown}])\n")
        arguments = [f"inputs={_mapping(self.call.inputs)}"]
        if self.call.kind == "rows":
            arguments.insert(0, f"[{', '.join(map(_mapping, self.call.rows))}]")
        arguments += [f"{key}={value!r}" for key, value in self.call.options().items()]
        method = "run" if self.call.kind == "run" else "map"
        lines.append(f"\ndef call():\n    return {names[id(self.tree)]}.{method}({', '.join(arguments)})\n")
        lines.append('\nif __name__ == "__main__":\n    print(call())\n')
        return "\n".join(lines)

    def _functions(self) -> list[Function]:
        return [unit for tree in self.tree.walk() for unit in tree.units if isinstance(unit, Function)]

    def _definitions(self, decorated: bool) -> str:
        blocks = []
        for function in self._functions():
            head = f"@node(output_name={function.output_name!r})\n" if decorated else ""
            blocks.append(head + function.text())
        values = [*self.call.inputs.values(), *(text for row in self.call.rows for text in row.values())]
        body = "\n".join([*blocks, *values])
        parts = [line for word, line in IMPORTS.items() if word in body + "".join(_used(body))]
        parts += ["from hypernodes import Pipeline, node"] if decorated else []
        return "\n".join([*parts, "", *_used(body), "", *blocks])


def _used(body: str) -> list[str]:
    return [text for name, text in PRELUDE.items() if name in body]


def _mapping(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {text}" for name, text in texts.items()) + "}"
