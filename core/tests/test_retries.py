"""A node's retries and its timeout, on the engines that core ships."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from hypernodes import LocalBackend, NodeTimeoutError, Pipeline, failure_of, node

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

    slow = node(later if is_async else now, output_name="y", name="slow", timeout=0.5)
    found = Pipeline([slow], backend=backend).map([{"x": x} for x in range(3)], output_name="y", on_error="return")
    release.set()
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1].error, NodeTimeoutError)
    assert str(found[1].error) == "node 'slow' ran longer than its timeout of 0.5 s"
    assert isinstance(found[1].error, TimeoutError)


def test_own_timeout_error_of_a_node_stays_its_own() -> None:
    def refuse(x: int) -> int:
        raise TimeoutError("the server is slow")

    with pytest.raises(TimeoutError, match="the server is slow") as caught:
        Pipeline([node(refuse, output_name="y", timeout=5)]).run(x=1)
    assert not isinstance(caught.value, NodeTimeoutError)
