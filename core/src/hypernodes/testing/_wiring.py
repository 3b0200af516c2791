"""Which parameters of a batch node take lists where its decorator does not say: that follows from the wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypernodes.testing._shapes import Call, Function, Nest, Tree, Unit

__all__ = ["changed", "settled"]


def settled(tree: Tree, call: Call) -> Tree:
    """The pipeline with the `lists` of its batch nodes as this call of it wires them.

    A batch node that is wired in two ways says itself what takes lists; one for which nothing is left is none.
    """
    found: dict[str, set[tuple[str, ...]]] = {}
    for keys in {tuple(row) for row in call.rows} or {call.map_over}:
        shared = set[str]() if call.kind == "run" else set(call.inputs) - set(keys)
        _follow(tree, {*call.inputs, *keys}, shared, set(), found)

    def settle(function: Function) -> Function:
        ways = found.get(function.name, set())
        if not function.batch_size or function.said or not ways:
            return function
        if len(ways) == 1:
            (lists,) = ways
            return replace(function, lists=lists)
        common = [name for name in function.reads if all(name in lists for lists in ways)]
        return replace(function, lists=tuple(common), said=True) if common else function.alone()

    return changed(tree, settle)


def changed(tree: Tree, change: Callable[[Function], Function]) -> Tree:
    """The pipeline with every function changed; one that stands in two places still does."""
    made: dict[int, Tree] = {}
    for one in tree.walk():
        units: list[Unit] = []
        for unit in one.units:
            if isinstance(unit, Function):
                units.append(change(unit))
            else:
                units.append(replace(unit, tree=made[id(unit.tree)]) if isinstance(unit, Nest) else unit)
        made[id(one)] = replace(one, units=tuple(units))
    return made[id(tree)]


def _follow(
    tree: Tree, given: set[str], shared: set[str], built: set[str], found: dict[str, set[tuple[str, ...]]]
) -> set[str]:
    """Note the lists of each batch node; what all items share of the names in and made by this pipeline.

    `shared` are those of the `given` names that all items of the map share, `built` those that resources provide.
    """
    known, shared, built = given | set(tree.maker), set(shared), built | set(tree.resources)
    waiting = list(tree.units)
    while waiting:
        made = {name for unit in waiting for name in unit.outputs}
        unit = next(unit for unit in waiting if made.isdisjoint(unit.reads))
        waiting.remove(unit)
        if isinstance(unit, Nest):
            reads = {outer: inner for outer, inner in unit.reads.items() if outer in known}
            over = {unit.reads[name] for name in unit.map_over}
            inner = {name for outer, name in reads.items() if (name not in over if over else outer in shared)}
            below = {name for outer, name in reads.items() if outer in built}
            back = _follow(unit.tree, set(reads.values()), inner, below, found)
            if not over:
                shared |= {name for name in unit.outputs if unit.inner_output(name) in back} - given
        elif isinstance(unit, Function) and unit.batch_size and not unit.said:
            free = [p.name for p in unit.parameters if p.default is None and not p.note and p.name not in built]
            lists = [name for name in free if name not in shared] or free
            found.setdefault(unit.name, set()).add(tuple(lists))
    return shared
