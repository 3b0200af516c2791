"""What caches keep of runs, what they find again, and that no run is ever the worse for them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypernodes import (
    Cache,
    CacheWarning,
    DiskCache,
    Failure,
    LocalBackend,
    MemoryCache,
    NodeDefinitionError,
    Pipeline,
    node,
)
from hypernodes._cache import Found
from hypernodes._lanes import MOST_LANES
from hypernodes.testing import EventLog


class Noted(MemoryCache):
    """Notes the node of each entry that is saved, and of each that is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[str] = []
        self.loaded: list[str] = []
        self.node_of: dict[str, str] = {}

    def load(self, key: str) -> Found | None:
        found = super().load(key)
        if found is not None:
            self.loaded.append(self.node_of[key])
        return found

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        self.node_of[key] = note["node"]
        self.saved.append(note["node"])
        return super().save(key, value, note)


class Called:
    """Runs a pipeline with a cache and says which nodes really ran."""

    def __init__(self, nodes: list[Any], cache: Any = None, **options: Any) -> None:
        self.log = EventLog()
        self.cache = Noted() if cache is None else cache
        self.pipeline = Pipeline(nodes, name="main", cache=self.cache, callbacks=[self.log], **options)

    def ran(self, **inputs: Any) -> list[str]:
        self.pipeline.run(**inputs)
        return self.nodes("ok")

    def nodes(self, status: str) -> list[str]:
        ends = [event for event in self.log.events if event.kind == "node" and event.phase == "end"]
        return [event.name for event in ends if event.status == status]


@node(output_name="a")
def first(x: Any) -> Any:
    return x, 1


@node(output_name="b")
def second(a: Any) -> Any:
    return a, 2


@node(output_name="c")
def third(b: Any) -> Any:
    return b, 3


@node(output_name=("low", "high"))
def both(x: Any) -> tuple[Any, Any]:
    return (x, -1), (x, 1)


# looking up -------------------------------------------------------------------------------------------------------


def test_hit_upstream_is_not_loaded_when_nobody_needs_it() -> None:
    called = Called([first, second, third])
    called.ran(x=1)
    called.cache.loaded.clear()
    assert called.pipeline.run(x=1, output_name="c") == (((1, 1), 2), 3)
    assert called.cache.loaded == ["third"]


def test_only_the_nearest_hit_is_loaded_for_what_has_to_run() -> None:
    called = Called([first, second, third])
    called.pipeline.run(x=1, output_name="b")
    called.cache.loaded.clear()
    called.pipeline.run(x=1, output_name="c")
    assert (called.nodes("ok"), called.cache.loaded) == (["third"], ["second"])


def test_what_no_wanted_output_needs_is_neither_run_nor_looked_up() -> None:
    called = Called([first, both])
    assert called.pipeline.run(x=1, output_nodes=["a"]) == {"a": (1, 1)}
    assert called.cache.saved == ["first"]


def test_given_output_takes_the_place_of_what_is_kept() -> None:
    called = Called([first, second])
    called.ran(x=1)
    assert called.pipeline.run(x=1, a="mine", output_name="b") == ("mine", 2)
    assert called.pipeline.run(a="mine", output_name="b") == ("mine", 2)
    assert called.nodes("cached") == ["second"]


def test_default_and_the_same_value_given_both_give_the_right_result() -> None:
    power = node(lambda x, by=2: x**by, output_name="power")
    called = Called([power])
    assert [called.pipeline.run(x=3)["power"], called.pipeline.run(x=3, by=3)["power"]] == [9, 27]
    assert called.ran(x=3) == called.ran(x=3, by=3) == []


def test_entry_of_several_outputs_serves_each_of_them() -> None:
    called = Called([both])
    assert called.pipeline.run(x=1, output_name="low") == (1, -1)
    assert called.pipeline.run(x=1, output_name="high") == (1, 1)
    assert called.nodes("cached") == ["both"]


def test_tuple_as_one_value_is_not_taken_for_several() -> None:
    cache = MemoryCache()
    for output, expected in (("pair", {"pair": (1, 2)}), (("one", "two"), {"one": 1, "two": 2})):
        pipeline = Pipeline([node(_pair, output_name=output)], cache=cache)
        assert [pipeline.run(x=1), pipeline.run(x=1)] == [expected] * 2


