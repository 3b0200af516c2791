"""What a cache does to runs: what is found, what is loaded, what is kept, and what never has a key."""

from __future__ import annotations

import asyncio
import itertools
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hypernodes import (
    Cache,
    CacheWarning,
    DiskCache,
    Event,
    Failure,
    LocalBackend,
    MemoryCache,
    NodeDefinitionError,
    Pipeline,
    node,
)


class Recording(MemoryCache):
    """Which keys were looked for, which were found, and what was kept of which node."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []
        self.found: list[str] = []
        self.kept: list[str] = []

    def load(self, key: str) -> Any:
        found = super().load(key)
        self.looked.append(key)
        if found is not None:
            self.found.append(key)
        return found

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        self.kept.append(str(note["node"]))
        return super().save(key, value, note)


def ran(pipeline: Pipeline, *arguments: Any, **inputs: Any) -> tuple[Any, list[str]]:
    """What a run gives, and the nodes that were called for it, in their order."""
    events: list[Event] = []
    result = pipeline.with_options(callbacks=[events.append]).run(*arguments, **inputs)
    return result, called(events)


def called(events: list[Event]) -> list[str]:
    return [
        event.name for event in events if event.kind == "node" and event.phase == "end" and event.status != "cached"
    ]


@node(output_name="a")
def first(x: Any) -> Any:
    return [x]


@node(output_name="b")
def second(a: Any) -> Any:
    return [*a, "b"]


@node(output_name="c")
def third(b: Any, y: Any = 0) -> Any:
    return [*b, y]


@node(output_name=("low", "high"))
def pair(x: Any) -> Any:
    return x, None


# what is found


def test_second_run_calls_nothing_and_gives_the_same() -> None:
    pipeline = Pipeline([first, second, third], cache=MemoryCache())
    assert ran(pipeline, x=1) == ({"a": [1], "b": [1, "b"], "c": [1, "b", 0]}, ["first", "second", "third"])
    assert ran(pipeline, x=1) == ({"a": [1], "b": [1, "b"], "c": [1, "b", 0]}, [])


def test_only_what_hangs_on_another_input_runs_again() -> None:
    pipeline = Pipeline([first, second, third], cache=MemoryCache())
    ran(pipeline, x=1)
    assert ran(pipeline, x=1, y=5)[1] == ["third"]
    assert ran(pipeline, x=2)[1] == ["first", "second", "third"]


def test_a_result_that_is_not_needed_is_not_even_looked_for() -> None:
    cache = Recording()
    pipeline = Pipeline([first, second, third], cache=cache)
    ran(pipeline, x=1)
    cache.looked.clear()
    assert ran(pipeline, x=1, output_name="c") == ([1, "b", 0], [])
    assert len(cache.looked) == len(cache.found) == 1


def test_a_hit_upstream_is_loaded_when_something_after_it_runs() -> None:
    cache = Recording()
    pipeline = Pipeline([first, second, third], cache=cache)
    ran(pipeline, x=1)
    cache.looked.clear()
    assert ran(pipeline, x=1, y=7, output_name="c") == ([1, "b", 7], ["third"])
    assert len(cache.looked) == 2  # third, then second; first is not asked for


def test_none_and_several_outputs_are_kept() -> None:
    pipeline = Pipeline([pair], cache=MemoryCache())
    assert ran(pipeline, x=1)[0] == ran(pipeline, x=1)[0] == {"low": 1, "high": None}
    assert ran(pipeline, x=1, output_name="high") == (None, [])


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations([1, True, 1.0, "1", [1], (1,), b"1", None, 0.0, -0.0], 2))
)
def test_inputs_of_another_type_are_other_inputs(one: Any, other: Any) -> None:
    pipeline = Pipeline([first], cache=MemoryCache())
    ran(pipeline, x=one)
    result, nodes = ran(pipeline, x=other, output_name="a")
    assert nodes == ["first"]
    assert type(result[0]) is type(other)


def test_an_override_counts_by_its_content() -> None:
    pipeline = Pipeline([first, second, third], cache=MemoryCache())
    ran(pipeline, x=1)
    assert ran(pipeline, a=[1], output_name="b") == ([1, "b"], ["second"])
    assert ran(pipeline, a=[1], output_name="b")[1] == []


def test_the_same_function_in_two_pipelines_shares_its_results() -> None:
    cache = MemoryCache()
    ran(Pipeline([first, second], name="one", cache=cache), x=1)
    renamed = Pipeline([first], name="inner").as_node({"given": "x"}, {"a": "made"})
    assert ran(Pipeline([renamed], name="two", cache=cache), given=1) == ({"made": [1]}, [])


def made(k: int, default: int = 0) -> Any:
    @node(output_name="made")
    def make(x: int, plus: int = default) -> int:
        return helper(x) * k + plus

    return make


STEP = 1


def helper(x: int) -> int:
    return x + STEP


def test_other_closures_defaults_helpers_and_globals_are_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MemoryCache()

    def calls(make: Any) -> list[str]:
        return ran(Pipeline([make], cache=cache), x=1)[1]

    assert calls(made(2)) == ["make"]
    assert calls(made(2)) == []
    assert calls(made(3)) == ["make"]
    assert calls(made(2, 1)) == ["make"]
    monkeypatch.setattr(f"{__name__}.STEP", 2)
    assert calls(made(2)) == ["make"]
    monkeypatch.setattr(f"{__name__}.STEP", 1)
    assert calls(made(2)) == []
    monkeypatch.setattr(f"{__name__}.helper", lambda x: x - 1)
    assert calls(made(2)) == ["make"]


def test_a_global_that_changes_between_two_runs_of_one_pipeline_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline([made(2)], cache=MemoryCache())
    assert pipeline.run(x=1, output_name="made") == 4
    monkeypatch.setattr(f"{__name__}.STEP", 5)
    assert pipeline.run(x=1, output_name="made") == 12


# maps


def test_each_item_is_kept_by_itself() -> None:
    events: list[Event] = []
    pipeline = Pipeline([first, second], cache=MemoryCache(), callbacks=[events.append])
    assert pipeline.map([{"x": x} for x in range(100)], output_name="b") == [[x, "b"] for x in range(100)]
    events.clear()
    assert pipeline.map([{"x": x} for x in range(-25, 125)], output_name="b") == [[x, "b"] for x in range(-25, 125)]
    assert len(called(events)) == 2 * 50


@pytest.mark.parametrize("mode", ["zip", "product"])
def test_rows_of_a_mapped_pipeline_are_kept_by_content(mode: str) -> None:
    @node(output_name="sum")
    def add(p: int, q: int) -> int:
        return p + q

    nested = Pipeline([add], name="inner").as_node({"ps": "p", "qs": "q"}, map_over=["ps", "qs"], map_mode=mode)
    pipeline = Pipeline([nested], cache=MemoryCache())
    ran(pipeline, ps=[1, 2], qs=[10, 20])
    result, nodes = ran(pipeline, ps=[2, 1], qs=[20, 10], output_name="sum")
    assert result == ([22, 11] if mode == "zip" else [22, 12, 21, 11])
    assert nodes == []
    assert ran(pipeline, ps=[1, 2, 3], qs=[10, 20, 30], output_name="sum")[1] == ["add"] * (1 if mode == "zip" else 5)


def test_what_follows_a_mapped_pipeline_is_found_without_its_rows() -> None:
    cache = Recording()
    total = node(lambda many: len(many), output_name="total")
    nested = Pipeline([first], name="inner").as_node({"xs": "x"}, {"a": "many"}, map_over="xs")
    pipeline = Pipeline([nested, total], cache=cache)
    ran(pipeline, xs=[1, 2, 3])
    cache.looked.clear()
    assert ran(pipeline, xs=[1, 2, 3], output_name="total") == (3, [])
    assert len(cache.looked) == 1


def test_failures_are_not_kept_and_what_was_made_before_them_is() -> None:
    @node(output_name="b")
    def refuse(a: Any) -> Any:
        if a == [2]:
            raise ValueError("2 is refused")
        return a

    events: list[Event] = []
    pipeline = Pipeline([first, refuse], cache=MemoryCache(), callbacks=[events.append])
    for expected in (["first", "refuse"] * 3, ["refuse"]):
        events.clear()
        found = pipeline.map([{"x": x} for x in (1, 2, 3)], output_name="b", on_error="return")
        assert [type(one) is Failure for one in found] == [False, True, False]
        assert found[1].where == "pipeline (item 1) > refuse"
        assert called(events) == expected


def test_one_item_after_another_with_a_cache_too() -> None:
    events: list[Event] = []
    nested = Pipeline([first, second], name="inner").as_node({"xs": "x"}, map_over="xs")
    pipeline = Pipeline([nested], cache=MemoryCache(), callbacks=[events.append])
    pipeline.map([{"xs": [1, 2]}, {"xs": [3]}])
    assert called(events) == ["first", "second"] * 3


def test_an_endless_map_stays_lazy() -> None:
    drawn = itertools.count()
    pipeline = Pipeline([first], cache=MemoryCache())
    stream = pipeline.map_iter(({"x": number} for number in drawn), output_name="a")
    assert list(itertools.islice(stream, 100)) == [[number] for number in range(100)]
    stream.close()
    assert next(drawn) < 2000


def test_no_items_give_nothing() -> None:
    pipeline = Pipeline([first], cache=MemoryCache())
    assert pipeline.map([]) == []
    assert pipeline.map(inputs={"x": []}, map_over="x") == {"a": []}


# what is not kept


def test_a_node_with_cache_off_always_runs_and_what_follows_goes_by_its_value() -> None:
    @node(output_name="a", cache=False)
    def fresh(x: Any) -> Any:
        return x // 10

    listed = node(lambda a: [a], output_name="listed")
    pipeline = Pipeline([fresh, listed], cache=MemoryCache())
    assert ran(pipeline, x=10) == ({"a": 1, "listed": [1]}, ["fresh", "listed"])
    assert ran(pipeline, x=15) == ({"a": 1, "listed": [1]}, ["fresh"])
    assert ran(pipeline, x=25) == ({"a": 2, "listed": [2]}, ["fresh", "listed"])


def test_cache_none_switches_a_nested_pipeline_off() -> None:
    inner = Pipeline([second], name="inner", cache=None)
    pipeline = Pipeline([first, inner, third], cache=MemoryCache())
    ran(pipeline, x=1)
    assert ran(pipeline, x=1)[1] == ["second"]


def test_a_nested_pipeline_keeps_to_its_own_cache() -> None:
    outer, own = Recording(), Recording()
    pipeline = Pipeline([first, Pipeline([second], name="inner", cache=own), third], cache=outer)
    ran(pipeline, x=1)
    assert (outer.kept, own.kept) == (["first", "third"], ["second"])
    assert ran(pipeline, x=1)[1] == []


def test_an_input_without_a_key_is_named_once_and_costs_no_result() -> None:
    pipeline = Pipeline([node(lambda lock: 3, output_name="made", name="make")], name="main", cache=MemoryCache())
    lock = threading.Lock()
    with pytest.warns(CacheWarning) as caught:
        assert [pipeline.run(lock=lock) for _ in range(3)] == [{"made": 3}] * 3
    (one,) = caught
    assert "node 'main > make'" in str(one.message)
    assert "'lock'" in str(one.message)
    assert "__cache_key__" in str(one.message)


def test_code_without_a_key_is_named_once_and_costs_no_result() -> None:
    numbers = iter(range(100))
    pipeline = Pipeline(
        [node(lambda x: next(numbers), output_name="made", name="make")], name="main", cache=MemoryCache()
    )
    with pytest.warns(CacheWarning, match="results of node 'main > make' are not cached") as caught:
        assert pipeline.map([{"x": 1}, {"x": 1}], output_name="made") == [0, 1]
    assert len(caught) == 1


class Broken(Cache):
    """A cache of somebody else's that keeps none of its promises."""

    def load(self, key: str) -> Any:
        raise OSError("no shelf")

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        raise OSError("no ink")


