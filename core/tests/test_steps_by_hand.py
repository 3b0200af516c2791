"""An engine outside core can take a stage apart: steps and mapped pipelines, each run by what core gives it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypernodes import LocalBackend, Pipeline, node
from hypernodes.plugin import (
    Batch,
    Engine,
    Feed,
    MapStep,
    Outcome,
    Site,
    Stage,
    Step,
    as_worker,
    inside_worker,
    map_rows,
    run_coroutine,
    run_in_line,
    run_rows,
    run_rows_async,
)
from hypernodes.testing import compare


@dataclass(frozen=True)
class ByHandEngine(Engine):
    """Runs each step for all rows before the next one."""

    name: ClassVar[str] = "by-hand"
    modes: ClassVar[tuple[str, ...]] = ()

    def sketch(self, stage: Stage) -> str:
        return "\n".join(f"first {step.path[-1]}" for step in stage.steps)

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for batch in self.batches(stage, tasks, site):
            yield from batch.outcomes()

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        if inside_worker():
            yield from run_in_line(stage, tasks, "in line")
            return
        rows = tasks.take(1000)
        with as_worker():
            made = by_hand(stage, [row.values for row in rows])
        yield Batch(0, made, {})


def by_hand(stage: Stage, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    values = [dict(zip([slot for _, slot in stage.inputs], row, strict=True)) for row in rows]
    for step in stage.steps:
        sources = [tuple(row[slot] for slot in step.sources) for row in values]
        if isinstance(step, MapStep):
            inner = Stage("inner", step.inner.steps, step.inner.inputs, step.inner.outputs)
            lists = [by_hand(inner, list(map_rows(step, source))) for source in sources]
            made = [tuple(list(column) for column in zip(*rows, strict=True)) for rows in lists]
        else:
            made = alone(step, sources)
        for row, results in zip(values, made, strict=True):
            row.update(zip(step.writes, results, strict=True))
    return [tuple(row[slot] for _, slot in stage.outputs) for row in values]


def alone(step: Step, rows: list[tuple[Any, ...]]) -> list[Any]:
    stage = Stage("one", [step], [(f"x{at}", at) for at in step.sources], [(f"x{at}", at) for at in step.writes])
    reply = run_coroutine(run_rows_async(stage, rows)) if step.node.is_async else run_rows(stage, rows)
    assert not reply.failures
    return list(reply.values)


@node(output_name="doubled")
def double(x: int) -> int:
    return 2 * x


@node(output_name="later")
async def wait(doubled: int) -> int:
    return doubled + 1


@node(output_name="pair", batch_size=2)
def pair(x: list[int], later: list[list[int]]) -> list[tuple[int, list[int]]]:
    return list(zip(x, later, strict=True))


CELL = Pipeline(nodes=[double, wait], name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")


def test_steps_run_by_hand_give_what_the_stage_gives() -> None:
    pipeline = Pipeline(nodes=[CELL, pair])
    rows = [{"x": x, "xs": [x] * (x + 1)} for x in range(4)]
    compare(pipeline.map(rows), pipeline.with_backend(LocalBackend(engine=ByHandEngine())).map(rows))


def test_code_in_a_marked_block_runs_pools_in_line() -> None:
    inner = Pipeline(nodes=[node(inside_worker, output_name="inside")], backend=LocalBackend(engine=ByHandEngine()))
    seen = node(lambda x: inner.run(output_name="inside"), output_name="seen")
    by_hand = Pipeline(nodes=[seen], backend=LocalBackend(engine=ByHandEngine()))
    assert by_hand.map([{"x": 1}], output_name="seen") == [True]
    assert not inside_worker()


def test_explain_tells_what_the_engine_makes_of_its_steps() -> None:
    far = Pipeline(nodes=[CELL], name="far", backend=LocalBackend(engine=ByHandEngine()))
    explained = Pipeline(nodes=[far, pair], backend=LocalBackend()).explain()
    assert explained.sketches == {"local:by-hand": "first cell"}
    assert str(explained).endswith("\n\nlocal:by-hand lays it out as\nfirst cell")
    assert "lays it out" not in str(Pipeline(nodes=[CELL, pair]).explain())
