"""What is special about the Daft engine: its options, what overlaps, and what it refuses."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from hypernodes import DaftEngine, Failure, IncompatibleEngineError, LocalBackend, Pipeline, failure_of, node
from hypernodes.testing import compare

GENEROUS = 60.0


def on_daft(*nodes: Any, max_workers: int | None = None, **options: Any) -> Pipeline:
    return Pipeline(nodes=list(nodes), backend=LocalBackend(engine=DaftEngine(**options), max_workers=max_workers))


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


# options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["partitions", "batch_size", "window"])
@pytest.mark.parametrize("count", [0, -1, 2.5, "50", True])
def test_count_that_is_none_is_refused_when_the_engine_is_made(option: str, count: Any) -> None:
    with pytest.raises(ValueError, match=f"DaftEngine: {option}={count!r}; give a whole number, 1 or more"):
        DaftEngine(**{option: count})


def test_partitions_and_batch_size_say_the_same_thing_twice() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        DaftEngine(partitions=5, batch_size=10)


def test_runner_that_daft_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="runner='dask'; Daft has the runners 'native' and 'ray'"):
        DaftEngine(runner="dask")


@pytest.mark.parametrize("option", ["partitions", "window"])
def test_options_that_mean_nothing_on_ray_are_refused(option: str) -> None:
    cut: dict[str, int] = {option: 5}
    with pytest.raises(ValueError, match=f"{option}=5 means nothing with runner='ray', .*: batch_size=100"):
        DaftEngine(runner="ray", **cut)


def test_runner_for_ray_needs_a_place_that_has_ray() -> None:
    with pytest.raises(IncompatibleEngineError, match=r"requires 'ray.runtime', and backend 'local' provides"):
        LocalBackend(engine=DaftEngine(runner="ray"))


@pytest.mark.parametrize("option", ["node_execution", "map_execution"])
def test_modes_are_refused_with_the_reason(option: str) -> None:
    named: dict[str, Any] = {option: "parallel"}
    with pytest.raises(IncompatibleEngineError, match="schedules nodes and items itself"):
        LocalBackend(engine=DaftEngine(), **named)


@pytest.mark.parametrize(
    "options",
    [{"partitions": 1}, {"partitions": 7}, {"partitions": 500}, {"batch_size": 1}, {"batch_size": 13}, {"window": 9}],
)
def test_how_rows_are_cut_changes_nothing(options: dict[str, int]) -> None:
    @node(output_name="half")
    def halve(x: int) -> float:
        return x / 2

    @node(output_name="pair", batch_size=4)
    def pair(x: list[int], half: list[float]) -> list[tuple[int, float]]:
        assert len(x) <= 4
        return list(zip(x, half, strict=True))

    found = on_daft(halve, pair, **options).map(rows(40), output_name="pair")
    compare([(x, x / 2) for x in range(40)], found)


def test_batch_nodes_get_whole_batches() -> None:
    sizes: list[int] = []

    @node(output_name="y", batch_size=8)
    def note(x: list[int]) -> list[int]:
        sizes.append(len(x))
        return x

    assert on_daft(note, batch_size=30).map(rows(64), output_name="y") == list(range(64))
    assert sizes == [8] * 8


# values ---------------------------------------------------------------------------------------------------------------


def test_values_stay_the_very_objects_they_are() -> None:
    lock = threading.Lock()
    odd = [lock, 2**80, None, [1, "a", None], (1, 2), {1: 2}, {"a": {"b": ()}}, float("nan"), ValueError("value")]
    same = node(lambda x: x, output_name="same")
    again = node(lambda same: same, output_name="again")
    found = on_daft(same, again).map([{"x": one} for one in odd], output_name="again")
    assert all(one is other for one, other in zip(found, odd, strict=True))


def test_functions_that_cannot_be_pickled_run() -> None:
    lock = threading.Lock()

    @node(output_name="y")
    def guarded(x: int) -> int:
        with lock:
            return x + 1

    assert on_daft(guarded).map(rows(10), output_name="y") == list(range(1, 11))


def test_failing_item_gives_its_index_its_node_and_the_very_exception() -> None:
    raised: list[BaseException] = []

    @node(output_name="y")
    def refuse(x: int) -> int:
        if x == 17:
            raised.append(KeyError("seventeen"))
            raise raised[0]
        return x

    after = node(lambda y: -y, output_name="z")
    with pytest.raises(KeyError) as caught:
        on_daft(refuse, after).map(rows(40))
    failure = failure_of(caught.value)
    assert failure is not None
    assert (caught.value is raised[0], failure.item, failure.node) == (True, 17, "refuse")
    assert caught.traceback[-1].name == "refuse"
    raised.clear()
    found = on_daft(refuse, after).map(rows(40), on_error="return", output_name="z")
    assert [at for at, one in enumerate(found) if isinstance(one, Failure)] == [17]


def test_earliest_of_several_failures_is_the_one_that_is_told() -> None:
    first = node(lambda x: 1 // (x - 3), output_name="first")
    second = node(lambda x: ()[x], output_name="second")
    last = node(lambda first, second: 0, output_name="last")
    found = on_daft(first, second, last, batch_size=2).map(rows(6), on_error="return", output_name="last")
    assert [one.node for one in found] == ["second", "second", "second", "first", "second", "second"]


# what overlaps --------------------------------------------------------------------------------------------------------


def test_as_many_coroutines_are_awaited_as_max_workers_says() -> None:
    now, most = 0, 0

    @node(output_name="y")
    async def wait(x: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return x

    assert on_daft(wait, max_workers=7, batch_size=10).map(rows(200), output_name="y") == list(range(200))
    assert most == 7


def test_functions_that_wait_overlap_beyond_the_cores() -> None:
    together = threading.Barrier(24)

    @node(output_name="y")
    def wait(x: int) -> int:
        together.wait(GENEROUS)
        return x

    assert on_daft(wait, max_workers=24).map(rows(24), output_name="y") == list(range(24))


def test_functions_and_coroutines_share_one_budget() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def step(by: int) -> None:
        nonlocal now, most
        with lock:
            now += by
            most = max(most, now)

    pause = threading.Event()

    @node(output_name="plain")
    def plain(x: int) -> int:
        step(1)
        pause.wait(0.002)
        step(-1)
        return x

    @node(output_name="later")
    async def later(x: int) -> int:
        step(1)
        await asyncio.sleep(0.002)
        step(-1)
        return x

    found = on_daft(plain, later, max_workers=3, batch_size=4).map(rows(60))
    assert found == [{"plain": x, "later": x} for x in range(60)]
    assert most <= 3


def test_context_variables_reach_functions_and_coroutines() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @node(output_name="later")
    async def later(x: int) -> str:
        return variable.get()

    token = variable.set("set")
    try:
        found = on_daft(node(lambda x: variable.get(), output_name="plain"), later).map(rows(3))
    finally:
        variable.reset(token)
    assert found == [{"plain": "set", "later": "set"}] * 3


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_node_that_raises_an_interrupt_ends_the_run(kind: str) -> None:
    def plain(x: int) -> int:
        if x == 5:
            raise KeyboardInterrupt
        return x

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return plain(x)

    pipeline = on_daft(node(plain if kind == "plain" else later, output_name="y"), batch_size=2)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            pipeline.map(rows(100))
    assert pipeline.map(rows(5), output_name="y") == list(range(5))


def test_stream_draws_two_windows_at_most() -> None:
    drawn = 0

    def endless() -> Iterator[dict[str, int]]:
        nonlocal drawn
        for drawn in itertools.count(1):
            yield {"x": drawn}

    stream = on_daft(node(lambda x: x, output_name="y"), window=10).map_iter(endless(), output_name="y")
    with closing(stream):
        for wanted in range(1, 200):
            assert next(stream) == wanted
            assert drawn <= wanted + 3 * 10


def test_nothing_begins_after_a_stream_is_closed() -> None:
    begun: list[int] = []
    first, gate, two = threading.Event(), threading.Event(), threading.Semaphore(0)

    @node(output_name="y")
    def wait(x: int) -> int:
        begun.append(x)
        if x == 0:
            first.set()
        elif first.is_set():  # Daft hands out rows in any order: none may hold up the one that is waited for
            two.release()
            gate.wait(GENEROUS)
        return x

    stream = on_daft(wait, max_workers=2, batch_size=1).map_iter(rows(200), output_name="y")
    with closing(stream):
        assert next(stream) == 0
        for _ in range(2):
            assert two.acquire(timeout=GENEROUS)
    known = list(begun)
    gate.set()
    for thread in [one for one in threading.enumerate() if one.name.startswith("hypernodes-daft-node")]:
        thread.join(GENEROUS)
    assert begun == known


def test_failure_in_a_stream_leaves_what_comes_after_it_alone() -> None:
    begun: list[int] = []

    @node(output_name="y")
    def refuse(x: int) -> int:
        begun.append(x)
        if x == 0:
            raise KeyError(x)
        return x

    with pytest.raises(KeyError):
        on_daft(refuse, window=5, max_workers=1).map({"x": x} for x in range(100_000))
    assert len(begun) < 1000


# a query inside a query -----------------------------------------------------------------------------------------------


def test_node_that_maps_on_daft_itself_does_not_wait_for_itself() -> None:
    inner = on_daft(node(lambda x: x + 1, output_name="y"))
    outer = node(lambda x: inner.map(rows(x), output_name="y"), output_name="ys")

    @node(output_name="zs")
    async def later(x: int) -> Any:
        return await inner.amap(rows(x), output_name="y")

    found = on_daft(outer, later, batch_size=1).map(rows(20))
    assert found == [{"ys": list(range(1, x + 1)), "zs": list(range(1, x + 1))} for x in range(20)]


def test_nested_pipeline_with_an_engine_of_its_own_runs() -> None:
    inner = on_daft(node(lambda x: x + 1, output_name="y"), batch_size=3)
    cell = inner.as_node(input_mapping={"xs": "x"}, map_over="xs")
    pipeline = on_daft(cell, node(lambda y: sum(y), output_name="total"))
    found = pipeline.map([{"xs": list(range(n))} for n in range(12)], output_name="total")
    assert found == [sum(range(1, n + 1)) for n in range(12)]


def test_maps_from_several_threads_run_at_once() -> None:
    together = threading.Barrier(3)

    @node(output_name="y")
    def meet(x: int) -> int:
        if x == 0:
            together.wait(GENEROUS)
        return x

    pipeline = on_daft(meet)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(pipeline.map(rows(50), output_name="y"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS)
    assert found == [list(range(50))] * 3


# explain --------------------------------------------------------------------------------------------------------------


def test_explain_shows_dafts_plan_with_the_users_own_names() -> None:
    @node(output_name="doubled")
    def double(x: int) -> int:
        raise AssertionError("nothing runs")

    inner = Pipeline(nodes=[node(lambda each: each, output_name="kept")], name="cell")
    cell = inner.as_node(input_mapping={"xs": "each"}, map_over="xs")
    last = node(lambda doubled, kept: 0, output_name="last")
    pipeline = Pipeline(nodes=[double, cell, last], name="main", backend=LocalBackend(engine=DaftEngine(batch_size=12)))
    (text,) = pipeline.explain().sketches.values()
    first, mapped, inside, second = (
        text.index(word) for word in ("UDF double", "'main > cell'", "cell.kept", "UDF last")
    )
    assert first < mapped < inside < second
    assert "batch_size = 12" in text
    assert text == pipeline.explain().sketches["local:daft"]
    assert "local:daft lays it out as\n* UDF double" in str(pipeline.explain())
