"""A case: one random pipeline, the call made on it and the program that shows both.

A case is plain data. Its functions are text, so a failing case prints itself as a program a reader can run, and
`inspect.getsource` finds every function.
"""

from __future__ import annotations

import asyncio
import itertools
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hypernodes import MemoryCache, failure_of
from hypernodes.testing import _oracle
from hypernodes.testing._compare import compare
from hypernodes.testing._event_tree import Branch, EventLog, outline
from hypernodes.testing._shapes import Built, Call, Function, Tree
from hypernodes.testing._values import IMPORTS, PRELUDE
from hypernodes.testing._wiring import changed

if TYPE_CHECKING:
    from hypernodes import Pipeline

__all__ = ["Case"]

_numbers = itertools.count(1)


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
        """The plain functions by name, those of resources too."""
        return {f.name: self.namespace[f.name] for f in self.parts()}

    @cached_property
    def one_by_one(self) -> Case:
        """The same with no batches: each batch node as the function for one item that it stands for."""
        return replace(self, tree=changed(self.tree, Function.alone))

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
        from hypernodes import Pipeline, node, resource

        built: dict[int, Any] = {}
        for tree in self.tree.walk():
            nodes: list[Any] = []
            for unit in tree.units:
                if isinstance(unit, Function):
                    nodes.append(node(**unit.options())(self.namespace[unit.name]))
                elif isinstance(unit, Built):
                    nodes.append(resource(self.namespace[unit.name]))
                else:
                    nodes.append(eval(unit.text("inner"), {"inner": built[id(unit.tree)]}))
            options: dict[str, Any] = dict(given) if tree is self.tree else {}
            options |= {"limits": dict(tree.limits)} if tree.limits else {}
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
        """The events of the call make the tree that they make where one node runs after another in this process, each
        for one item at a time."""
        expected, found = EventLog(), EventLog()
        self._outcome(self.one_by_one.build(callbacks=[expected]))
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
            # What a node raised knows its failure, what Python made of it does not.
            wrapped = use_async and failure_of(error) is None and isinstance(error.__cause__, StopIteration)
            return error.__cause__ if wrapped else error

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
            nodes = [u.text(names[id(u.tree)]) if u.kind == "nest" else u.name for u in tree.units]
            place = f"  # place {tree.place}" if tree.place else ""
            shown = "".join(f"    {one},\n" for one in nodes)
            limits = f", limits={dict(tree.limits)!r}" if tree.limits else ""
            lines.append(f"{names[id(tree)]} = Pipeline(name={tree.name!r}{limits}, nodes=[{place}\n{shown}])\n")
        arguments = [f"inputs={_mapping(self.call.inputs)}"]
        if self.call.kind == "rows":
            arguments.insert(0, f"[{', '.join(map(_mapping, self.call.rows))}]")
        arguments += [f"{key}={value!r}" for key, value in self.call.options().items()]
        method = "run" if self.call.kind == "run" else "map"
        lines.append(f"\ndef call():\n    return {names[id(self.tree)]}.{method}({', '.join(arguments)})\n")
        lines.append('\nif __name__ == "__main__":\n    print(call())\n')
        return "\n".join(lines)

    def parts(self) -> list[Function | Built]:
        """Every function and resource, each once."""
        return [unit for tree in self.tree.walk() for unit in tree.units if unit.kind != "nest"]

    def _definitions(self, decorated: bool) -> str:
        blocks = [(_decorator(one) if decorated else "") + one.text() for one in self.parts()]
        values = [*self.call.inputs.values(), *(text for row in self.call.rows for text in row.values())]
        body = "\n".join([*blocks, *values])
        parts = [line for word, line in IMPORTS.items() if word in body + "".join(_used(body))]
        names = ["Pipeline", "node", "resource"] if "@resource" in body else ["Pipeline", "node"]
        parts += [f"from hypernodes import {', '.join(names)}"] if decorated else []
        return "\n".join([*parts, "", *_used(body), "", *blocks])


def _decorator(one: Function | Built) -> str:
    if isinstance(one, Built):
        return "@resource\n"
    return f"@node({', '.join(f'{key}={value!r}' for key, value in one.options().items())})\n"


def _used(body: str) -> list[str]:
    return [text for name, text in PRELUDE.items() if name in body]


def _mapping(texts: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {text}" for name, text in texts.items()) + "}"
