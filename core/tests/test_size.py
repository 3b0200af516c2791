"""No limit of size comes from recursion: long chains in any order, deep nesting, deep maps."""

from __future__ import annotations

import functools
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle
import pytest

from hypernodes import CycleError, LocalBackend, Pipeline, node
from hypernodes._backend import Backend
from hypernodes._task import Stage
from hypernodes.testing import SubprocessBackend
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]


@pytest.fixture(autouse=True)
def clean(no_leaks: LeakWatch) -> Iterator[None]:
    """Every test leaves nothing behind, and the limit as it was."""
    before = sys.getrecursionlimit()
    yield
    assert sys.getrecursionlimit() == before


def add(value: Any) -> Any:
    return value + 1


CHAIN = ModuleType("hypernodes_chain")
"""Where the chain's functions live, so that they are pickled by reference."""


@functools.cache
def steps(count: int) -> tuple[Any, ...]:
    """Nodes of which each makes `v<at>` of `v<at - 1>`."""
    made = []
    for at in range(1, count + 1):
        # As if written out; compiling 100,000 definitions would take longer than all the rest.
        code = add.__code__.replace(co_varnames=(f"v{at - 1}",), co_name=f"v{at}", co_qualname=f"v{at}")
        made.append(node(FunctionType(code, CHAIN.__dict__, f"v{at}")))
        setattr(CHAIN, f"v{at}", made[-1])
    return tuple(made)


def shuffled(nodes: list[Any]) -> list[Any]:
    random.Random(3).shuffle(nodes)
    return nodes


ORDERS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "forward": lambda nodes: nodes,
    "reverse": lambda nodes: nodes[::-1],
    "random": shuffled,
}


@pytest.mark.parametrize("order", ORDERS)
def test_chain_of_5_000_nodes_builds_and_runs_in_any_order(order: str) -> None:
    pipeline = Pipeline(nodes=ORDERS[order](list(steps(5_000))))
    assert pipeline.run(v0=0, output_name="v5000") == 5_000
    assert pipeline.map([{"v0": 0}, {"v0": 7}], output_name="v5000") == [5_000, 5_007]
    assert len(pipeline.run(v0=0)) == 5_000


@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_chain_of_5_000_nodes_runs_on_an_engine(engine: str) -> None:
    pipeline = Pipeline(nodes=steps(5_000), backend=LocalBackend(engine=engine))
    assert pipeline.map([{"v0": 0}, {"v0": 7}], output_name="v5000") == [5_000, 5_007]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["forward", "random"])
def test_chain_of_100_000_nodes_builds_and_runs(order: str) -> None:
    pipeline = Pipeline(nodes=ORDERS[order](list(steps(100_000))))
    assert pipeline.run(v0=0, output_name="v100000") == 100_000


@pytest.mark.slow
def test_chain_of_100_000_nodes_builds_in_reverse() -> None:
    pipeline = Pipeline(nodes=steps(100_000)[::-1])
    assert pipeline.run(v99000=0, output_name="v100000") == 1_000


def test_cycle_through_5_000_nodes_is_a_sentence() -> None:
    closing = node(lambda v5000: v5000, output_name="v0", name="closing")
    with pytest.raises(CycleError, match="closing"):
        Pipeline(nodes=[*steps(5_000), closing])


def test_nodes_as_wide_as_10_000_build_and_run() -> None:
    nodes = [node(lambda x: x, output_name=f"w{at}") for at in range(10_000)]
    assert Pipeline(nodes=nodes).run(x=3)["w9999"] == 3


def nested(levels: int, backend: Callable[[int], Backend | None] = lambda _: None) -> Pipeline:
    """A node within `levels` pipelines."""
    pipeline = Pipeline(nodes=[node(lambda x: x + 1, output_name="y")], name="level0", backend=backend(0))
    for level in range(1, levels):
        pipeline = Pipeline(nodes=[pipeline], name=f"level{level}", backend=backend(level))
    return pipeline


@pytest.mark.parametrize("levels", [200, 1_000])
def test_nested_levels_build_and_run(levels: int) -> None:
    pipeline = nested(levels)
    assert pipeline.run(x=1) == {"y": 2}
    assert pipeline.map([{"x": 1}, {"x": 2}], output_name="y") == [2, 3]
    assert pipeline.run(y=5) == {"y": 5}


@pytest.mark.parametrize("levels", [200, 1_000])
def test_failure_within_nested_levels_names_them_all(levels: int) -> None:
    with pytest.raises(TypeError) as caught:
        nested(levels).run(x="text")
    (note,) = caught.value.__notes__
    assert note.startswith(f"in level{levels - 1} > level{levels - 2} > ")
    assert note.count(" > ") == levels


def test_nested_levels_run_on_a_place_that_receives_bytes() -> None:
    pipeline = nested(200).with_backend(SubprocessBackend())
    assert pipeline.map([{"x": 1}, {"x": 2}], output_name="y") == [2, 3]


def mapped(levels: int) -> tuple[Pipeline, Any]:
    """A node mapped `levels` deep, and a list as deep with one element on each level but two on the outermost."""
    pipeline = Pipeline(nodes=[node(lambda x: x + 1, output_name="y")], name="level0")
    items: Any = 1
    for level in range(1, levels + 1):
        pipeline = Pipeline(nodes=[pipeline.as_node(map_over="x")], name=f"level{level}")
        items = [items]
    return pipeline, [*items, *items]


def innermost(value: Any) -> Any:
    while isinstance(value, list):
        value = value[0]
    return value


@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_50_levels_of_maps_build_and_run(engine: str) -> None:
    pipeline, items = mapped(50)
    found = pipeline.with_backend(LocalBackend(engine=engine)).run(x=items, output_name="y")
    assert len(found) == 2
    assert innermost(found) == 2


def test_50_levels_of_maps_fail_with_the_item_of_every_level() -> None:
    pipeline, _ = mapped(50)
    items: Any = "text"
    for _ in range(50):
        items = [items]
    with pytest.raises(TypeError) as caught:
        pipeline.run(x=items)
    assert caught.value.__notes__[0].count("(item 0)") == 50


def test_50_levels_of_maps_run_on_a_place_that_receives_bytes() -> None:
    pipeline, items = mapped(50)
    assert innermost(pipeline.with_backend(SubprocessBackend()).run(x=items, output_name="y")) == 2


def stage_of(pipeline: Pipeline, **inputs: Any) -> Stage:
    from hypernodes._compile import compile_plan

    plan = compile_plan(pipeline, list(inputs), pipeline.output_names[-1:], LocalBackend())
    return Stage(pipeline.name, plan.steps, plan.inputs, plan.outputs)


@pytest.mark.parametrize("levels", [200, 1_000])
def test_stage_of_nested_levels_survives_pickling(levels: int) -> None:
    stage = pickle.loads(cloudpickle.dumps(stage_of(nested(levels), x=1)))
    assert stage.program("sync").call(1) == (2,)


def test_stage_of_5_000_nodes_survives_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, CHAIN.__name__, CHAIN)
    stage = pickle.loads(cloudpickle.dumps(stage_of(Pipeline(nodes=steps(5_000)), v0=1)))
    assert stage.program("sync").call(0) == (5_000,)


@pytest.mark.parametrize("levels", [200, 1_000])
def test_nested_pipeline_itself_survives_pickling(levels: int) -> None:
    pipeline = pickle.loads(cloudpickle.dumps(nested(levels)))
    assert pipeline.run(x=1) == {"y": 2}