def _pair(x: Any) -> tuple[int, int]:
    return 1, 2


def test_node_in_two_pipelines_has_its_results_in_common() -> None:
    cache = Noted()
    Called([first, second], cache).ran(x=1)
    assert Called([first, third], cache).ran(x=1, b=0) == ["third"]


def test_pipeline_has_its_results_in_common_with_itself_nested_renamed_and_mapped() -> None:
    cache = Noted()
    inner = Pipeline([first, second], name="inner")
    Called([inner], cache).ran(x=1)
    assert Called([first, second], cache).ran(x=1) == []
    renamed = inner.as_node(input_mapping={"text": "x"}, output_mapping={"b": "other"})
    assert Called([renamed], cache).ran(text=1) == []
    mapped = inner.as_node(input_mapping={"texts": "x"}, map_over="texts")
    assert Called([mapped], cache).ran(texts=[1, 2]) == ["first", "second"]


def test_maps_in_a_map_keep_each_row() -> None:
    cell = Pipeline([first], name="cell").as_node(input_mapping={"row": "x"}, map_over="row")
    table = Pipeline([cell], name="line").as_node(input_mapping={"table": "row"}, map_over="table")
    called = Called([table])
    assert called.ran(table=[[1, 2], [], [3]]) == ["first"] * 3
    assert called.ran(table=[[3], [4, 1]]) == ["first"]
    assert called.ran(table=[]) == []


@pytest.mark.parametrize("over", [["p", "q"], ["q", "p"]])
def test_product_and_zip_are_kept_apart_and_so_is_their_order(over: list[str]) -> None:
    cache = MemoryCache()
    inner = Pipeline([node(lambda p, q: (p, q), output_name="pair")], name="inner")
    after = node(lambda pair: list(pair), output_name="after")
    for mode, names in itertools.product(("zip", "product"), (["p", "q"], ["q", "p"], over)):
        nodes = [inner.as_node(map_over=names, map_mode=mode), after]
        given = {"p": [1, 2], "q": [10, 20]}
        expected = Pipeline(nodes).run(given)
        for _ in range(2):
            assert Pipeline(nodes, cache=cache).run(given) == expected


def test_columns_are_kept_as_rows_are() -> None:
    called = Called([first])
    called.pipeline.map([{"x": 1}, {"x": 2}])
    assert called.pipeline.map(inputs={"x": [2, 3]}, map_over="x") == {"a": [(2, 1), (3, 1)]}
    assert called.nodes("ok") == ["first"]


def test_empty_map_is_empty() -> None:
    called = Called([first])
    assert called.pipeline.map([]) == []
    assert called.pipeline.map(inputs={"x": []}, map_over="x") == {"a": []}


def test_what_follows_an_unkept_node_is_keyed_by_what_it_gave() -> None:
    parity = node(lambda x: x % 2, output_name="a", cache=False)
    called = Called([parity, second])
    called.ran(x=1)
    assert called.ran(x=3) == ["a"]
    assert called.ran(x=2) == ["a", "second"]


# keys -------------------------------------------------------------------------------------------------------------


