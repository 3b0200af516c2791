"""A pipeline's timeout: what it bounds, from when, and that it changes nothing else."""

from __future__ import annotations

import asyncio
import pickle
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import (
    Event,
    Failure,
    LocalBackend,
    NodeDefinitionError,
    NodeTimeoutError,
    Pipeline,
    PipelineTimeoutError,
    failure_of,
    node,
)
from hypernodes._blueprint import blueprint_of
from hypernodes._compile import compile_plan
from hypernodes._nest import NestedPipeline
from hypernodes._plan import MapStep, Plan, Step
from hypernodes._task import Stage, run_step
from hypernodes.testing import SubprocessBackend, compare, draw_case
from hypernodes.testing._promises import seeds

LONG = 600
"""Seconds that no test takes."""

SHORT = 0.5
"""Seconds after which a node that waits for nothing is given up."""

BACKENDS = [None, LocalBackend(engine="async"), LocalBackend(node_execution="async", map_execution="sequential")]


class Wall:
    """A clock that moves when a node says so, in place of the module `time`."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr("hypernodes._clock.time", wall)
    monkeypatch.setattr("hypernodes._guard.time", wall)
    return wall


released: list[bool] = []


def stall() -> None:
    """Wait for the end of the test; half a minute at most where that is not seen, in another process."""
    for _ in range(3000):
        if released:
            return
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _nothing_goes_on_after_a_test() -> Iterator[None]:
    released.clear()
    yield
    released.append(True)
    for thread in threading.enumerate():
        if thread.name.startswith("hypernodes-timeout-"):
            thread.join(10)


@node(output_name="a")
def add(x: Any) -> Any:
    return x + 1


@node(output_name="b")
def hang(a: Any) -> Any:
    if a == 2:
        stall()
    return a * 2


@node(output_name="b", name="hang")
async def hang_async(a: Any) -> Any:
    if a == 2:
        await asyncio.Event().wait()
    return a * 2


@node(output_name="c")
def last(b: Any) -> Any:
    return b


# -- what happens when time is up


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slow", [hang, hang_async])
def test_item_that_takes_too_long_fails_alone(backend: Any, slow: Any) -> None:
    pipeline = Pipeline([add, slow, last], name="main", backend=backend, timeout=2 * SHORT)
    found = pipeline.map([{"x": x} for x in range(4)], output_name="c", on_error="return")
    assert (found[0], found[2], found[3]) == (2, 6, 8)
    assert isinstance(found[1], Failure)
    assert found[1].where == "main (item 1) > hang"
    assert isinstance(found[1].error, PipelineTimeoutError)
    assert isinstance(found[1].error, TimeoutError)
    assert found[1].message.startswith("pipeline 'main' ran longer than its timeout of 1 s; node 'hang' was given up")


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_that_takes_too_long_raises(backend: Any) -> None:
    inner = Pipeline([add, hang], name="inner", timeout=SHORT)
    with pytest.raises(PipelineTimeoutError, match=r"pipeline 'inner' .* of 0\.5 s; node 'hang'") as caught:
        Pipeline([inner, last], name="main", backend=backend).run(x=1)
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.where == "main > inner > hang"


def test_node_does_not_start_when_no_time_is_left(wall: Wall) -> None:
    started: list[int] = []
    slow = node(lambda x: wall.pass_(60), output_name="a", name="slow")
    late = node(lambda a: started.append(1), output_name="b", name="late")
    with pytest.raises(PipelineTimeoutError, match="node 'late' was not started"):
        Pipeline([slow, late], name="main", timeout=50).run(x=1)
    assert started == []


def test_shorter_timeout_of_a_node_is_told_as_its_own() -> None:
    slow = node(hang.func, output_name="b", name="hang", timeout=SHORT)
    with pytest.raises(NodeTimeoutError, match=r"node 'hang' ran longer than its timeout of 0\.5 s"):
        Pipeline([add, slow], timeout=LONG).run(x=1)


def test_own_timeout_error_of_a_node_stays_its_own() -> None:
    async def refuse(x: int) -> int:
        raise TimeoutError("the server is slow")

    with pytest.raises(TimeoutError, match="the server is slow") as caught:
        Pipeline([node(refuse, output_name="y")], timeout=LONG).run(x=1)
    assert not isinstance(caught.value, PipelineTimeoutError)


def test_retries_stop_when_the_pause_would_go_beyond_the_deadline(wall: Wall) -> None:
    calls: list[float] = []

    def fail(x: int) -> int:
        calls.append(wall.now)
        raise ConnectionError("gone")

    again = node(fail, output_name="y", retries=10, retry_delay=10)
    with pytest.raises(ConnectionError, match="gone"):
        Pipeline([again], timeout=75).run(x=1)
    assert wall.slept == [10, 20, 40]
    assert len(calls) == 4


@pytest.mark.parametrize("is_async", [False, True])
def test_time_out_is_not_tried_again(is_async: bool) -> None:
    slow = node(hang_async.func if is_async else hang.func, output_name="b", name="hang", retries=10**6)
    with pytest.raises(PipelineTimeoutError):
        Pipeline([add, slow], timeout=SHORT).run(x=1)


# -- from when


def test_waiting_in_line_does_not_count(wall: Wall) -> None:
    def step(x: int) -> int:
        wall.pass_(100)
        return x

    pipeline = Pipeline([node(step, output_name="y")], timeout=150)
    outer = Pipeline([pipeline], name="outer")
    assert outer.map([{"x": x} for x in range(4)], output_name="y") == [0, 1, 2, 3]
    mapped = Pipeline([pipeline.as_node({"xs": "x"}, map_over="xs")], name="outer")
    assert mapped.run(xs=[0, 1, 2, 3], output_name="y") == [0, 1, 2, 3]


def test_clock_of_a_nested_pipeline_starts_when_its_inputs_are_there(wall: Wall) -> None:
    @node(output_name="x")
    def slow(w: int) -> int:
        wall.pass_(1000)
        return w

    inner = Pipeline([add, node(lambda a: wall.pass_(1), output_name="b")], name="inner", timeout=50)
    assert Pipeline([inner, slow]).run(w=1, output_nodes=["a", "b"]) == {"a": 2, "b": None}


def test_clock_waits_in_the_plan_for_what_feeds_its_nodes_and_nothing_else() -> None:
    inner = Pipeline([add, node(lambda z: z, output_name="unwanted")], name="inner", timeout=50)
    outer = Pipeline([node(lambda w: w, output_name="x"), node(lambda w: w, output_name="z"), inner])
    plan = compile_plan(outer, ["w"], ["a"], LocalBackend())
    clock = plan.steps[1]
    assert isinstance(clock, Step)
    assert clock.is_clock
    assert clock.after == plan.steps[0].writes
    assert [step.path[-1] for step in plan.steps] == ["x", "add", "add"]
    assert outer.run(w=1, output_name="a") == 2


# -- who bounds whom


def test_earliest_deadline_around_a_node_holds(wall: Wall) -> None:
    slow = node(lambda x: wall.pass_(60), output_name="a", name="slow")
    late = node(lambda a: a, output_name="b", name="late")
    long, short = Pipeline([slow, late], name="long", timeout=500), Pipeline([slow, late], name="short", timeout=50)
    for inner, outer, blamed in ((long, 50, "outer"), (short, 500, "short")):
        with pytest.raises(PipelineTimeoutError, match=f"pipeline '{blamed}' ran longer than its timeout of 50 s"):
            Pipeline([inner], name="outer", timeout=outer).run(x=1)
        with pytest.raises(PipelineTimeoutError, match=f"pipeline '{blamed}' ran longer than its timeout of 50 s"):
            Pipeline([inner.as_node({"xs": "x"}, map_over="xs")], name="outer", timeout=outer).run(xs=[1])


def test_time_before_a_nested_pipeline_counts_for_the_outer_one(wall: Wall) -> None:
    @node(output_name="x")
    def slow(w: int) -> int:
        wall.pass_(90)
        return w

    inner = Pipeline([add, node(lambda a: wall.pass_(20), output_name="b"), last], name="inner", timeout=50)
    with pytest.raises(PipelineTimeoutError, match=r"pipeline 'outer' .* of 100 s; node 'last' was not"):
        Pipeline([slow, inner], name="outer", timeout=100).run(w=1)


def test_each_run_of_a_mapped_pipeline_has_its_own_time(wall: Wall) -> None:
    inner = Pipeline([add, node(lambda a: wall.pass_(40 * a), output_name="b"), last], name="inner", timeout=50)
    outer = Pipeline([inner.as_node({"xs": "x"}, map_over="xs")], name="outer")
    assert outer.run(xs=[0, 0, 0, 0], output_name="a") == [1, 1, 1, 1]
    with pytest.raises(PipelineTimeoutError) as caught:
        outer.run(xs=[0, 0, 1])
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.where == "outer > inner (item 2) > last"


def test_same_pipeline_may_have_a_timeout_from_each_of_two_parents(wall: Wall) -> None:
    inner = Pipeline([node(lambda x: wall.pass_(60), output_name="a"), node(lambda a: 1, output_name="b")], name="in")
    assert Pipeline([inner], timeout=100).run(x=1, output_name="b") == 1
    with pytest.raises(PipelineTimeoutError):
        Pipeline([inner], timeout=50).run(x=1, output_name="b")
    assert inner.run(x=1, output_name="b") == 1


# -- over borders


@pytest.fixture(scope="module")
def far() -> Iterator[Any]:
    with SubprocessBackend(machines=1) as backend:
        yield backend


def test_deadline_goes_over_a_border(far: Any) -> None:
    there = Pipeline([add, hang], name="there", backend=far)
    pipeline = Pipeline([there, last], name="main", timeout=4 * SHORT)
    found = pipeline.map([{"x": x} for x in range(3)], output_name="c", on_error="return")
    assert (found[0], found[2]) == (2, 6)
    assert isinstance(found[1].error, PipelineTimeoutError)
    assert found[1].where == "main (item 1) > there > hang"
    assert "pipeline 'main' ran longer than its timeout of 2 s" in found[1].message


def test_clock_carries_no_value_over_a_border(far: Any) -> None:
    there = Pipeline([add], name="there", backend=far)
    here = Pipeline([node(lambda lock, a: (type(lock).__name__, a), output_name="kind")], name="here")
    both = Pipeline([there, here], name="both", timeout=LONG)
    locks = node(lambda w: threading.Lock(), output_name="lock")
    found = Pipeline([locks, both], name="main", backend=LocalBackend()).run(w=1, x=1, output_name="kind")
    assert found == ("lock", 2)


def test_place_where_nothing_runs_is_not_opened_for_a_clock() -> None:
    closed: Any = SubprocessBackend(machines=1)
    inner = Pipeline([add], name="inner", backend=LocalBackend())
    plan = Pipeline([inner], name="main", backend=closed, timeout=LONG)
    assert {step.place for step in compile_plan(plan, ["x"], ["a"], None).steps} == {1}


# -- what nobody sees


def test_nobody_hears_of_a_clock() -> None:
    def heard(timeout: float | None) -> list[Any]:
        events: list[Event] = []
        inner = Pipeline([add, hang], name="inner", timeout=timeout)
        pipeline = Pipeline([inner.as_node({"xs": "x"}, map_over="xs"), last], timeout=timeout and 2 * timeout)
        pipeline = pipeline.with_options(callbacks=[events.append])
        pipeline.map([{"xs": [0, 2]}, {"xs": []}])
        return [(event.kind, event.phase, event.path, event.items, event.status) for event in events]

    assert heard(LONG) == heard(None)


def test_timed_out_node_is_heard_to_fail() -> None:
    events: list[Event] = []
    pipeline = Pipeline([add, hang, last], name="main", timeout=SHORT, callbacks=[events.append])
    with pytest.raises(PipelineTimeoutError):
        pipeline.run(x=1)
    ends = [event for event in events if event.phase == "end" and event.kind != "place"]
    told = [(event.path[-1], event.status, event.error) for event in ends]
    assert told == [
        ("add", "ok", ""),
        ("hang", "error", "PipelineTimeoutError"),
        ("main", "error", "PipelineTimeoutError"),
    ]


def test_explain_says_which_pipeline_bounds_a_node_and_shows_no_clock() -> None:
    inner = Pipeline([node(add.func, output_name="a", timeout=5)], name="inner", timeout=50)
    found = Pipeline([inner, hang], name="main", timeout=300).explain(["x"])
    assert [(entry.path[-1], entry.inputs) for entry in found.nodes] == [("add", ("x",)), ("hang", ("a",))]
    assert [(entry.timeout, entry.timeout_chosen_by, entry.node_timeout) for entry in found.nodes] == [
        (50, "inner", 5),
        (300, "main", None),
    ]
    assert "5 s, 50 s (inner)" in str(found)
    assert "300 s (main)" in str(found)
    assert found.crossings == 0
    assert "timeout" not in str(Pipeline([add]).explain(["x"]))


def test_clock_costs_no_call_more_where_nodes_run_apart() -> None:
    def units(timeout: float | None) -> list[list[str]]:
        inner = Pipeline([add, hang, last], name="inner", timeout=timeout)
        plan = compile_plan(Pipeline([inner], name="main"), ["x"], ["a", "b", "c"], LocalBackend())
        stage = Stage("main", plan.steps, plan.inputs, plan.outputs)
        blueprint = blueprint_of(stage, fine=True, fans=True)
        return [
            [step.path[-1] for step in unit.stage.steps if isinstance(step, Step) and not step.is_clock]
            for unit in blueprint.units
            if unit.stage is not None
        ]

    assert units(LONG) == units(None)


def test_pipeline_without_a_timeout_pays_nothing() -> None:
    plan = compile_plan(Pipeline([Pipeline([add, hang]), last]), ["x"], ["c"], LocalBackend())
    assert [step.clock for step in plan.steps] == [None] * 3
    assert len(plan.steps) == 3


def test_engine_that_calls_single_steps_keeps_the_timeout() -> None:
    plan = compile_plan(Pipeline([add, hang], name="main", timeout=SHORT), ["x"], ["b"], LocalBackend())
    values: dict[int, Any] = {0: 1}
    with pytest.raises(PipelineTimeoutError, match="node 'hang'"):
        for step in plan.steps:
            assert isinstance(step, Step)
            made = run_step(step, {name: values[slot] for name, slot in step.reads})
            values.update(zip(step.writes, made, strict=True))


# -- the option


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan"), float("inf")])
def test_timeout_that_is_no_time_is_refused(timeout: Any) -> None:
    with pytest.raises(NodeDefinitionError, match=r"pipeline 'main': timeout=.*; give seconds, more than 0"):
        Pipeline([add], name="main", timeout=timeout)


def test_timeout_is_an_option_like_the_others() -> None:
    pipeline = Pipeline([add], timeout=5)
    assert pipeline.timeout == 5
    assert pipeline.with_options(timeout=6).timeout == 6
    assert pipeline.with_options(name="other").timeout == 5
    assert pickle.loads(pickle.dumps(Pipeline([pipeline], timeout=7))).timeout == 7
    assert Pipeline([add]).timeout is None


def test_error_survives_being_pickled() -> None:
    error = pickle.loads(pickle.dumps(PipelineTimeoutError("too long")))
    assert (type(error), str(error)) == (PipelineTimeoutError, "too long")


# -- nothing else changes


def timed(pipeline: Any, seconds: float = LONG) -> Pipeline:
    """The same pipeline with a timeout on every level, the shorter the deeper, so that each has a clock."""
    nodes = [
        timed(one.pipeline, seconds - 1).as_node(**one.options) if isinstance(one, NestedPipeline) else one
        for one in pipeline.graph.nodes
    ]
    limits = pipeline.limits
    return Pipeline(
        nodes, name=pipeline.name, backend=pipeline.backend, timeout=seconds, limits=limits, check_types=False
    )


def clocks(plan: Plan) -> int:
    return sum(clocks(step.inner) if isinstance(step, MapStep) else step.is_clock for step in plan.steps)


@pytest.mark.parametrize(
    ("count", "backend", "backends"),
    [
        (150, None, []),
        (50, LocalBackend(engine="async"), []),
        (50, LocalBackend(), [LocalBackend(), LocalBackend(engine="async", max_workers=2)]),
    ],
)
def test_with_generous_timeouts_random_pipelines_give_what_they_gave(count: int, backend: Any, backends: Any) -> None:
    for seed in seeds(count):
        case = draw_case(random.Random(seed).randint)
        try:
            found = case.run(timed(case.build(backend, backends)))
        except Exception as error:
            found = error
        try:
            compare(case.expected(), found, any_order=backend is not None)
        except AssertionError as error:
            error.add_note(f"this was draw_case(random.Random({seed}).randint)")
            raise


@pytest.mark.parametrize("modes", [("parallel", "sequential"), ("parallel", "parallel"), ("sequential", "parallel")])
def test_with_generous_timeouts_processes_give_what_they_gave(modes: tuple[str, str]) -> None:
    pytest.importorskip("hypernodes_local_multiprocess")
    with LocalBackend(node_execution=modes[0], map_execution=modes[1], max_workers=2) as backend:
        for seed in seeds(20):
            case = draw_case(random.Random(seed).randint)
            try:
                found = case.run(timed(case.build(backend)))
            except Exception as error:
                found = error
            compare(case.expected(), found, any_order=True)


def test_every_level_of_the_property_above_has_a_clock() -> None:
    inner = Pipeline([add], name="inner")
    pipeline = timed(Pipeline([inner.as_node({"xs": "x"}, map_over="xs"), Pipeline([last])]))
    assert clocks(compile_plan(pipeline, ["xs", "b"], ["a", "c"], LocalBackend())) == 3


def test_worker_process_in_which_a_node_overran_is_replaced() -> None:
    pytest.importorskip("hypernodes_local_multiprocess")

    @node(output_name="process")
    def process(x: int) -> int:
        import os

        if x:
            stall()
        return os.getpid()

    with LocalBackend(engine="multiprocess", max_workers=1) as backend:
        pipeline = Pipeline([process], name="main", backend=backend, timeout=4 * SHORT)
        before = pipeline.run(x=0)
        with pytest.raises(PipelineTimeoutError, match="node 'process' was given up"):
            pipeline.run(x=1)
        assert pipeline.run(x=0) != before
