"""Limits by name and resources of the machine: how they are declared, and what they hold back."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thread_engine import threads

from hypernodes import (
    DiskCache,
    GraphError,
    LocalBackend,
    NodeDefinitionError,
    Pipeline,
    PipelineTimeoutError,
    Resource,
    node,
    resource,
)
from hypernodes._compile import compile_plan
from hypernodes._machine import machine
from hypernodes._nest import NestedPipeline
from hypernodes._node import _OPTIONS, Node
from hypernodes._plan import leaves
from hypernodes._quota import quotas_of
from hypernodes.testing import EventLog, SubprocessBackend, compare, draw_case
from hypernodes.testing._leaks import LeakWatch, no_leaks
from hypernodes.testing._promises import seeds

__all__ = ["no_leaks"]

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _clean(no_leaks: LeakWatch) -> None:
    return


class Inside:
    """How many calls are inside, and how many there were at most."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def two_nodes(inside: Inside, **options: Any) -> list[Any]:
    @node(output_name="a", **options)
    def first(x: int) -> int:
        with inside:
            time.sleep(0.001)
        return x + 1

    @node(output_name="b", **options)
    async def second(a: int) -> int:
        with inside:
            await asyncio.sleep(0.001)
        return a * 2

    return [first, second]


@node(limit="api")
def ask(x: int) -> int:
    return x + 1


@node(resources={"gpus": 1})
def infer(x: int) -> int:
    return x + 1


# -- declaring


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10/second", "10/second"),
        ("10/s", "10/second"),
        ("100/minute", "100/minute"),
        ("100 / min", "100/minute"),
        ("100/m", "100/minute"),
        ("5 per hour", "5/hour"),
        ("5/hours", "5/hour"),
        ("5000/day", "5000/day"),
        (8, "8 at once"),
    ],
)
def test_limit_is_a_count_or_a_rate(text: Any, rule: str) -> None:
    assert quotas_of("pipeline 'main'", {"api": text})["api"].rule == rule


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, None, "", "8", "0/minute", "-1/minute", "10/fortnight", "fast"])
def test_limit_of_nothing_or_nonsense_is_refused_where_it_is_declared(limit: Any) -> None:
    with pytest.raises(NodeDefinitionError, match=r"pipeline 'main': limits\['api'\]=.*; give how many calls"):
        Pipeline([ask], name="main", limits={"api": limit})
    with pytest.raises(NodeDefinitionError, match=r"LocalBackend: limits\['api'\]=.*'100/minute'"):
        LocalBackend(limits={"api": limit})


@pytest.mark.parametrize("limits", [8, "api", ["api"], {3: 4}, {"": 4}])
def test_limits_are_a_dict_by_name(limits: Any) -> None:
    with pytest.raises(NodeDefinitionError, match=r"pipeline 'main': limits"):
        Pipeline([ask], name="main", limits=limits)


def test_limit_that_nobody_declares_is_found_before_any_node_runs() -> None:
    ran: list[int] = []
    before = node(lambda x: ran.append(x), output_name="seen")
    inner = Pipeline([ask], name="inner")
    with pytest.raises(GraphError) as caught:
        Pipeline([before, inner], name="main", limits={"apis": 3}).run(x=1)
    assert str(caught.value) == (
        "node 'main > inner > ask' counts against limit 'api', which nobody declares (did you mean 'apis'?); declare "
        "it on a pipeline around the node, limits={'api': 8} for 8 calls at once or {'api': '100/minute'} for a rate, "
        "or on the node's backend, LocalBackend(limits=...)"
    )
    assert not ran


def test_limit_that_no_node_asks_for_changes_nothing() -> None:
    plain = node(lambda x: x + 1, output_name="y")
    assert Pipeline([plain], limits={"api": 1}).run(x=1) == {"y": 2}


def test_what_a_call_does_not_need_is_not_asked_about() -> None:
    plain = node(lambda x: x + 1, output_name="y")
    pipeline = Pipeline([ask, infer, plain], backend=LocalBackend(resources={"gpus": 0}))
    assert pipeline.run(x=1, output_name="y") == 2