def compiled(text: str, name: str = "f") -> Callable[..., Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec", dont_inherit=True), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


CHANGES = {
    "its code": ("def f(x):\n    return x + 1\n", "def f(x):\n    return x + 2\n"),
    "a default": ("def f(x, k=1):\n    return x + k\n", "def f(x, k=2):\n    return x + k\n"),
    "a helper": (
        "def g(x):\n    return x + 1\ndef f(x):\n    return g(x)\n",
        "def g(x):\n    return x + 2\ndef f(x):\n    return g(x)\n",
    ),
    "a global": ("K = 1\ndef f(x):\n    return x + K\n", "K = 2\ndef f(x):\n    return x + K\n"),
    "a closure": (
        "def make(k):\n    def f(x):\n        return x + k\n    return f\nf = make(1)\n",
        "def make(k):\n    def f(x):\n        return x + k\n    return f\nf = make(2)\n",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_code_is_a_miss_and_the_old_code_a_hit(change: str) -> None:
    cache = MemoryCache()
    for text, expected in [*zip(CHANGES[change], (2, 3), strict=True)] * 2:
        assert Pipeline([node(compiled(text), output_name="y")], cache=cache).run(x=1) == {"y": expected}
    assert len(cache) == 2


def test_global_that_changes_between_two_runs_is_seen() -> None:
    function = compiled("K = 1\ndef f(x):\n    return x + K\n")
    called = Called([node(function, output_name="y")])
    assert called.pipeline.run(x=1) == {"y": 2}
    function.__globals__["K"] = 2
    assert called.pipeline.run(x=1) == {"y": 3}
    function.__globals__["K"] = 1
    assert called.ran(x=1) == []


@pytest.mark.parametrize("values", [(1, True, 1.0, "1", b"1", [1], (1,), {1}, {1: 1}, np.int64(1), np.array([1]))])
def test_inputs_of_another_type_are_misses(values: tuple[Any, ...]) -> None:
    kind = node(lambda x: type(x).__name__, output_name="kind")
    pipeline = Pipeline([kind], cache=MemoryCache())
    for _ in range(2):
        assert [pipeline.run(x=value)["kind"] for value in values] == [type(value).__name__ for value in values]


def test_rows_that_share_one_object_which_their_iterator_fills_again_are_told_apart() -> None:
    def items() -> Iterator[dict[str, Any]]:
        buffer: list[int] = []
        for number in range(3):
            buffer.append(number)
            yield {"x": buffer}

    expected = [([0], 1), ([0, 1], 1), ([0, 1, 2], 1)]
    copying = node(lambda x: (list(x), 1), output_name="a")
    for given in (items, lambda: ({**row, "unused": 0} for row in items())):
        pipeline = Pipeline([copying, node(lambda a, unused=0: a, output_name="same")], cache=MemoryCache())
        for _ in range(2):
            assert list(pipeline.map_iter(given(), inputs={"unused": 1}, output_name="same")) == expected


class Opaque:
    def __reduce__(self) -> str:
        raise TypeError("no content")


def test_input_without_a_key_is_one_warning_and_the_right_result_and_what_follows_is_kept() -> None:
    called = Called([node(lambda x: 5, output_name="a"), second])
    with pytest.warns(CacheWarning) as warned:
        found = [called.pipeline.run(x=Opaque()) for _ in range(2)]
    assert found == [{"a": 5, "b": (5, 2)}] * 2
    (one,) = warned
    assert "main > a" in str(one.message)
    assert "'x'" in str(one.message)
    assert (called.nodes("ok"), called.nodes("cached")) == (["a"], ["second"])


def test_where_warnings_are_errors_trouble_is_logged_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hypernodes"):
        assert Pipeline([first], cache=MemoryCache()).run(x=Opaque(), output_nodes=["a"])["a"][1] == 1
    assert "cannot be part of a cache key" in caplog.text


# settings ---------------------------------------------------------------------------------------------------------


def test_cache_is_inherited_replaced_and_switched_off() -> None:
    outer, own = Noted(), Noted()
    inherits = Pipeline([second], name="inherits")
    replaces = Pipeline([third], name="replaces", cache=own)
    off = Pipeline([node(lambda c: c, output_name="d")], name="off", cache=None)
    called = Called([first, inherits, replaces, off], outer)
    assert called.ran(x=1) == ["first", "second", "third", "d"]
    assert called.ran(x=1) == ["d"]
    assert (sorted(outer.saved), own.saved) == (["first", "second"], ["third"])


def test_pipeline_that_names_a_cache_keeps_its_own_inside_one_that_names_none() -> None:
    own = Noted()
    inner = Pipeline([first], name="inner", cache=own)
    pipeline = Pipeline([inner.as_node(input_mapping={"xs": "x"}, map_over="xs"), second])
    pipeline.run(xs=[1, 2])
    pipeline.run(xs=[2, 3])
    assert own.saved == ["first"] * 3


def test_one_pipeline_under_two_parents_has_the_cache_of_each() -> None:
    inner = Pipeline([first], name="inner")
    left, right = Called([inner]), Called([inner])
    assert left.ran(x=1) == right.ran(x=1) == ["first"]
    assert left.cache.saved == right.cache.saved == ["first"]


@pytest.mark.parametrize("form", [DiskCache, str, Path])
def test_folder_is_given_as_a_cache_as_text_or_as_a_path(form: Callable[[Path], Any], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    drawn = itertools.count()
    draw = node(lambda x: (x, next(drawn)), output_name="y", cache=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        Pipeline([draw], cache=form(folder)).run(x=1)
    assert Called([first], form(folder)).ran(x=1) == ["first"]
    assert Called([first], DiskCache(folder)).ran(x=1) == []


def test_memory_is_given_by_address() -> None:
    address = "memory:core/tests/test_cache.py"
    assert Called([first], address).ran(x=1) == ["first"]
    assert Called([first], address).ran(x=1) == []


@pytest.mark.parametrize("cache", [3, True, ["a"], b"x", MemoryCache, object()])
def test_what_is_no_cache_is_refused_when_the_pipeline_is_built(cache: Any) -> None:
    with pytest.raises(NodeDefinitionError, match=r"pipeline 'main'.*cache="):
        Pipeline([first], name="main", cache=cache)


def test_pipeline_that_was_pickled_keeps_its_cache(tmp_path: Path) -> None:
    pipeline = Pipeline([first], cache=DiskCache(tmp_path / "cache"))
    pipeline.run(x=1)
    assert len(list(pickle.loads(pickle.dumps(pipeline)).cache.notes("first"))) == 1


# what goes wrong --------------------------------------------------------------------------------------------------


class Failing(Cache):
    """Breaks every promise of a cache."""

    def __init__(self, load: Any = None, save: Any = None) -> None:
        self._load, self._save = load, save

    def load(self, key: str) -> Any:
        return _raised(self._load)

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> Any:
        return _raised(self._save)


def _raised(what: Any) -> Any:
    if isinstance(what, BaseException):
        raise what
    return what


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        (Failing(load=OSError("gone")), r"load\(\) raised OSError: gone"),
        (Failing(save=RuntimeError("full")), r"'first' is not kept: save\(\) raised RuntimeError: full"),
        (Failing(load="a value"), r"load\(\) gave str, not a Found"),
    ],
)
def test_cache_that_breaks_its_promise_costs_one_warning_and_no_result(cache: Cache, said: str) -> None:
    pipeline = Pipeline([first, second], cache=cache)
    with pytest.warns(CacheWarning, match=said) as warned:
        assert pipeline.map([{"x": x} for x in range(5)], output_name="b") == [((x, 1), 2) for x in range(5)]
    assert len(warned) == 1


def test_entry_of_another_shape_is_a_miss() -> None:
    assert Pipeline([first], cache=Failing(load=Found("no tuple"))).run(x=1) == {"a": (1, 1)}
    assert Pipeline([both], cache=Failing(load=Found((1,)))).run(x=1)["low"] == (1, -1)


def test_result_that_cannot_be_kept_is_one_warning_and_the_result() -> None:
    called = Called([node(lambda x: threading.Lock(), output_name="guard"), node(lambda guard, x: x, output_name="y")])
    with pytest.warns(CacheWarning, match="cannot be pickled") as warned:
        found = [called.pipeline.run(x=x)["y"] for x in (1, 2)]
    assert found == [1, 2]
    assert len(warned) == 1


def test_failure_in_front_of_a_hit_is_the_same_failure_as_without() -> None:
    @node(output_name="a")
    def refuse(x: Any) -> Any:
        raise ValueError(x)

    called = Called([refuse, second])
    for _ in range(2):
        (found,) = called.pipeline.map([{"x": 1}], on_error="return")
        assert isinstance(found, Failure)
        assert (found.path, found.items) == (("main", "refuse"), (0, None))


# how it runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [None, MemoryCache()])
def test_nodes_run_in_the_same_order_with_a_cache_as_without(cache: Any) -> None:
    order = EventLog()
    cell = Pipeline([node(lambda a, x: (a, x), output_name="m"), node(lambda m: m, output_name="n")], name="cell")
    nodes = [first, cell.as_node(input_mapping={"xs": "x"}, map_over="xs"), second, third]
    pipeline = Pipeline(nodes, cache=cache, callbacks=[order])
    pipeline.map([{"x": 1, "xs": [1, 2]}, {"x": 2, "xs": [3]}])
    starts = [(event.name, event.items) for event in order.events if (event.kind, event.phase) == ("node", "start")]
    plain = EventLog()
    pipeline.with_options(cache=None, callbacks=[plain]).map([{"x": 1, "xs": [1, 2]}, {"x": 2, "xs": [3]}])
    expected = [(event.name, event.items) for event in plain.events if (event.kind, event.phase) == ("node", "start")]
    assert starts == expected


@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_endless_items_are_drawn_a_bounded_step_ahead_with_a_cache(engine: str) -> None:
    drawn: list[int] = []

    def items() -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            drawn.append(number)
            yield {"x": number % 50}

    with LocalBackend(engine=engine) as backend:
        called = Called([first, second], backend=backend)
        with closing(called.pipeline.map_iter(items(), output_name="b")) as stream:
            assert list(itertools.islice(stream, 100)) == [((x % 50, 1), 2) for x in range(100)]
        assert len(drawn) < (102 if engine == "sequential" else 2_000)


def test_memory_of_a_long_stream_does_not_grow_with_a_cache(tmp_path: Path) -> None:
    blob = node(lambda x: bytes(100_000) + bytes([x % 4]), output_name="blob")
    size = node(lambda blob: len(blob), output_name="size")
    stream = Pipeline([blob, size], cache=DiskCache(tmp_path / "cache")).map_iter(
        ({"x": number} for number in itertools.count()), output_name="size"
    )
    next(stream)
    tracemalloc.start()
    try:
        for _ in range(60):
            next(stream)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
        stream.close()


@pytest.mark.parametrize("cache", [None, MemoryCache()])
def test_coroutine_nodes_run_on_the_callers_loop_with_a_cache_as_without(cache: Any) -> None:
    loops: list[Any] = []

    @node(output_name="y", cache=False)
    async def where(x: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        return x

    pipeline = Pipeline([where, node(lambda y: y, output_name="z")], cache=cache, backend=LocalBackend(engine="async"))

    async def main() -> None:
        assert await pipeline.amap([{"x": 1}, {"x": 2}], output_name="z") == [1, 2]
        assert await pipeline.arun(x=1, output_name="z") == 1
        assert set(loops) == {asyncio.get_running_loop()}

    asyncio.run(main())


def test_two_threads_share_one_pipeline_and_one_cache() -> None:
    called = Called([first, second, third])
    results: list[Any] = []

    def use(base: int) -> None:
        pipeline = called.pipeline.with_options(callbacks=[]) if base else called.pipeline
        for start in range(base, base + 40, 10):
            results.append(pipeline.map([{"x": x} for x in range(start, start + 20)], output_name="c"))
            results.append([pipeline.run(x=start, output_name="c")])

    threads = [threading.Thread(target=use, args=(base,)) for base in (0, 0, 5, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 32
    for found in results:
        start = found[0][0][0][0]
        assert found == [(((x, 1), 2), 3) for x in range(start, start + len(found))]


def test_many_choices_of_what_to_run_do_not_each_keep_a_thread() -> None:
    pytest.importorskip("hypernodes_local_threaded")
    names = ["x", *(f"v{at}" for at in range(30))]
    chain = [
        node(compiled(f"def f({source}):\n    return {source}, {made!r}\n"), output_name=made)
        for source, made in itertools.pairwise(names)
    ]
    most: list[int] = []
    called = Called(chain, backend=LocalBackend(engine="threaded", max_workers=2))
    for x, name in enumerate(names[1:]):
        called.pipeline.run(x=x, output_nodes=[name])
    before = threading.active_count()
    counting = called.pipeline.with_options(callbacks=[lambda event: most.append(threading.active_count())])
    counting.map([{"x": x} for x in range(30)])
    assert max(most) - before < MOST_LANES + 8
    assert threading.active_count() <= before


def test_items_of_a_place_take_turns_with_a_cache_as_without() -> None:
    pytest.importorskip("hypernodes_local_threaded")
    now, most = [0], [0]

    @node(output_name="b", cache=False)
    def watch(a: Any) -> Any:
        now[0] += 1
        most[0] = max(most[0], now[0])
        threading.Event().wait(0.002)
        now[0] -= 1
        return a

    backend = LocalBackend(engine="threaded", node_execution="parallel", map_execution="sequential", max_workers=4)
    called = Called([first, watch, third], backend=backend)
    for x in range(0, 12, 2):
        called.pipeline.run(x=x, output_name="a")
    called.pipeline.map([{"x": x} for x in range(12)])
    assert most == [1]
