"""What every place promises of the context that travels with a run: its events, and what caches keep of it."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from hypernodes import Failure, MemoryCache, Pipeline, WorkerLostError, node
from hypernodes.testing._compare import compare
from hypernodes.testing._event_tree import EventLog, outline
from hypernodes.testing._promises import Placed, check_random_cases
from hypernodes.testing._zoo import Refused, check, double, same

__all__ = ["ContextContract"]


@node(output_name="token")
def draw(x: Any) -> str:
    """Another text at each call: two that are equal were drawn once."""
    return f"{x} {uuid.uuid4().hex}"


@node(output_name="marked")
def mark(token: str) -> str:
    return f"{token} {uuid.uuid4().hex}"


@node(output_name="nothing")
def draw_nothing(x: Any) -> None:
    return None


@node(output_name=("quotient", "rest"))
def divide(x: Any) -> tuple[Any, Any]:
    return x // 3, x % 3


@node(output_name="later")
async def wait(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


@node(output_name="again", batch_size=3)
def doubled_again(doubled: list[Any]) -> list[Any]:
    return [2 * one for one in doubled]


@node(output_name="checked", batch_size=4)
def check_each(x: list[Any]) -> list[Any]:
    if 1 in x:
        raise Refused("1 is refused", 1)
    return list(x)


@node(output_name="xs")
def count_up(upto: int) -> Iterator[int]:
    yield from range(upto)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def each(*nodes: Any) -> Any:
    """The nodes as a pipeline that runs for each of `xs`."""
    return Pipeline(nodes=list(nodes), name="cells").as_node(input_mapping={"xs": "x"}, map_over="xs")


Told = tuple[Sequence[Any], Callable[[Pipeline], Any]]

TOLD: dict[str, Told] = {
    "a run": ([double, divide, wait], lambda pipeline: pipeline.run(x=4)),
    "a map": ([double, same], lambda pipeline: pipeline.map(rows(10))),
    "nested pipelines": (
        [Pipeline(nodes=[double, Pipeline(nodes=[divide], name="inmost")], name="inner"), same],
        lambda pipeline: pipeline.map(rows(4)),
    ),
    "only what is needed": (
        [double, divide, Pipeline(nodes=[same], name="inner")],
        lambda pipeline: pipeline.run(x=4, output_nodes=["rest", "doubled"]),
    ),
    "maps inside a map": (
        [each(double, wait), node(lambda doubled: len(doubled), output_name="count")],
        lambda pipeline: pipeline.map([{"xs": list(range(length))} for length in (3, 0, 1)]),
    ),
    "a failing run": ([double, check, mark_checked := node(lambda checked: checked, output_name="last")],
                      lambda pipeline: pipeline.run(x=1)),
    "failing items": ([double, check, mark_checked], lambda pipeline: pipeline.map(rows(6), on_error="return")),
    "an item that ends the map": ([check, mark_checked], lambda pipeline: pipeline.map(rows(6))),
    "batches": ([double, doubled_again], lambda pipeline: pipeline.map(rows(7))),
    "batches inside a map": (
        [each(double, doubled_again), node(lambda again: sum(again), output_name="total")],
        lambda pipeline: pipeline.map([{"xs": list(range(length))} for length in (3, 0, 1, 4)]),
    ),
    "failing items of batches": (
        [double, check_each, mark_checked], lambda pipeline: pipeline.map(rows(6), on_error="return")
    ),
    "an item of a batch that ends the map": (
        [double, check_each, mark_checked], lambda pipeline: pipeline.map(rows(6))
    ),
    "a generator that feeds a map": (
        [count_up, each(double)], lambda pipeline: pipeline.map([{"upto": length} for length in (2, 0, 3)])
    ),
    "a failure inside a map": (
        [double, each(check, node(lambda checked: checked, output_name="last"))],
        lambda pipeline: pipeline.map([{"x": 0, "xs": [0, 2]}, {"x": 1, "xs": [0, 1, 2]}], on_error="return"),
    ),
}  # fmt: skip
"""Pipelines and calls of them, by what they show."""


class ContextContract(Placed):
    """Promises about events and caches, kept wherever nodes run. Each other contract includes them."""

    # events -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", TOLD)
    def test_events_are_those_of_one_node_after_another(self, backend: Any, what: str) -> None:
        nodes, call = TOLD[what]
        trees = []
        for place in (None, backend):
            log = EventLog()
            try:
                call(self.placed(nodes, place, callbacks=[log]))
            except Refused:
                assert "fail" in what or "ends" in what
            trees.append(log.tree())
        assert trees[0] is not None
        assert outline(trees[0]) == outline(trees[1])

    def test_events_of_random_pipelines_are_those_of_one_node_after_another(self, backend: Any) -> None:
        check_random_cases(20, backend, "check_events", backends=[backend])

    def test_events_say_where_and_how_long_each_node_ran(self, backend: Any) -> None:
        log = EventLog()
        self.placed([double], backend, callbacks=[log]).map(rows(5))
        ends = [event for event in log.events if event.kind == "node" and event.phase == "end"]
        assert len(ends) == 5
        assert all(event.place and event.worker and event.seconds is not None for event in ends)
        assert {event.place for event in ends} == {place for _, place in log.run.steps} if log.run else False

    # caches -----------------------------------------------------------------------------------------------------

    def test_warm_run_calls_no_node_and_gives_the_same(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([draw, mark, wait, divide], backend, cache=MemoryCache(), callbacks=[log])
        for items in (rows(10), rows(3)):
            cold = pipeline.map(items)
            compare(cold, pipeline.map(items))
            compare(cold[2], pipeline.run(x=2))
            assert {status for found in log.statuses().values() for status in found} == {"cached"}

    def test_random_pipelines_give_the_same_with_no_cache_an_empty_and_a_full_one(self, backend: Any) -> None:
        check_random_cases(20, backend, "check_cached", backends=[backend], any_order=True)

    def test_more_items_compute_only_what_is_new(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([draw], backend, cache=MemoryCache(), callbacks=[log])
        first = pipeline.map(rows(10), output_name="token")
        more = pipeline.map(rows(15), output_name="token")
        assert more[:10] == first
        assert log.statuses() == {"draw": ["cached"] * 10 + ["ok"] * 5}

    def test_rows_of_a_map_inside_are_kept_one_by_one(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([each(draw)], backend, cache=MemoryCache(), callbacks=[log])
        first = pipeline.run(xs=[1, 2, 3], output_name="token")
        assert pipeline.run(xs=[3, 4, 1], output_name="token")[::2] == [first[2], first[0]]
        assert log.statuses() == {"draw": ["cached", "cached", "ok"]}

    def test_none_is_a_result_like_any_other(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([draw_nothing], backend, cache=MemoryCache(), callbacks=[log])
        assert [pipeline.run(x=1), pipeline.run(x=1)] == [{"nothing": None}] * 2
        assert log.statuses() == {"draw_nothing": ["cached"]}

    def test_failed_items_run_again_from_where_they_failed(self, backend: Any) -> None:
        log = EventLog()
        refuse = node(_refuse_one, output_name="accepted")
        pipeline = self.placed([draw, refuse], backend, cache=MemoryCache(), callbacks=[log])
        for statuses in (["ok"] * 4, ["cached"]):
            found = pipeline.map(rows(4), output_name="accepted", on_error="return")
            assert [isinstance(one, Failure) for one in found] == [False, True, False, False]
            assert log.statuses()["draw"] == statuses
        assert log.statuses()["_refuse_one"] == ["cached", "cached", "cached", "error"]

    def test_node_with_cache_off_always_runs_and_what_follows_goes_by_its_value(self, backend: Any) -> None:
        log = EventLog()
        parity = node(_parity, output_name="token", cache=False)
        pipeline = self.placed([parity, mark], backend, cache=MemoryCache(), callbacks=[log])
        first = pipeline.run(x=1, output_name="marked")
        assert pipeline.run(x=3, output_name="marked") == first
        assert log.statuses() == {"_parity": ["ok"], "mark": ["cached"]}
        assert pipeline.run(x=2, output_name="marked") != first

    def test_pipeline_inside_with_cache_none_always_runs(self, backend: Any) -> None:
        log = EventLog()
        inner = Pipeline(nodes=[mark], name="inner", cache=None)
        pipeline = self.placed([draw, inner], backend, cache=MemoryCache(), callbacks=[log])
        pipeline.run(x=1)
        pipeline.run(x=1)
        assert log.statuses() == {"draw": ["cached"], "mark": ["ok"]}

    def test_dead_worker_loses_nothing_that_was_kept(self, backend: Any) -> None:
        if not self.can_kill_workers:
            pytest.skip("no worker may die here")
        log, caller = EventLog(), os.getpid()

        @node(output_name="y")
        def kill(token: str) -> str:
            if token.startswith("3 ") and os.getpid() != caller:
                os.kill(os.getpid(), signal.SIGKILL)
            return token

        pipeline = self.placed([draw, kill], backend, cache=MemoryCache(), callbacks=[log])
        first = pipeline.map(rows(12), output_name="y", on_error="return")
        again = pipeline.map(rows(12), output_name="y", on_error="return")
        assert isinstance(again.pop(3).error, WorkerLostError)
        del first[3]
        assert again == first
        assert log.statuses()["kill"] == ["cached"] * 11


def _refuse_one(x: Any, token: str) -> str:
    if x == 1:
        raise Refused(f"{x} is refused")
    return token


def _parity(x: Any) -> str:
    return f"parity {x % 2}"