def test_a_broken_cache_costs_no_result() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert Pipeline([first, second], cache=Broken()).map([{"x": 1}, {"x": 2}], output_name="b") == [
            [1, "b"],
            [2, "b"],
        ]
    assert {warning.category for warning in caught} == {CacheWarning}
    assert len(caught) == 2


# who names it


def test_a_path_a_folder_and_an_address_name_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for cache in ("kept", tmp_path / "kept", DiskCache(tmp_path / "kept")):
        pipeline = Pipeline([first], cache=cache)
        monkeypatch.chdir("/")
        pipeline.run(x=1)
        monkeypatch.chdir(tmp_path)
    assert len(list((tmp_path / "kept").glob("??/*"))) == 1
    ran(Pipeline([first], cache="memory:shared-name"), x=1)
    assert ran(Pipeline([first], cache="memory:shared-name"), x=1)[1] == []


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        (3, "pipeline 'main': cache=3 is no cache; give one, such as DiskCache('.cache')"),
        (MemoryCache, "pipeline 'main': cache=MemoryCache is a class; call it: MemoryCache(...)"),
    ],
)
def test_what_is_no_cache_is_refused_when_the_pipeline_is_built(cache: Any, message: str) -> None:
    with pytest.raises(NodeDefinitionError) as caught:
        Pipeline([first], name="main", cache=cache)
    assert str(caught.value).startswith(message)


# at once, and elsewhere


def test_two_threads_may_run_one_pipeline(tmp_path: Path) -> None:
    pipeline = Pipeline([first, second], cache=DiskCache(tmp_path))
    both = threading.Barrier(2)
    results: list[Any] = []

    def call() -> None:
        both.wait(30)
        results.append(pipeline.map([{"x": x} for x in range(200)], output_name="b"))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[[x, "b"] for x in range(200)]] * 2


def test_coroutine_nodes_stay_on_the_callers_loop() -> None:
    @node(output_name="same", cache=False)
    async def compare(x: Any, owner: Any) -> bool:
        return asyncio.get_running_loop() is owner

    async def call(backend: LocalBackend) -> Any:
        pipeline = Pipeline([first, compare], cache=MemoryCache(), backend=backend)
        owner = asyncio.get_running_loop()
        one = await pipeline.arun(x=1, owner=owner, output_name="same")
        many = await pipeline.amap([{"x": 1}, {"x": 2}], inputs={"owner": owner}, output_name="same")
        return one, many

    for engine in ("sequential", "async"):
        assert asyncio.run(call(LocalBackend(engine=engine))) == (True, [True, True])
