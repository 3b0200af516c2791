"""A pipeline compiled for one choice of inputs and outputs: plain steps over numbered slots, nests flattened.

A slot is the place of one value. Nested pipelines become steps of the same plan, whose `path` keeps where they came
from; a mapped nested pipeline becomes one `MapStep` with a plan of its own. Each step knows its place, the index
of its backend in `places`, and its setting.

Where a run is watched, each row brings one value more, under the name `SPAN`: which row it is. The steps that are
watched read it like any other, so it reaches them on every engine and in every place. A pipeline with a timeout begins
with a step of a `Clock`, whose value `CLOCK` its other steps read in the same way. Steps that need resources or count
against limits read `SCOPE`, which says what run they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hypernodes._clock import CLOCK, Clock
from hypernodes._gate import Gate
from hypernodes._limits import Retry
from hypernodes._node import Node
from hypernodes._resource import Need
from hypernodes._settings import Setting

__all__ = ["HIDDEN", "SCOPE", "SPAN", "MapStep", "Plan", "Step", "leaves"]


SPAN = "hypernodes_span__"
SCOPE = "hypernodes_scope__"
HIDDEN = frozenset({SPAN, CLOCK, SCOPE})
"""Names of values that no user gave or asked for."""


class Step(NamedTuple):
    """One call of one node: each parameter with the slot it reads, and the slots it writes.

    `place` is the index of its backend, `setting` that of its settings. After its node's inputs, in this order, it
    reads `SCOPE` where it needs or counts something, `CLOCK` under a timeout, and `SPAN` where it is watched. `retry`
    is its rule to retry; `keeps` says that a failure keeps its inputs. The step of a clock also comes `after` the slots
    that feed its pipeline, and takes the path of the step it is for.

    `lists` are those of a batch node's parameters that take a list, one element for each item; None for other nodes.
    `needs` are parameters that a resource is passed to, `gates` the limits and resources that a call counts against.
    """

    node: Node[..., Any]
    path: tuple[str, ...]
    reads: tuple[tuple[str, int], ...]
    writes: tuple[int, ...]
    place: int
    setting: int = 0
    retry: Retry | None = None
    keeps: bool = False
    after: tuple[int, ...] = ()
    lists: tuple[str, ...] | None = None
    needs: tuple[tuple[str, Need], ...] = ()
    gates: tuple[Gate, ...] = ()

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(slot for _, slot in self.reads)

    @property
    def inputs(self) -> tuple[tuple[str, int], ...]:
        """What the node's own function reads."""
        return tuple([read for read in self.reads if read[0] not in HIDDEN])

    @property
    def is_clock(self) -> bool:
        """Whether it starts a pipeline's clock: a step that no user knows of."""
        return isinstance(self.node, Clock)

    @property
    def clock(self) -> int | None:
        """The slot that says when time is up; None for a step that no timeout bounds."""
        for name, slot in self.reads[-2:]:
            if name == CLOCK:
                return slot
        return None

    @property
    def scope(self) -> int | None:
        """The slot that says which run this is; None for a step that needs nothing of it."""
        for name, slot in self.reads[-3:]:
            if name == SCOPE:
                return slot
        return None

    @property
    def span(self) -> int | None:
        """The slot that says which row this is; None for a step that nobody watches."""
        return self.reads[-1][1] if self.reads and self.reads[-1][0] == SPAN else None


class MapStep(NamedTuple):
    """A nested pipeline mapped over lists: `inner` runs once for each row.

    `inner.inputs` lists the inner inputs; `sources` holds for each the outer slot that feeds it. `mapped` are the
    positions of those that give one element a row, in the order of `map_over`, and `names` what the outer pipeline
    calls them. `writes` are the outer slots for the
    lists of results, in the order of `inner.outputs`.
    """

    path: tuple[str, ...]
    inner: Plan
    sources: tuple[int, ...]
    mapped: tuple[int, ...]
    names: tuple[str, ...]
    mode: str
    writes: tuple[int, ...]
    place: int
    setting: int = 0

    @property
    def span(self) -> int | None:
        """The position, among the inner inputs, of what says which row this is; None where nobody watches."""
        inputs = self.inner.inputs
        return len(inputs) - 1 if inputs and inputs[-1][0] == SPAN else None

    @property
    def first_place(self) -> int:
        """Where the first of its inner steps runs."""
        if not self.inner.steps:
            return self.place
        first = self.inner.steps[0]
        return first.first_place if isinstance(first, MapStep) else first.place

    @property
    def clock(self) -> int | None:
        """The outer slot that says when time is up; None where no timeout around it bounds it."""
        return next((at for (name, _), at in zip(self.inner.inputs, self.sources, strict=True) if name == CLOCK), None)

    @property
    def crosses(self) -> bool:
        """Whether any inner step runs somewhere else than this step's surroundings."""
        return any(
            step.place != self.place or (isinstance(step, MapStep) and step.crosses) for step in self.inner.steps
        )


class Plan(NamedTuple):
    """Steps in an order that respects what they read, with the slots of inputs and outputs by name.

    `places`, `settings` and `levels` - the path of every pipeline in it with the index of its setting - are those of
    the whole plan; the plans of mapped pipelines leave them empty.
    """

    path: tuple[str, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    steps: tuple[Step | MapStep, ...]
    places: tuple[Any, ...]
    settings: tuple[Setting, ...] = ()
    levels: tuple[tuple[tuple[str, ...], int], ...] = ()

    @property
    def scoped(self) -> bool:
        """Whether each row brings which run it belongs to."""
        return any(name == SCOPE for name, _ in self.inputs[-2:])

    @property
    def watched(self) -> bool:
        """Whether each row brings, as its last input, which row it is."""
        return bool(self.inputs) and self.inputs[-1][0] == SPAN


def leaves(plan: Plan) -> Iterator[Step]:
    """The steps of a plan and of the mapped pipelines in it, in order."""
    todo: list[Step | MapStep] = list(reversed(plan.steps))
    while todo:
        step = todo.pop()
        if isinstance(step, MapStep):
            todo += reversed(step.inner.steps)
        elif not step.is_clock:
            yield step
