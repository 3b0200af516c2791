"""Calls that share a scope build their resources once, count against one limit, and are closed together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import Pipeline, ResourceError, node, resource
from hypernodes.plugin import SharedScope


def told(words: list[str]) -> Pipeline:
    """A pipeline whose resource tells when it is built and closed."""

    @resource
    def model() -> Iterator[str]:
        words.append("built")
        yield "model"
        words.append("closed")

    return Pipeline(nodes=[model, node(lambda x, model: (x, model), output_name="y")])


def test_calls_that_share_a_scope_build_a_resource_once() -> None:
    words: list[str] = []
    pipeline, scope = told(words), SharedScope()
    for x in range(3):
        with scope.calls():
            assert pipeline.map([{"x": x}], output_name="y") == [(x, "model")]
            assert pipeline.run(x=x, output_name="y") == (x, "model")
    assert words == ["built"]
    scope.close()
    scope.close()
    assert words == ["built", "closed"]


def test_calls_outside_of_the_block_have_their_own() -> None:
    words: list[str] = []
    pipeline, scope = told(words), SharedScope()
    with scope.calls():
        pipeline.run(x=1)
    pipeline.run(x=1)
    assert words == ["built", "built", "closed"]
    scope.close()
    assert words[3:] == ["closed"]


def test_what_cannot_be_closed_is_told_by_whoever_closes() -> None:
    @resource
    def model() -> Iterator[str]:
        yield "model"
        raise OSError("no way out")

    scope = SharedScope()
    with scope.calls():
        assert Pipeline(nodes=[model, node(lambda model: model, output_name="y")]).run(output_name="y") == "model"
    with pytest.raises(ResourceError, match="no way out"):
        scope.close()


def test_limit_counts_over_calls_at_once() -> None:
    most, now = 0, 0
    lock = threading.Lock()
    pause = threading.Event()

    @node(output_name="y", limit="calls")
    def call(x: Any) -> Any:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        pause.wait(0.01)  # a limit that does not hold shows in this time
        with lock:
            now -= 1
        return x

    pipeline, scope = Pipeline(nodes=[call], limits={"calls": 1}), SharedScope()

    def feed() -> None:
        with scope.calls():
            pipeline.map([{"x": x} for x in range(5)])

    threads = [threading.Thread(target=feed) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scope.close()
    assert most == 1
