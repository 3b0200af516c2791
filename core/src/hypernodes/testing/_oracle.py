"""The reference interpreter: what a case must give, found by the plainest means and no line of the product.

It evaluates every node that could run, so that beside the failure which one-after-another execution meets first it
knows all others that a parallel schedule may meet first.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes.testing._cases import Case
    from hypernodes.testing._shapes import Built, Function, Nest, Tree

__all__ = ["Failed", "Fails", "expected", "needs"]

_POISON = object()  # stands for a value that a failure upstream prevented


@dataclass(frozen=True, eq=False)
class Failed:
    """One failing node: its exception, the names on the way to it, and the item index at each of those names."""

    error: BaseException
    path: tuple[str, ...]
    items: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Fails:
    """A failing item or call: every failure that some schedule meets first; `candidates[0]` is the sequential one."""

    candidates: tuple[Failed, ...]


@dataclass(frozen=True)
class _Around:
    """What the whole call shares: its functions, and each resource that was built, by the path to it."""

    functions: Mapping[str, Callable[..., Any]]
    built: dict[tuple[str, ...], Any] = field(default_factory=dict)


def expected(case: Case) -> Any:
    """What the call returns, with `Fails` where `on_error="return"` leaves a failure, or one `Fails` if it raises."""
    call, tree, outcomes = case.call, case.tree, list[Any]()
    wanted = [call.output_name] if call.output_name else call.output_nodes or tree.outputs
    around = _Around(case.functions)
    for index, given in enumerate(case.items()):
        failures: list[Failed] = []
        at = None if call.kind == "run" else index
        values = _interpret(tree, given, wanted, around, (tree.name,), (at,), failures)
        outcome = values[call.output_name] if call.output_name else values
        outcomes.append(Fails(tuple(failures)) if failures else outcome)
    failed = [one for outcome in outcomes if isinstance(outcome, Fails) for one in outcome.candidates]
    if failed and call.on_error == "raise":
        return Fails(tuple(failed))
    if call.kind == "columns" and not call.output_name:
        return {name: [o if isinstance(o, Fails) else o[name] for o in outcomes] for name in wanted}
    return outcomes[0] if call.kind == "run" else outcomes


def needs(tree: Tree, given: Iterable[str], wanted: Iterable[str]) -> tuple[dict[int, set[str]], set[str]]:
    """Which units must run, each with the outputs asked of it, and which names must or may come from outside."""
    asked: dict[int, set[str]] = {}
    free: set[str] = set()
    todo, given = list(wanted), set(given)
    while todo:
        name = todo.pop()
        index = tree.maker.get(name)
        if index is None or name in given:
            free.add(name)
        elif name not in asked.setdefault(index, set()):
            asked[index].add(name)
            todo += _reads(tree.units[index], asked[index])
    return asked, free


def _reads(unit: Function | Built | Nest, asked: set[str]) -> set[str]:
    if unit.kind != "nest":
        return set(unit.reads)
    overridden = set(unit.reads.values()) & set(unit.tree.maker)
    inner = needs(unit.tree, overridden, [unit.inner_output(name) for name in asked])[1]
    return {outer for outer, name in unit.reads.items() if name in inner} | set(unit.map_over)


def _interpret(
    tree: Tree, given: Mapping[str, Any], wanted: Iterable[str], around: _Around,
    path: tuple[str, ...], items: tuple[int | None, ...], failures: list[Failed],
) -> dict[str, Any]:  # fmt: skip
    values, (asked, _) = dict(given), needs(tree, given, wanted)
    waiting = set(range(len(tree.units)))
    while waiting:
        # the first declared of those that wait for no other
        index = min(i for i in waiting if not any(tree.maker.get(name) in waiting for name in tree.units[i].reads))
        waiting.remove(index)
        if index not in asked:
            continue
        unit, names = tree.units[index], asked[index]
        feed = {inner: values[outer] for outer, inner in unit.reads.items() if outer in values}
        if unit.kind == "function":
            made = _call(unit, around.functions[unit.name], feed, (*path, unit.name), (*items, None), failures)
        elif unit.kind == "resource":
            if (*path, unit.name) not in around.built:
                around.built[*path, unit.name] = _build(around.functions[unit.name], feed)
            made = {unit.name: around.built[*path, unit.name]}
        else:
            made = _nest(unit, names, feed, around, (*path, unit.label), items, failures)
        values = made | values
    return {name: values[name] for name in wanted}


def _nest(
    unit: Nest, names: set[str], feed: dict[str, Any], around: _Around,
    path: tuple[str, ...], items: tuple[int | None, ...], failures: list[Failed],
) -> dict[str, Any]:  # fmt: skip
    inner = {name: unit.inner_output(name) for name in names}
    over = [unit.reads[name] for name in unit.map_over]
    if not over:
        made = _interpret(unit.tree, feed, inner.values(), around, path, (*items, None), failures)
        return {name: made[inner[name]] for name in names}
    if any(feed[name] is _POISON for name in over):
        return dict.fromkeys(names, _POISON)
    lists = [feed[name] for name in over]
    combos = itertools.product(*lists) if unit.map_mode == "product" else zip(*lists, strict=True)
    rows = [
        _interpret(
            unit.tree,
            feed | dict(zip(over, combo, strict=True)),
            inner.values(),
            around,
            path,
            (*items, i),
            failures,
        )
        for i, combo in enumerate(combos)
    ]
    columns = {name: [row[inner[name]] for row in rows] for name in names}
    return {name: _POISON if any(v is _POISON for v in column) else column for name, column in columns.items()}


def _call(
    unit: Function, function: Callable[..., Any], feed: dict[str, Any],
    path: tuple[str, ...], items: tuple[int | None, ...], failures: list[Failed],
) -> dict[str, Any]:  # fmt: skip
    if any(value is _POISON for value in feed.values()):
        return dict.fromkeys(unit.outputs, _POISON)
    feed = {name: [value] if name in unit.lists else value for name, value in feed.items()}
    try:
        result = _finish(function(**feed)) if unit.is_async else function(**feed)
        result = list(result) if unit.yields else result
    except Exception as error:
        failures.append(Failed(error.with_traceback(None), path, items))
        return dict.fromkeys(unit.outputs, _POISON)
    made = dict(zip(unit.outputs, result if len(unit.outputs) > 1 else (result,), strict=True))
    return {name: value[0] for name, value in made.items()} if unit.batch_size else made


def _build(function: Callable[..., Any], feed: dict[str, Any]) -> Any:
    """What a function returns, or the one thing that it yields."""
    result = function(**feed)
    return next(result) if inspect.isgenerator(result) else result


def _finish(coroutine: Any) -> Any:
    """Drive a coroutine that waits for nothing but `asyncio.sleep(0)`: no loop, hence no loop's mistakes."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
