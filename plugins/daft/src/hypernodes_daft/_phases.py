"""A stage as phases: steps that are columns of one dataframe, and mapped pipelines, whose inner rows are another's."""

from __future__ import annotations

from typing import NamedTuple

from hypernodes.plugin import MapStep, Stage, Step

__all__ = ["Column", "Columns", "Plan", "Spread", "plan_of"]


class Column(NamedTuple):
    """A step as a column of a dataframe. It is computed from the columns of the steps in `needs`, by index.

    `alone` is a stage of this step only. `is_async` says that it is awaited, `batch` how many rows its node takes at
    once, 0 where that is one.
    """

    at: int
    name: str
    alone: Stage
    needs: tuple[int, ...]
    is_async: bool
    batch: int


class Columns(NamedTuple):
    """A phase of one dataframe."""

    columns: tuple[Column, ...]

    @property
    def ends(self) -> tuple[Column, ...]:
        """The columns that no other needs. Who asks for them asks for all: Daft computes what is asked for."""
        needed = {at for column in self.columns for at in column.needs}
        return tuple(column for column in self.columns if column.at not in needed)


class Spread(NamedTuple):
    """A phase of one mapped pipeline: its inner rows, of many outer rows, are rows of dataframes of their own."""

    at: int
    step: MapStep
    inner: Plan


class Plan:
    """A stage's phases in the order of its steps. `readers` counts for each slot the steps that read it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.phases = tuple(_phases(stage))
        self.kept = frozenset(slot for _, slot in stage.outputs)
        self.readers: dict[int, int] = {}
        for step in stage.steps:
            for slot in dict.fromkeys(step.sources):
                self.readers[slot] = self.readers.get(slot, 0) + 1


def plan_of(stage: Stage) -> Plan:
    """The stage's plan, made once."""
    found = stage.blueprints.get(Plan)
    if found is None:
        found = stage.blueprints[Plan] = Plan(stage)
    assert isinstance(found, Plan)
    return found


def _phases(stage: Stage) -> list[Columns | Spread]:
    phases: list[Columns | Spread] = []
    open_columns: list[Column] = []
    maker: dict[int, int] = {}
    for at, step in enumerate(stage.steps):
        if isinstance(step, MapStep):
            if open_columns:
                phases.append(Columns(tuple(open_columns)))
                open_columns, maker = [], {}
            inner = step.inner
            within = Stage(step.path[-1], inner.steps, inner.inputs, inner.outputs, salvages=stage.salvages)
            phases.append(Spread(at, step, Plan(within)))
        else:
            open_columns.append(_column(stage.name, at, step, maker))
            maker.update(dict.fromkeys(step.writes, at))
    if open_columns:
        phases.append(Columns(tuple(open_columns)))
    return phases


def _column(owner: str, at: int, step: Step, maker: dict[int, int]) -> Column:
    reads = tuple(dict.fromkeys(step.sources))
    # A clock starts after slots that it does not read.
    needs = tuple(dict.fromkeys([maker[slot] for slot in (*reads, *step.after) if slot in maker]))
    alone = Stage(
        owner,
        [step],
        [(f"value_{slot}", slot) for slot in reads],
        [(f"value_{slot}", slot) for slot in step.writes],
        [at],
    )
    return Column(at, _name(step), alone, needs, step.node.is_async, alone.batch)


def _name(step: Step) -> str:
    """How Daft's plans call it: the path without the pipeline at its head."""
    name = ".".join(step.path[1:]) or step.path[0]
    return f"{name} (clock)" if step.is_clock else name
