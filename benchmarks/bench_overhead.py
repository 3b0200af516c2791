"""What one sequential run costs over the function that somebody would write by hand."""

from __future__ import annotations

from _measure import Table, chosen, compare
from _shapes import Shape, chain, lattice

from hypernodes import Pipeline, node


def runs() -> None:
    table = Table("One run, one node after another, over a hand-written function")
    for what, made in (("chain of 1000 nodes", chain(1000)), ("lattice of 30 x 30 nodes", lattice(30))):
        assert made.pipeline.run(x=1) == made.plain(x=1)
        pair = compare(lambda made=made: made.pipeline.run(x=1), lambda made=made: made.plain(x=1), calls=20)
        table.pair(what, pair, "<= 1.3")
    for width in (1, 10):
        made = nested(50, width)
        assert made.pipeline.run(x=1) == made.plain(x=1)
        pair = compare(lambda made=made: made.pipeline.run(x=1), lambda made=made: made.plain(x=1), calls=400 // width)
        table.pair(f"nested 50 deep, {width} node{'s' if width > 1 else ''} a level", pair, "<= 1.3")


def nested(depth: int, width: int) -> Shape:
    """A chain of `width` nodes at each level: each level holds the next one, which reads what this one made."""
    made = chain(depth * width)
    nodes = made.pipeline.graph.order
    inner: list[Pipeline] = []
    for at in reversed(range(0, depth * width, width)):
        inner = [Pipeline([*nodes[at : at + width], *inner])]
    return Shape(inner[0], made.plain)


def calls() -> None:
    table = Table("A call's own cost", "what", "hypernodes", "plain", "over plain", "goal")
    for length, goal in ((1, ""), (10, "<= 2 µs"), (100, "")):
        made = chain(length)
        pair = compare(lambda made=made: made.pipeline.run(x=1), lambda made=made: made.plain(x=1), calls=5000)
        table.row(f"{length} nodes, run(x=1)", chosen(pair.ours), chosen(pair.theirs), chosen(pair.over), goal)
    made = chain(10)
    given = {"x": 1}
    pair = compare(lambda: made.pipeline.run(given), lambda: made.plain(**given), calls=5000)
    table.row("10 nodes, run({...})", chosen(pair.ours), chosen(pair.theirs), chosen(pair.over), "<= 2 µs")
    pair = compare(lambda: made.pipeline.run(x=1, output_name="v9"), lambda: made.plain(x=1)["v9"], calls=5000)
    table.row("10 nodes, output_name=", chosen(pair.ours), chosen(pair.theirs), chosen(pair.over), "<= 2 µs")
    pair = compare(lambda: made.pipeline.run(x=1, output_nodes=["v9"]), lambda: made.plain(x=1)["v9"], calls=5000)
    table.row("10 nodes, output_nodes=", chosen(pair.ours), chosen(pair.theirs), chosen(pair.over), "<= 2 µs")


def selection() -> None:
    """Only what is needed runs: what else a pipeline holds costs nothing."""
    table = Table("One output with 5 ancestors", "what", "of 1000 nodes", "of 5 nodes", "ratio", "goal")
    large, small = chain(1000).pipeline, chain(5).pipeline
    ask = {"x": 1}
    pair = compare(lambda: large.run(ask, output_name="v4"), lambda: small.run(ask, output_name="v4"), calls=5000)
    table.pair("run(output_name=)", pair, "~ 1")


def several_outputs() -> None:
    table = Table("Nodes that unpack")

    @node(output_name=("low", "high"))
    def both(x: int) -> tuple[int, int]:
        return x, x + 1

    @node(output_name=("a", "b"))
    def again(low: int, high: int) -> tuple[int, int]:
        return low, high

    pipeline = Pipeline([both, again])

    def plain(x: int) -> dict[str, int]:
        low, high = both.func(x)
        a, b = again.func(low, high)
        return {"low": low, "high": high, "a": a, "b": b}

    assert pipeline.run(x=1) == plain(x=1)
    table.pair("2 nodes, 2 outputs each", compare(lambda: pipeline.run(x=1), lambda: plain(x=1), calls=5000))


if __name__ == "__main__":
    runs()
    calls()
    selection()
    several_outputs()
