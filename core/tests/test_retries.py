"""A node's retries and its timeout, on the engines that core ships."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import cloudpickle
import pytest

from hypernodes import LocalBackend, NodeDefinitionError, NodeTimeoutError, Pipeline, failure_of, node

BACKENDS = [None, LocalBackend(engine="async"), LocalBackend(node_execution="async", map_execution="sequential")]


class Flaky:
    """Fails the first `times` calls for each item."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls: dict[Any, int] = {}

    def __call__(self, x: Any) -> int:
        self.calls[x] = self.calls.get(x, 0) + 1
        if self.calls[x] <= self.times:
            raise ConnectionError(f"call {self.calls[x]}")
        return self.calls[x]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_failing_call_is_tried_again_as_often_as_told(backend: Any, is_async: bool) -> None:
    flaky = Flaky(2)

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return flaky(x)

    def now(x: int) -> int:
        return flaky(x)

    pipeline = Pipeline([node(later if is_async else now, output_name="y", retries=2)], backend=backend)
    assert pipeline.map([{"x": 1}, {"x": 2}], output_name="y") == [3, 3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_last_failure_is_the_one_that_is_told(backend: Any) -> None:
    flaky = Flaky(9)
    pipeline = Pipeline([node(lambda x: flaky(x), output_name="y", retries=2)], name="main", backend=backend)
    with pytest.raises(ConnectionError, match="call 3") as caught:
        pipeline.run(x=1)
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.where == "main > y"
    assert flaky.calls == {1: 3}


def test_pause_before_a_retry_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    flaky = Flaky(3)
    Pipeline([node(lambda x: flaky(x), output_name="y", retries=3, retry_delay=0.5)]).run(x=1)
    assert pauses == [0.5, 1.0, 2.0]


def test_pause_before_a_retry_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    again = node(lambda x: 1 / 0, output_name="y", retries=2000, retry_delay=0.5, max_retry_delay=3)
    with pytest.raises(ZeroDivisionError):
        Pipeline([again]).run(x=1)
    assert pauses[:4] == [0.5, 1.0, 2.0, 3.0]
    assert set(pauses[3:]) == {3.0}
    assert len(pauses) == 2000


def test_jitter_waits_a_random_part_of_each_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    again = node(lambda x: 1 / 0, output_name="y", retries=5, retry_delay=1, max_retry_delay=4, retry_jitter=True)
    with pytest.raises(ZeroDivisionError):
        Pipeline([again]).run(x=1)
    assert all(0 <= pause <= most for pause, most in zip(pauses, [1, 2, 4, 4, 4], strict=True))
    assert pauses != [1, 2, 4, 4, 4]


@pytest.mark.parametrize("is_async", [False, True])
def test_only_the_named_exceptions_are_tried_again(is_async: bool) -> None:
    calls: list[int] = []

    def fail(x: int) -> int:
        calls.append(x)
        if len(calls) < 3:
            raise (ConnectionError if x == 1 else ValueError)("no")
        return x

    async def fail_later(x: int) -> int:
        return fail(x)

    function = fail_later if is_async else fail
    again = node(function, output_name="y", retries=5, retry_on=(ConnectionError, KeyError))
    pipeline = Pipeline([again])
    assert pipeline.run(x=1) == {"y": 1}
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(ValueError, match="no"):
        pipeline.run(x=2)
    assert calls == [2]


# -- of a pipeline


def attempts(pipeline: Pipeline) -> dict[str, int]:
    """How often each node of a plan is tried again."""
    return {entry.path[-1]: entry.retries for entry in pipeline.explain().nodes}


def test_nodes_inherit_retries_from_the_nearest_pipeline_unless_they_name_them() -> None:
    plain, own = node(lambda x: x, output_name="plain"), node(lambda x: x, output_name="own", retries=7)
    none = node(lambda x: x, output_name="none", retries=0)
    inner = Pipeline([plain, own, none], name="inner")
    outer = node(lambda x: x, output_name="outer")
    assert attempts(Pipeline([inner, outer])) == {"plain": 0, "own": 7, "none": 0, "outer": 0}
    assert attempts(Pipeline([inner, outer], retries=2)) == {"plain": 2, "own": 7, "none": 0, "outer": 2}
    named = inner.with_options(retries=3)
    assert attempts(Pipeline([named, outer], retries=2)) == {"plain": 3, "own": 7, "none": 0, "outer": 2}
    off = inner.with_options(retries=0)
    assert attempts(Pipeline([off, outer], retries=2)) == {"plain": 0, "own": 7, "none": 0, "outer": 2}
    found = Pipeline([named.as_node({"xs": "x"}, map_over="xs"), outer], name="main", retries=2).explain()
    assert [entry.retries_chosen_by for entry in found.nodes] == ["inner", "own", "none", "main"]
    assert "3 (inner)" in str(found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nodes_are_tried_again_as_often_as_their_pipeline_says(backend: Any) -> None:
    flaky = Flaky(2)
    inner = Pipeline([node(lambda x: flaky(x), output_name="y")], name="inner")
    assert Pipeline([inner], backend=backend, retries=2).map([{"x": 1}, {"x": 2}], output_name="y") == [3, 3]


def test_pause_is_inherited_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    flaky = Flaky(2)
    inner = Pipeline([node(lambda x: flaky(x), output_name="y", retries=2)], retry_delay=3)
    Pipeline([inner], retries=9, retry_delay=7).run(x=1)
    assert pauses == [3, 6]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"retry_on": KeyboardInterrupt}, "give a class of exceptions, such as ConnectionError"),
        ({"retry_on": "ConnectionError"}, "give a class of exceptions"),
        ({"retry_on": (ValueError, 3)}, "give a class of exceptions"),
        ({"retry_on": ()}, "name an exception"),
        ({"max_retry_delay": 0}, "give seconds, more than 0"),
        ({"retry_delay": float("inf")}, "give seconds, 0 or more"),
        ({"retry_delay": float("nan")}, "give seconds, 0 or more"),
        ({"retry_jitter": 1}, "give True or False"),
        ({"retries": -1}, "give a whole number, 0 or more"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(NodeDefinitionError, match=f"node 'f': .*{problem}"):
        node(lambda x: x, output_name="f", **options)
    if "retry_delay" in options or "retries" in options:
        with pytest.raises(NodeDefinitionError, match=f"pipeline 'main': .*{problem}"):
            Pipeline([node(lambda x: x, output_name="f")], name="main", **options)


def test_options_to_retry_travel_with_a_node_and_a_pipeline() -> None:
    made = node(
        *(Flaky(0), "y"), name="n", retries=2, retry_delay=1, max_retry_delay=9, retry_on=OSError, retry_jitter=True
    )
    pipeline = Pipeline([made], retries=4, retry_delay=0.5)
    back = cloudpickle.loads(cloudpickle.dumps(pipeline))
    (found,) = back.graph.nodes
    assert (found.retries, found.retry_delay, found.max_retry_delay) == (2, 1, 9)
    assert (found.retry_on, found.retry_jitter) == ((OSError,), True)
    assert (back.retries, back.retry_delay) == (4, 0.5)


def test_ctrl_c_is_not_tried_again() -> None:
    calls = []

    def stop(x: int) -> int:
        calls.append(x)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([node(stop, output_name="y", retries=5)]).run(x=1)
    assert calls == [1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_call_that_takes_too_long_fails_its_item_alone(backend: Any, is_async: bool) -> None:
    release = threading.Event()

    async def later(x: int) -> int:
        if x == 1:
            await asyncio.Event().wait()
        return x

    def now(x: int) -> int:
        if x == 1:
            release.wait()
        return x

    slow = node(later if is_async else now, output_name="y", name="slow", timeout=2)
    found = Pipeline([slow], backend=backend).map([{"x": x} for x in range(3)], output_name="y", on_error="return")
    release.set()
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1].error, NodeTimeoutError)
    assert str(found[1].error) == "node 'slow' ran longer than its timeout of 2 s"
    assert isinstance(found[1].error, TimeoutError)


def test_own_timeout_error_of_a_node_stays_its_own() -> None:
    def refuse(x: int) -> int:
        raise TimeoutError("the server is slow")

    with pytest.raises(TimeoutError, match="the server is slow") as caught:
        Pipeline([node(refuse, output_name="y", timeout=5)]).run(x=1)
    assert not isinstance(caught.value, NodeTimeoutError)
