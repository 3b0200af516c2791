"""Pipelines of trivial nodes, each with the function that somebody would write by hand for the same dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypernodes import Pipeline, node

__all__ = [
    "Shape",
    "chain",
    "chain_wiring",
    "functions",
    "lattice",
    "lattice_wiring",
    "shape",
    "spread_wiring",
    "written",
]

Wiring = Sequence[tuple[str, Sequence[str]]]
"""For each function, in an order that works, its name and its parameters."""


class Shape(NamedTuple):
    """A pipeline, and a hand-written function of its inputs that gives what `run` gives."""

    pipeline: Pipeline
    plain: Callable[..., dict[str, Any]]


def functions(wiring: Wiring) -> dict[str, Callable[..., Any]]:
    """A function of its own for each name: one more than its only parameter, or the rest of a sum."""
    lines = [f"def {name}({', '.join(reads)}): return {_sum(reads)}" for name, reads in wiring]
    namespace: dict[str, Any] = {"__name__": __name__}
    exec("\n".join(lines), namespace)
    return {name: namespace[name] for name, _ in wiring}


def _sum(reads: Sequence[str]) -> str:
    """An expression over the names that stays small however many nodes there are."""
    return f"{reads[0]} + 1" if len(reads) == 1 else f"({' + '.join(reads)}) % 997"


def written(wiring: Wiring, inputs: Sequence[str]) -> str:
    """The source of what somebody would write by hand: a line for each function, and a dict of all values."""
    steps = [f"    {name} = call_{name}({', '.join(reads)})" for name, reads in wiring]
    result = ", ".join(f"{name!r}: {name}" for name, _ in wiring)
    return "\n".join([f"def plain({', '.join(inputs)}):", *steps, f"    return {{{result}}}"])


def shape(wiring: Wiring, inputs: Sequence[str]) -> Shape:
    """The pipeline, and a straight-line function over the same functions."""
    made = functions(wiring)
    namespace: dict[str, Any] = {f"call_{name}": function for name, function in made.items()}
    exec(written(wiring, inputs), namespace)
    return Shape(Pipeline([node(function) for function in made.values()]), namespace["plain"])


def chain_wiring(length: int) -> Wiring:
    """Each node reads the one before."""
    return [(f"v{at}", [f"v{at - 1}" if at else "x"]) for at in range(length)]


def lattice_wiring(side: int) -> Wiring:
    """Each node reads its neighbours above and to the left."""
    wiring = []
    for row in range(side):
        for column in range(side):
            reads = [f"v{row - 1}_{column}"] if row else []
            reads += [f"v{row}_{column - 1}"] if column else []
            wiring.append((f"v{row}_{column}", reads or ["x"]))
    return wiring


def spread_wiring(length: int) -> Wiring:
    """Each node reads four of the sixteen before it, or the input: many edges."""
    wiring = []
    for at in range(length):
        near = [at - step for step in (1, 4, 9, 16) if at >= step]
        wiring.append((f"v{at}", [f"v{source}" for source in near] or ["x"]))
    return wiring


def chain(length: int) -> Shape:
    return shape(chain_wiring(length), ["x"])


def lattice(side: int) -> Shape:
    return shape(lattice_wiring(side), ["x"])