def test_limits_stay_with_a_pipeline_that_is_moved_or_pickled() -> None:
    pipeline = Pipeline([Pipeline([ask], name="inner", limits={"api": 2})], limits={"search": "1/second"})
    for other in (
        pipeline.with_backend(LocalBackend(engine="async")),
        pipeline.with_options(name="other"),
        pickle.loads(pickle.dumps(pipeline)),
    ):
        assert other.limits == {"search": "1/second"}
        assert other.graph.nodes[0].pipeline.limits == {"api": 2}  # type: ignore[attr-defined]
    assert pipeline.with_options(limits=None).limits is None


def test_backends_with_other_limits_are_other_places() -> None:
    one, other = LocalBackend(limits={"api": 1}), LocalBackend(limits={"api": 2})
    assert one != other
    assert one == LocalBackend(limits={"api": 1})
    assert len({one, other, LocalBackend(limits={"api": 1})}) == 2
    assert pickle.loads(pickle.dumps(one)) == one


def rules(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    return {found.path[-1]: found.limits for found in pipeline.explain().nodes}


def test_nearest_pipeline_declares_the_limit_and_the_backend_where_none_does() -> None:
    backend = LocalBackend(limits={"api": 9, "other": "5/day"})
    inner = Pipeline([node(lambda a: a, output_name="b", name="deep", limit=["api", "other"])], limits={"api": 2})
    top = node(lambda x: x, output_name="a", name="top", limit="api")
    outer = Pipeline([top, inner.as_node(name="inner")], name="main", backend=backend)
    assert rules(outer) == {
        "top": ("api: 9 at once (LocalBackend)",),
        "deep": ("api: 2 at once (inner)", "other: 5/day (LocalBackend)"),
    }
    assert rules(outer.with_options(limits={"api": "7/m"}))["top"] == ("api: 7/minute (main)",)


def test_explain_shows_limits_and_demands_only_where_there_are_any() -> None:
    greedy = node(lambda ask: ask, output_name="z", resources={"cpus": 0.5, "memory": "1MB"})
    shown = str(Pipeline([ask, greedy], name="main", limits={"api": "100/min"}).explain())
    assert "limits" in shown
    assert "api: 100/minute (main)" in shown
    assert "0.5 CPUs, 1 MB of memory" in shown
    plain = str(Pipeline([node(lambda x: x, output_name="y")], limits={"api": 3}).explain())
    assert "limits" not in plain
    assert "demands" not in plain


# -- how many at once


@pytest.mark.parametrize("modes", [("async", "async"), ("sequential", "async"), ("async", "sequential")])
def test_nodes_that_share_a_limit_never_overlap_more_than_it_says(modes: tuple[str, str]) -> None:
    inside = Inside()
    backend = LocalBackend(node_execution=modes[0], map_execution=modes[1])
    pipeline = Pipeline(two_nodes(inside, limit="api"), limits={"api": 3}, backend=backend)
    found = pipeline.map([{"x": x} for x in range(30)], output_name="b")
    assert found == [(x + 1) * 2 for x in range(30)]
    assert inside.most <= 3
    assert inside.calls == 60


def test_limit_holds_over_mapped_and_nested_pipelines_in_threads() -> None:
    inside = Inside()
    inner = Pipeline(two_nodes(inside, limit="api"), name="inner")
    again = inner.as_node({"bs": "x"}, {"a": "aa", "b": "bb"}, map_over="bs", name="again")
    mapped = inner.as_node({"xs": "x"}, {"a": "as_", "b": "bs"}, map_over="xs")
    pipeline = Pipeline([mapped, again], limits={"api": 2}, backend=threads())
    found = pipeline.map([{"xs": [1, 2, 3]} for _ in range(5)], output_name="bb")
    assert found == [[((x + 1) * 2 + 1) * 2 for x in (1, 2, 3)]] * 5
    assert inside.most <= 2
    assert inside.calls == 60


def together(count: int, **options: Any) -> Node[..., Any]:
    """A node whose calls wait until so many of them run at once."""
    barrier = threading.Barrier(count)

    def meet(x: int) -> int:
        barrier.wait(PATIENCE)
        return x

    return node(meet, output_name="met", **options)


def test_as_many_run_at_once_as_the_limit_says() -> None:
    pipeline = Pipeline([together(3, limit="api")], limits={"api": 3}, backend=threads(3))
    assert pipeline.map([{"x": x} for x in range(6)], output_name="met") == list(range(6))


def test_limit_declared_again_inside_counts_by_itself_there() -> None:
    inner = Pipeline([together(3, limit="api")], name="inner", limits={"api": 3})
    outer = Pipeline([ask, inner], limits={"api": 1}, backend=threads(3))
    assert outer.map([{"x": x} for x in range(6)], output_name="met") == list(range(6))


def test_limit_of_a_backend_holds_for_its_nodes() -> None:
    inside = Inside()
    Pipeline(two_nodes(inside, limit="api"), backend=threads(limits={"api": 1})).map([{"x": x} for x in range(10)])
    assert inside.most == 1


def test_calls_of_other_runs_count_for_themselves() -> None:
    pipeline = Pipeline([together(2, limit="api")], limits={"api": 1})
    found: list[Any] = []
    runs = [threading.Thread(target=lambda: found.append(pipeline.run(x=1))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert found == [{"met": 1}] * 2


def test_node_may_name_several_limits_and_passes_all_or_none() -> None:
    inside = Inside()
    nodes = two_nodes(inside, limit=["api", "wide"])
    Pipeline(nodes, limits={"api": 2, "wide": 5}, backend=threads()).map([{"x": x} for x in range(10)])
    assert inside.most <= 2


def test_what_a_failing_call_held_is_free_again() -> None:
    @node(limit="api")
    def odd(x: int) -> int:
        if x % 2:
            raise ValueError(x)
        return x

    pipeline = Pipeline([odd], limits={"api": 1}, backend=threads())
    found = pipeline.map([{"x": x} for x in range(10)], on_error="return", output_name="odd")
    assert found[::2] == [0, 2, 4, 6, 8]
    assert {type(failure.error) for failure in found[1::2]} == {ValueError}


def test_traceback_begins_in_the_users_function() -> None:
    @node(limit="api")
    def fail(x: int) -> int:
        raise ValueError(x)

    with pytest.raises(ValueError, match="1") as caught:
        Pipeline([fail], limits={"api": 1}).run(x=1)
    frames = [entry.name for entry in caught.traceback]
    assert frames[-1] == "fail"
    assert "passing" not in frames


def test_limits_hold_with_a_cache_and_hits_pass_no_gate(tmp_path: Path) -> None:
    pipeline = Pipeline([ask], limits={"api": "3/day"}, cache=DiskCache(tmp_path), backend=threads())
    items = [{"x": x} for x in range(3)]
    assert pipeline.map(items, output_name="ask") == [1, 2, 3]
    # In one call the fourth would wait for a day, if a hit counted.
    assert pipeline.map([*items, *items, {"x": 7}], output_name="ask") == [1, 2, 3, 1, 2, 3, 8]


def test_events_are_those_of_nodes_without_limits() -> None:
    logs = [EventLog(), EventLog()]
    for log, limits in zip(logs, ({"api": 1}, {"api": 50}), strict=True):
        pipeline = Pipeline(two_nodes(Inside(), limit="api"), limits=limits, backend=threads(), callbacks=[log])
        pipeline.map([{"x": x} for x in range(4)])
    assert logs[0].tree() == logs[1].tree()


def test_batch_counts_once() -> None:
    @node(batch_size=5, limit="api")
    def embed(x: list[int]) -> list[int]:
        return [len(x)] * len(x)

    # A second batch would wait for a day.
    assert Pipeline([embed], limits={"api": "1/day"}).map([{"x": x} for x in range(5)], output_name="embed") == [5] * 5


# -- waiting


def test_each_attempt_counts_against_a_rate_and_a_deadline_ends_the_waiting() -> None:
    attempts: list[int] = []

    @node(limit="api", retries=3)
    def flaky(x: int) -> int:
        attempts.append(x)
        raise ConnectionError

    pipeline = Pipeline([flaky], name="main", limits={"api": "2/hour"}, timeout=2)
    with pytest.raises(PipelineTimeoutError) as caught:
        pipeline.run(x=1)
    assert str(caught.value) == (
        "pipeline 'main' ran longer than its timeout of 2 s; node 'flaky' was waiting for limit 'api' (2/hour)"
    )
    assert len(attempts) == 2


def test_pause_between_attempts_holds_nothing() -> None:
    @node(limit="api", retries=1, retry_delay=3600)
    async def flaky(x: int) -> int:
        if x == 0:
            raise ConnectionError
        return x

    pipeline = Pipeline([flaky], limits={"api": 1}, backend=LocalBackend(engine="async"))
    results = pipeline.map_iter([{"x": 0}, {"x": 1}], output_name="flaky", ordered=False)
    assert next(results) == 1
    results.close()


@pytest.mark.slow
def test_waiting_is_no_part_of_the_nodes_timeout() -> None:
    held = threading.Event()

    @node(limit="api")
    def slow(x: int) -> int:
        held.set()
        time.sleep(3.0)
        return x

    @node
    def after(x: int) -> int:
        assert held.wait(PATIENCE)
        return x

    @node(limit="api", timeout=2.5)
    def quick(after: int) -> int:
        return after

    backend = threads(node_execution="parallel")
    pipeline = Pipeline([slow, after, quick], limits={"api": 1}, backend=backend)
    assert pipeline.run(x=1) == {"slow": 1, "after": 1, "quick": 1}


def test_coroutines_wait_without_holding_the_loop_up() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        @node(limit="api")
        async def hold(x: int) -> int:
            await gone.wait()
            return x

        pipeline = Pipeline([hold], limits={"api": 1}, backend=LocalBackend(engine="async"))
        call = asyncio.create_task(pipeline.amap([{"x": x} for x in range(4)], output_name="hold"))
        for _ in range(10):  # the loop goes round while calls wait
            await asyncio.sleep(0)
        assert not call.done()
        gone.set()
        assert await call == [0, 1, 2, 3]

    asyncio.run(main())


def test_cancelled_task_waits_no_more() -> None:
    async def main() -> None:
        inside = asyncio.Event()

        @node(limit="api")
        async def hold(x: int) -> int:
            inside.set()
            await asyncio.Event().wait()
            return x

        pipeline = Pipeline([hold], limits={"api": 1}, backend=LocalBackend(engine="async"))
        call = asyncio.create_task(pipeline.amap([{"x": x} for x in range(4)]))
        await inside.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


def test_closed_iterator_leaves_nobody_waiting() -> None:
    first = threading.Event()

    @node(limit="api")
    def hold(x: int) -> int:
        if x:
            first.wait(PATIENCE)
        return x

    pipeline = Pipeline([hold], limits={"api": 1}, backend=threads(3))
    results = pipeline.map_iter([{"x": x} for x in range(20)], output_name="hold", ordered=False)
    next(results)
    first.set()
    results.close()


def test_resource_of_a_call_that_waits_at_a_gate_is_closed_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypernodes._keep.GRACE", 600.0)  # seconds; no test takes so long
    closed: list[str] = []

    @resource
    def client() -> Iterator[str]:
        yield "client"
        closed.append("client")

    @node(limit="api")
    def request(x: int, client: str) -> int:
        return x

    pipeline = Pipeline([client, request], limits={"api": "1/day"}, backend=threads(2))
    results = pipeline.map_iter([{"x": x} for x in range(8)], output_name="request", ordered=False)
    assert next(results) in range(8)
    results.close()
    assert closed == ["client"]


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting() -> None:
    script = textwrap.dedent(
        """
        from hypernodes import Pipeline, node

        @node(limit="api")
        def ask(x):
            print("in", flush=True)
            return x

        Pipeline([ask], limits={"api": "1/day"}).map([{"x": 1}, {"x": 2}])
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "in\n"
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert "KeyboardInterrupt" in errors.splitlines()[-1]


# -- rates


@pytest.mark.slow
@pytest.mark.parametrize("backend", [threads(8), LocalBackend(engine="async"), None])
def test_no_more_calls_begin_in_a_second_than_the_rate_says(backend: Any) -> None:
    begun: list[float] = []

    @node(limit="api")
    def note(x: int) -> int:
        begun.append(time.monotonic())
        return x

    start = time.monotonic()
    Pipeline([note], limits={"api": "10/second"}, backend=backend).map([{"x": x} for x in range(11)])
    assert len(begun) == 11
    assert max(begun) >= start + 1.0


# -- resources


def test_machine_is_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = LocalBackend().capacity()
    assert found == machine()
    assert found.gpus == 2
    assert found.cpus >= 1
    assert found.memory > 1_000_000
    for visible, gpus in (("", 0), ("-1", 0), ("3", 1), ("0,-1,1", 1), ("GPU-1a, GPU-2b", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert machine().gpus == gpus


def test_backend_may_say_what_there_is() -> None:
    backend = LocalBackend(resources={"gpus": 2, "memory": "16GB"})
    assert backend.capacity() == machine()._replace(gpus=2, memory=16_000_000_000)
    assert backend.resources == {"gpus": 2, "memory": "16GB"}


@pytest.mark.parametrize("resources", [{"gpu": 1}, {"gpus": -1}, {"memory": "lots"}, 3])
def test_nonsense_about_what_there_is_is_refused(resources: Any) -> None:
    with pytest.raises(NodeDefinitionError, match="LocalBackend: resources"):
        LocalBackend(resources=resources)


def test_request_that_can_never_be_met_is_refused_before_anything_runs() -> None:
    ran: list[int] = []
    before = node(lambda x: ran.append(x), output_name="seen")
    pipeline = Pipeline([before, infer], name="main", backend=LocalBackend(resources={"gpus": 0.5}))
    with pytest.raises(GraphError) as caught:
        pipeline.run(x=1)
    assert str(caught.value) == (
        "node 'main > infer' needs 1 GPU for each call, but backend 'local' has 0.5 GPUs; ask for less in "
        "@node(resources=...), or tell the backend what there is, as in LocalBackend(resources={'gpus': 1})"
    )
    assert not ran


def test_calls_run_together_only_while_their_sum_fits() -> None:
    inside = Inside()
    backend = threads(resources={"gpus": 1, "memory": "10GB"})
    Pipeline(two_nodes(inside, resources={"gpus": 0.5, "memory": "1GB"}), backend=backend).map(
        [{"x": x} for x in range(12)]
    )
    assert inside.most <= 2
    inside = Inside()
    Pipeline(two_nodes(inside, resources={"memory": "4GB"}), backend=backend).map([{"x": x} for x in range(12)])
    assert inside.most <= 2


def test_fractions_fill_a_whole() -> None:
    node_of_three = together(10, resources={"gpus": 0.1})
    pipeline = Pipeline([node_of_three], backend=threads(10, resources={"gpus": 1}))
    assert pipeline.map([{"x": x} for x in range(20)], output_name="met") == list(range(20))


def test_places_of_one_machine_count_together() -> None:
    inside = Inside()
    first, second = two_nodes(inside, resources={"gpus": 1})
    inner = Pipeline([second], name="inner", backend=LocalBackend(engine="async", resources={"gpus": 1}))
    pipeline = Pipeline([first, inner], backend=threads(resources={"gpus": 1}))
    assert pipeline.map([{"x": x} for x in range(12)], output_name="b") == [(x + 1) * 2 for x in range(12)]
    assert inside.most == 1


def test_node_that_needs_nothing_waits_for_nothing() -> None:
    @node(resources={"gpus": 0})
    def free(x: int) -> int:
        return x

    pipeline = Pipeline([free], backend=LocalBackend(resources={"gpus": 0}))
    assert pipeline.run(x=1) == {"free": 1}
    plan = compile_plan(pipeline, ["x"], ["free"], LocalBackend())
    assert [step.gates for step in leaves(plan)] == [()]


def test_place_that_sees_to_demands_itself_is_asked_for_anything() -> None:
    with SubprocessBackend() as backend:
        assert Pipeline([node(lambda x: x, output_name="y", resources={"gpus": 64})], backend=backend).run(x=1) == {
            "y": 1
        }


# -- several processes of one machine


def mark_in(path: str) -> Callable[[Any], Any]:
    """A function that marks in a file when it begins and ends; it finds all it needs in itself, wherever it goes."""

    def mark(x: Any) -> Any:
        import os
        import time

        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, b"+")
            time.sleep(0.002)
            os.write(file, b"-")
        finally:
            os.close(file)
        return x

    return mark


def most_at_once(path: str) -> int:
    now = most = 0
    for sign in Path(path).read_text():
        now += 1 if sign == "+" else -1
        most = max(most, now)
    assert now == 0
    return most


@pytest.mark.slow
def test_limit_holds_over_this_process_and_places_elsewhere_on_the_machine(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    mark = mark_in(path)
    far = Pipeline([node(mark, output_name="y", limit="api")], name="far", backend=SubprocessBackend(machines=2))
    near = node(lambda y: mark(y), output_name="z", name="near", limit="api")
    pipeline = Pipeline([far, near], limits={"api": 2}, backend=threads())
    assert pipeline.map([{"x": x} for x in range(60)], output_name="z") == list(range(60))
    assert most_at_once(path) <= 2
    assert len(Path(path).read_bytes()) == 240


def test_no_folder_is_made_where_everything_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(os, "mkdir", lambda *call: made.append(call))
    Pipeline([ask], limits={"api": 1}, backend=threads()).map([{"x": x} for x in range(4)])
    assert not made


# -- nothing else changes


def limited(pipeline: Pipeline, rng: random.Random) -> Pipeline:
    """The same pipeline, its nodes with more limits and demands, its levels with more declarations."""
    nodes: list[Any] = []
    for child in pipeline.graph.nodes:
        if isinstance(child, NestedPipeline):
            nodes.append(limited(child.pipeline, rng).as_node(**child.options))  # type: ignore[arg-type]
        elif isinstance(child, Resource):
            nodes.append(child)
        else:
            assert isinstance(child, Node)
            options = {option: getattr(child, option) for option in _OPTIONS[1:]}
            options["limit"] += rng.choice([(), ("api",), ("api", "other")])
            options["resources"] = rng.choice([child.resources, {"cpus": 1}, {"gpus": 0.5, "cpus": 0.5}])
            nodes.append(node(child.func, child.outputs if child.unpacks else child.outputs[0], **options))
    limits: Any = rng.choice([{}, {"api": 1}, {"api": 2, "other": 1}, {"other": "1000000/second"}])
    return Pipeline(
        nodes,
        name=pipeline.name,
        backend=pipeline.backend,
        limits={**(pipeline.limits or {}), **limits},
        check_types=False,
    )


LIMITS: dict[str, Any] = {"api": 2, "other": "1000000/second"}


@pytest.mark.parametrize(
    ("count", "backend", "backends"),
    [
        (100, LocalBackend(limits=LIMITS, resources={"gpus": 1}), []),
        (60, LocalBackend(engine="async", limits=LIMITS, resources={"gpus": 1}), []),
        (60, threads(limits=LIMITS, resources={"gpus": 1}, node_execution="parallel"), []),
        (
            40,
            threads(limits=LIMITS, resources={"gpus": 1}),
            [
                LocalBackend(limits=LIMITS, resources={"gpus": 1}),
                LocalBackend(engine="async", max_workers=2, limits=LIMITS, resources={"gpus": 1}),
            ],
        ),
    ],
    ids=["sequential", "async", "threads", "places"],
)
def test_with_limits_random_pipelines_give_what_they_gave(count: int, backend: Any, backends: Any) -> None:
    for seed in seeds(count):
        case = draw_case(random.Random(seed).randint)
        try:
            found = case.run(limited(case.build(backend, backends), random.Random(seed)))
        except Exception as error:
            found = error
        try:
            compare(case.expected(), found, any_order=True)
        except AssertionError as error:
            error.add_note(f"this was draw_case(random.Random({seed}).randint)")
            raise


@pytest.mark.slow
def test_with_limits_processes_give_what_they_gave() -> None:
    pytest.importorskip("hypernodes_local_multiprocess")
    with LocalBackend("multiprocess", "parallel", max_workers=2, limits=LIMITS, resources={"gpus": 1}) as backend:
        for seed in seeds(20):
            case = draw_case(random.Random(seed).randint)
            try:
                found = case.run(limited(case.build(backend), random.Random(seed)))
            except Exception as error:
                found = error
            compare(case.expected(), found, any_order=True)
