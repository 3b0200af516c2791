"""What it costs to build pipelines and to compile them: a node, and whether that stays the same as they grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _measure import Table, chosen, fresh
from _shapes import chain_wiring, functions, lattice_wiring, spread_wiring, written

from hypernodes import Pipeline, node


def sizes() -> None:
    table = Table(
        "Building and the first run, CPU time (goal: <= 25 µs a node, flat)",
        "what", "@node", "Pipeline", "first run", "a node", "Python's compile(), by hand",
    )  # fmt: skip
    for what, wiring_of in (("chain", chain_wiring), ("4 parents each", spread_wiring)):
        for count in (100, 1000, 10_000):
            report(table, f"{what} of {count:,}", wiring_of(count))
    report(table, "lattice of 30 x 30", lattice_wiring(30))


def report(table: Table, what: str, wiring: Any) -> None:
    """The three steps that come before a pipeline's first result, each a median of fresh starts."""
    made = list(functions(wiring).values())
    decorate = fresh(lambda: lambda: [node(function) for function in made])
    build = fresh(lambda: work(lambda nodes: Pipeline(nodes), [node(function) for function in made]))
    first = fresh(lambda: work(lambda pipeline: pipeline.run(x=0), Pipeline([node(function) for function in made])))
    source = written(wiring, ["x"])
    compiling = fresh(lambda: lambda: compile(source, "<by hand>", "exec"))
    each = (decorate + build + first) / len(made)
    table.row(what, *map(chosen, (decorate, build, first, each, compiling / len(made))))


def work(call: Callable[[Any], Any], value: Any) -> Callable[[], Any]:
    return lambda: call(value)


def levels() -> None:
    table = Table("Nesting, a node a level", "levels", "building", "first run", "a level")
    for depth in (10, 50, 200, 1000):
        made = [node(function) for function in functions(chain_wiring(depth)).values()]

        def build(made: Any = made) -> Pipeline:
            inner: list[Pipeline] = []
            for one in reversed(made):
                inner = [Pipeline([one, *inner])]
            return inner[0]

        building = fresh(lambda build=build: build)
        first = fresh(lambda build=build: work(lambda pipeline: pipeline.run(x=0), build()))
        table.row(f"{depth}", chosen(building), chosen(first), chosen((building + first) / depth))


def typed() -> None:
    """Annotations are compared when a pipeline is built; what that adds."""
    table = Table("With annotations", "what", "Pipeline", "check_types=False")
    source = "\n".join(f"def v{at}(v{at - 1}: int) -> int: return v{at - 1} + 1" for at in range(1, 1001))
    namespace: dict[str, Any] = {"__name__": "typed"}
    exec(source, namespace)
    nodes = [node(namespace[f"v{at}"]) for at in range(1, 1001)]
    checked = fresh(lambda: lambda: Pipeline(nodes))
    unchecked = fresh(lambda: lambda: Pipeline(nodes, check_types=False))
    table.row("chain of 1000, typed", chosen(checked), chosen(unchecked))


if __name__ == "__main__":
    sizes()
    levels()
    typed()
