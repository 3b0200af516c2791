"""Batch nodes: called with lists, giving lists, and nothing else changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypernodes import (
    BatchLengthError,
    Failure,
    LocalBackend,
    NodeDefinitionError,
    NodeTimeoutError,
    OutputCountError,
    Pipeline,
    PipelineTimeoutError,
    TypeMismatchError,
    failure_of,
    node,
)
from hypernodes._compile import compile_plan
from hypernodes._task import Stage, run_rows, run_step
from hypernodes.testing import EventLog, normalised

BATCHES: list[list[Any]] = []


@pytest.fixture(autouse=True)
def no_batches_yet() -> Iterator[None]:
    BATCHES.clear()
    yield
    BATCHES.clear()


def sizes() -> list[int]:
    return [len(batch) for batch in BATCHES]


@node(output_name="cleaned")
def clean(text: str) -> str:
    return text.strip()


@node(output_name="length", batch_size=4)
def measure(cleaned: list[str]) -> list[int]:
    BATCHES.append(list(cleaned))
    return [len(text) for text in cleaned]


@node(output_name="double")
def twice(length: int) -> int:
    return 2 * length


@node(output_name="inverse", batch_size=4)
def invert(number):
    BATCHES.append(list(number))
    return [1 / one for one in number]


def texts(count: int) -> list[dict[str, str]]:
    return [{"text": " " + "a" * at} for at in range(count)]


def numbers(*values: Any) -> list[dict[str, Any]]:
    return [{"number": value} for value in values]


def stage_of(pipeline: Pipeline, given: tuple[str, ...], **options: Any) -> Stage:
    plan = compile_plan(pipeline, given, pipeline.graph.outputs, LocalBackend())
    return Stage(pipeline.name, plan.steps, plan.inputs, plan.outputs, **options)


# --- what a batch node is given


def test_a_map_gives_a_batch_node_lists_of_its_size() -> None:
    found = Pipeline([clean, measure, twice]).map(texts(10))
    assert found == [{"cleaned": "a" * at, "length": at, "double": 2 * at} for at in range(10)]
    assert sizes() == [4, 4, 2]


def test_a_run_is_a_batch_of_one() -> None:
    assert Pipeline([clean, measure, twice]).run(text=" abc ") == {"cleaned": "abc", "length": 3, "double": 6}
    assert BATCHES == [["abc"]]


def test_columns_and_bare_values_come_in_batches_too() -> None:
    pipeline = Pipeline([clean, measure])
    assert pipeline.map(texts(6), output_name="length") == [0, 1, 2, 3, 4, 5]
    assert pipeline.map(inputs={"text": ["a", "bb"]}, map_over="text", output_name="length") == [1, 2]
    columns = {"text": ["a", "b"], "other": [1, 2]}
    crossed = Pipeline([clean, measure, lambda_of("other")])
    found = crossed.map(inputs=columns, map_over=["text", "other"], map_mode="product", output_nodes=["length"])
    assert found == {"length": [1, 1, 1, 1]}
    assert sizes() == [4, 2, 2, 4]


def lambda_of(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(f"def kept({name}): return {name}", scope)
    return node(scope["kept"])


def test_what_all_items_share_stays_single() -> None:
    @node(batch_size=3)
    def weigh(word, weights):
        return [weights[one] for one in word]

    items = [{"word": word} for word in "abcab"]
    assert Pipeline([weigh]).map(items, inputs={"weights": {"a": 1, "b": 2, "c": 3}}, output_name="weigh") == [
        *(1, 2, 3, 1, 2)
    ]


def test_a_parameter_with_a_default_or_another_annotation_stays_single() -> None:
    seen: list[Any] = []

    @node(batch_size=3)
    def scale(value: list[int], by: int, offset=1, *, note: str = "") -> list[int]:
        seen.append((value, by, offset, note))
        return [by * one + offset for one in value]

    items = [{"value": at, "by": 2, "note": "n"} for at in range(4)]
    assert Pipeline([scale]).map(items, output_name="scale") == [1, 3, 5, 7]
    assert seen == [([0, 1, 2], 2, 1, "n"), ([3], 2, 1, "n")]


def test_batch_over_names_the_lists() -> None:
    @node(batch_size=3, batch_over="word")
    def tagged(word: Any, stop: list[str]) -> Any:
        return [one in stop for one in word]

    items = [{"word": word, "stop": ["a"]} for word in "aba"]
    assert Pipeline([tagged]).map(items, output_name="tagged") == [True, False, True]


def test_a_batch_holds_only_items_with_the_same_single_value() -> None:
    seen: list[Any] = []

    @node(batch_size=10, batch_over="x")
    def joined(x: list[int], by: Any) -> list[Any]:
        seen.append((x, by))
        return [(one, by) for one in x]

    nan = float("nan")
    values: list[Any] = [1, 1, True, 1.0, 0.0, -0.0, "a", "".join(["a"]), None, None, nan, nan, [1], [1]]
    found = Pipeline([joined]).map([{"x": at, "by": by} for at, by in enumerate(values)], output_name="joined")
    assert [(one, repr(by)) for one, by in found] == [(at, repr(by)) for at, by in enumerate(values)]
    batches = [[0, 1], [2], [3], [4], [5], [6, 7], [8, 9], [10, 11], [12], [13]]
    assert [x for x, _ in seen] == batches


def test_the_lists_belong_to_the_function_alone() -> None:
    @node(output_name="first", batch_size=2)
    def greedy(x: list[int]) -> list[int]:
        taken = [*x]
        x.clear()
        return taken

    @node(output_name="second", batch_size=2)
    def also(x: list[int], first: list[int]) -> list[int]:
        found = [a + b for a, b in zip(x, first, strict=True)]
        first.clear()
        return found

    found = Pipeline([greedy, also]).map([{"x": at} for at in range(3)])
    assert found == [{"first": at, "second": 2 * at} for at in range(3)]


def test_several_outputs_are_a_list_for_each() -> None:
    @node(output_name=("low", "high"), batch_size=2)
    def around(x: list[int]) -> tuple[list[int], list[int]]:
        return [one - 1 for one in x], [one + 1 for one in x]

    expected = [{"low": at - 1, "high": at + 1} for at in range(3)]
    assert Pipeline([around]).map([{"x": at} for at in range(3)]) == expected
    assert Pipeline([around]).run(x=0) == expected[0]


@pytest.mark.parametrize("made", [tuple, numpy.array])
def test_other_sized_sequences_are_taken_for_lists(made: Callable[[Any], Any]) -> None:
    pipeline = Pipeline([node(lambda x: made(x), output_name="y", batch_size=2)])
    assert pipeline.map([{"x": at} for at in range(3)], output_name="y") == [0, 1, 2]
    assert pipeline.run(x=5) == {"y": 5}


def test_async_batch_nodes_are_awaited() -> None:
    @node(batch_size=4)
    async def later(length: list[int]) -> list[int]:
        await asyncio.sleep(0)
        BATCHES.append(length)
        return [one + 1 for one in length]

    pipeline = Pipeline([clean, measure, later])
    expected = [{"cleaned": "a" * at, "length": at, "later": at + 1} for at in range(6)]
    assert pipeline.map(texts(6)) == expected
    assert sizes() == [4, 4, 2, 2]
    assert pipeline.run(text="a") == expected[1]
    assert asyncio.run(pipeline.amap(texts(6))) == expected
    for engine in ("sequential", "async"):
        assert Pipeline([clean, measure, later], backend=LocalBackend(engine=engine)).map(texts(6)) == expected


def test_rows_with_other_keys_go_on_where_the_others_are() -> None:
    @node(batch_size=4)
    def power(base: list[int], exponent: int = 2) -> list[int]:
        BATCHES.append(base)
        return [one**exponent for one in base]

    items = [{"base": 2}, {"base": 3}, {"base": 2, "exponent": 3}, {"base": 4}]
    pipeline = Pipeline([power])
    for rows in (items, iter(items), tuple(items)):
        assert pipeline.map(rows, output_name="power") == [4, 9, 8, 16]
    assert list(pipeline.map_iter(iter(items), output_name="power")) == [4, 9, 8, 16]
    found = pipeline.map([*items, {"base": "x"}], on_error="return")
    assert found[:4] == [{"power": value} for value in (4, 9, 8, 16)] and found[4].item == 4
    with pytest.raises(TypeError, match="item 2 is an int"):
        pipeline.map([{"base": 1}, {"base": 2}, 3])  # type: ignore[list-item]


# --- mapped pipelines


def mapped(*nodes: Any, **options: Any) -> Pipeline:
    inner = Pipeline(list(nodes), name="inner")
    return Pipeline([inner.as_node(**options)], name="main")


def test_inner_items_of_many_outer_items_share_a_batch() -> None:
    pipeline = mapped(clean, measure, input_mapping={"texts": "text"}, map_over="texts")
    found = pipeline.map([{"texts": ["a"] * count} for count in (1, 0, 5, 3)])
    assert [row["length"] for row in found] == [[1], [], [1] * 5, [1] * 3]
    assert sizes() == [4, 4, 1]


def test_a_run_over_a_list_goes_in_batches() -> None:
    pipeline = mapped(clean, measure, twice, input_mapping={"texts": "text"}, map_over="texts")
    assert pipeline.run(texts=["a", "bb", "c", "d", "ee"])["double"] == [2, 4, 2, 2, 4]
    assert asyncio.run(pipeline.arun(texts=["a", "bb", "c", "d", "ee"]))["double"] == [2, 4, 2, 2, 4]
    assert sizes() == [4, 1, 4, 1]


def test_lists_of_lists_and_all_pairs_go_in_batches() -> None:
    inner = Pipeline([clean, measure], name="inner")
    middle = Pipeline([inner.as_node(input_mapping={"texts": "text"}, map_over="texts")], name="middle")
    outer = Pipeline([middle.as_node(input_mapping={"many": "texts"}, map_over="many")], name="outer")
    assert outer.run(many=[["a", "bb"], [], ["c"]])["length"] == [[1, 2], [], [1]]
    assert [row["length"] for row in outer.map([{"many": [["a"], ["b"]]}, {"many": []}])] == [[[1], [1]], []]

    @node(batch_size=4)
    def added(x: list[int], y: list[int]) -> list[int]:
        BATCHES.append(x)
        return [a + b for a, b in zip(x, y, strict=True)]

    BATCHES.clear()
    pairs = mapped(added, input_mapping={"xs": "x", "ys": "y"}, map_over=["xs", "ys"], map_mode="product")
    assert pairs.run(xs=[1, 2, 3], ys=[10, 20]) == {"added": [11, 21, 12, 22, 13, 23]}
    assert sizes() == [4, 2]


def test_more_inner_items_than_a_block_holds_come_out_whole() -> None:
    pipeline = mapped(node(lambda x: [-one for one in x], output_name="y", batch_size=1000), map_over=["x"])
    found = pipeline.map([{"x": list(range(count))} for count in (9_001, 0, 4_000, 1)], output_name="y")
    assert found == [[-at for at in range(count)] for count in (9_001, 0, 4_000, 1)]


def test_an_inner_failure_fails_its_outer_item_alone_and_says_which() -> None:
    pipeline = mapped(invert, input_mapping={"numbers": "number"}, map_over="numbers")
    good, bad, odd = pipeline.map([{"numbers": [1, 2]}, {"numbers": [1, 0, 0]}, {"numbers": "ab"}], on_error="return")
    assert good == {"inverse": [1.0, 0.5]}
    assert (bad.path, bad.items, bad.type_name) == (("main", "inner", "invert"), (1, 1, None), "ZeroDivisionError")
    assert "takes a list of items, not a str" in odd.message and odd.path == ("main", "inner")


# --- failures


def test_a_failing_item_fails_alone() -> None:
    found = Pipeline([invert]).map(numbers(1, 0, 2, 4, 5, "x", 8), on_error="return", output_name="inverse")
    assert found == [1.0, found[1], 0.5, 0.25, 0.2, found[5], 0.125]
    assert (found[1].type_name, found[1].items, found[5].type_name) == ("ZeroDivisionError", (1, None), "TypeError")
    assert BATCHES[:4] == [[1, 0, 2, 4], [1, 0], [1], [0]]


def test_without_isolate_a_batch_fails_as_one() -> None:
    whole = node(invert.func, output_name="inverse", batch_size=4, isolate=False)
    found = Pipeline([whole]).map(numbers(1, 0, 2, 4, 5), on_error="return")
    assert [type(row) for row in found] == [Failure] * 4 + [dict]
    assert [row.item for row in found[:4]] == [0, 1, 2, 3] and sizes() == [4, 1]


def test_the_first_failing_item_is_raised_with_its_place() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([invert], name="main").map(numbers(1, 2, 0, "x"))
    assert caught.value.__notes__ == ["in main (item 2) > invert, on local:sequential"]
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name in ("invert", "<listcomp>")


@pytest.mark.parametrize("count", [1, 3])
def test_the_traceback_begins_in_the_function(count: int) -> None:
    pipeline = Pipeline([invert])
    rows = numbers(*[0] * count)
    found = pipeline.map(rows, on_error="return")
    assert isinstance(found[-1], Failure)
    assert traceback.extract_tb(found[-1].error.__traceback__)[0].name == "invert"


def test_a_batch_is_retried_whole_before_it_is_halved() -> None:
    retried = node(invert.func, output_name="inverse", batch_size=2, retries=1)
    found = Pipeline([retried]).map(numbers(1, 0), on_error="return")
    assert found[0] == {"inverse": 1.0} and isinstance(found[1], Failure)
    assert BATCHES == [[1, 0], [1, 0], [1], [0], [0]]


def test_per_item_failures_before_and_after_a_batch_fail_alone() -> None:
    def check(number):
        return number if number != 3 else 1 / 0

    def last(inverse):
        return {1.0: "one"}[inverse]

    def inverse(checked):
        return [1 / one for one in checked]

    pipeline = Pipeline([node(check, output_name="checked"), node(inverse, batch_size=9), node(last)])
    found = pipeline.map(numbers(1, 3, 2, 0), on_error="return")
    assert found[0]["last"] == "one"
    assert [row.node for row in found[1:]] == ["check", "last", "inverse"]


@pytest.mark.parametrize("raised", [StopIteration("s"), SystemExit(3), GeneratorExit(), asyncio.CancelledError("c")])
def test_odd_exceptions_of_one_item_are_its_failure(raised: BaseException) -> None:
    def odd(number):
        if 0 in number:
            raise raised
        return number

    pipeline = Pipeline([node(odd, batch_size=4)])
    found = pipeline.map(numbers(1, 0, 2), on_error="return")
    assert [found[0], found[2]] == [{"odd": 1}, {"odd": 2}]
    assert found[1].error is raised


@pytest.mark.parametrize("is_async", [False, True])
def test_ctrl_c_in_a_batch_stops_the_map(is_async: bool) -> None:
    def stop(number):
        BATCHES.append(number)
        raise KeyboardInterrupt

    async def stop_later(number):
        stop(number)

    with pytest.raises(KeyboardInterrupt):
        Pipeline([node(stop_later if is_async else stop, batch_size=2)]).map(numbers(1, 2, 3), on_error="return")
    assert sizes() == [2]


def test_a_failure_keeps_the_lists_of_one_and_can_be_made_again() -> None:
    pipeline = Pipeline([node(invert.func, output_name="inverse", batch_size=3, isolate=False)], keep_inputs=True)
    for failure in (*pipeline.map(numbers(0, 2), on_error="return"), failure_from(pipeline, number=0)):
        assert failure.inputs in ({"number": [0]}, {"number": [2]})
        if failure.inputs == {"number": [0]}:
            with pytest.raises(ZeroDivisionError):
                failure.reproduce()
        else:
            assert failure.reproduce() == [0.5]


def failure_from(pipeline: Pipeline, **inputs: Any) -> Failure:
    with pytest.raises(Exception) as caught:
        pipeline.run(**inputs)
    found = failure_of(caught.value)
    assert found is not None
    return found


# --- what a batch node must not give


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: 3, r"node 'bad' returned an int for a batch of 3; a batch node returns a list"),
        (lambda x: "abc", r"returned a str for a batch of 3"),
        (lambda x: b"abc", r"returned a bytes for a batch of 3"),
        (lambda x: None, r"returned None for a batch of 3"),
        (lambda x: {1: 1, 2: 2, 3: 3}, r"returned a dict for a batch of 3"),
        (lambda x: {1, 2, 3}, r"returned a set for a batch of 3"),
        (lambda x: iter(x), r"returned a list_iterator for a batch of 3"),
        (lambda x: numpy.float64(3), r"returned a float64 for a batch of 3"),
        (lambda x: x[:2], r"node 'bad' returned 2 values for a batch of 3$"),
        (lambda x: [*x, 1], r"node 'bad' returned 4 values for a batch of 3$"),
        (lambda x: x[:1], r"node 'bad' returned 1 value for a batch of 3$"),
    ],
)
def test_something_else_than_a_list_of_that_length_fails_every_item_of_its_batch(
    made: Callable[[Any], Any], said: str
) -> None:
    def bad(x):
        BATCHES.append(x)
        return made(x) if len(x) == 3 else x

    found = Pipeline([node(bad, batch_size=3)]).map([{"x": at} for at in range(5)], on_error="return")
    assert found[3:] == [{"bad": 3}, {"bad": 4}] and sizes() == [3, 2]
    for at, failure in enumerate(found[:3]):
        assert isinstance(failure.error, BatchLengthError) and failure.items == (at, None)
        assert re.search(said, failure.message)
        with pytest.raises(BatchLengthError) as caught:
            failure.reraise()
        assert caught.value.__notes__ == [f"in pipeline (item {at}) > bad, on local:sequential"]


def test_a_run_says_it_of_its_batch_of_one() -> None:
    with pytest.raises(BatchLengthError, match=r"node 'bad' returned 2 values for a batch of 1"):
        Pipeline([node(lambda x: x * 2, output_name="y", name="bad", batch_size=3)]).run(x=1)


def test_several_outputs_are_counted_and_measured_by_name() -> None:
    few = node(lambda x: (x,), output_name=("a", "b"), name="few", batch_size=2)
    with pytest.raises(OutputCountError, match=r"node 'few' declares 2 outputs \('a', 'b'\) but returned 1 value"):
        Pipeline([few]).map([{"x": 1}, {"x": 2}])
    short = node(lambda x: (x, x[1:]), output_name=("a", "b"), name="short", batch_size=2)
    for call in (lambda: Pipeline([short]).map([{"x": 1}, {"x": 2}]), lambda: Pipeline([short]).run(x=1)):
        with pytest.raises(BatchLengthError, match=r"'short' returned [01] values? for its output 'b' for a batch of"):
            call()


@pytest.mark.parametrize("size", [0, -1, True, "x", 1.5])
def test_a_batch_size_is_a_whole_number_above_zero(size: Any) -> None:
    with pytest.raises(NodeDefinitionError, match=r"node '<lambda>|node 'y'.*batch_size=.*; give a whole number"):
        node(lambda x: x, output_name="y", batch_size=size)


@pytest.mark.parametrize("option", [{"isolate": False}, {"batch_over": "x"}])
def test_options_of_batches_need_a_batch_size(option: dict[str, Any]) -> None:
    with pytest.raises(NodeDefinitionError, match=r"is for batch nodes; give batch_size= too"):
        node(lambda x: x, output_name="y", **option)


def test_batch_over_names_parameters_of_the_function() -> None:
    with pytest.raises(NodeDefinitionError, match=r"batch_over names 'words'.*did you mean 'word'"):
        node(lambda word: word, output_name="y", batch_size=2, batch_over="words")
    with pytest.raises(NodeDefinitionError, match=r"batch_over is empty"):
        node(lambda word: word, output_name="y", batch_size=2, batch_over=())


def test_a_batch_node_without_lists_is_refused() -> None:
    def scale(x: int, by=2):
        return x * by

    with pytest.raises(NodeDefinitionError, match=r"none of 'x', 'by' is a list of items.*batch_over='x'"):
        node(scale, batch_size=2)
    with pytest.raises(NodeDefinitionError, match=r"takes at least one input"):
        node(lambda: [1], output_name="y", batch_size=2)


def test_annotations_are_compared_by_the_element() -> None:
    assert Pipeline([clean, measure, twice])

    @node(output_name=("text", "cleaned"), batch_size=2)
    def split(given: list[str]) -> tuple[list[str], list[int]]:
        raise NotImplementedError

    with pytest.raises(TypeMismatchError, match=r"node 'split' returns 'cleaned' as int, but node 'measure' takes"):
        Pipeline([split, measure])
    with pytest.raises(TypeMismatchError, match=r"node 'measure' returns 'length' as int"):
        Pipeline([measure, node(lambda_typed(dict), output_name="z")])


def lambda_typed(kind: type) -> Callable[..., Any]:
    def take(length):
        return length

    take.__annotations__ = {"length": kind}
    return take


# --- time


def test_a_timeout_fails_its_batch_without_halving_it() -> None:
    over = threading.Event()

    def slow(number):
        BATCHES.append(number)
        if 0 in number:
            over.wait(30)
        return number

    try:
        pipeline = Pipeline([node(slow, batch_size=2, timeout=2)])
        found = pipeline.map(numbers(1, 0, 2), on_error="return")
        assert [type(row.error) for row in found[:2]] == [NodeTimeoutError] * 2 and found[2] == {"slow": 2}
        assert sizes() == [2, 1]
    finally:
        over.set()


def test_the_deadline_of_a_pipeline_bounds_its_batches() -> None:
    over = threading.Event()

    def slow(number):
        BATCHES.append(number)
        over.wait(30)
        return number

    try:
        pipeline = Pipeline([node(slow, batch_size=2)], timeout=0.05)
        found = pipeline.map(numbers(1, 2), on_error="return")
        assert [type(row.error) for row in found] == [PipelineTimeoutError] * 2 and sizes() == [2]
    finally:
        over.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A time that only nodes let pass."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def spending(clock: list[float]) -> list[Any]:
    """Nodes for which as many seconds pass as `x` says, and one for each batch."""

    def before(x):
        clock[0] += x
        return x

    def batched(before):
        clock[0] += 1
        return before

    def after(batched):
        return batched

    return [node(before), node(batched, batch_size=3, batch_over="before"), node(after)]


def test_the_clock_of_an_item_stands_still_while_its_neighbours_run(clock: list[float]) -> None:
    pipeline = Pipeline(spending(clock), timeout=5)
    found = pipeline.map([{"x": x} for x in (3, 3, 4.5, 3, 6, 2)], on_error="return", output_name="after")
    assert [as_told(one)[2] if isinstance(one, Failure) else one for one in found] == [3, 3, *late(1), 3, *late(1), 2]
    where = [one.node for one in found if isinstance(one, Failure)]
    assert where == ["after", "batched"]  # the one has half a second left for its batch, the other nothing


def late(count: int) -> list[str]:
    return ["PipelineTimeoutError"] * count


def test_the_clock_of_an_outer_item_goes_on_for_its_own_inner_items_alone(clock: list[float]) -> None:
    inner = Pipeline(spending(clock), name="inner", timeout=4)
    over = inner.as_node(input_mapping={"xs": "x"}, map_over="xs")
    pipeline = Pipeline([over, node(lambda after: after, output_name="end", name="end")], name="main", timeout=7)
    rows = [{"xs": xs} for xs in ([1, 1, 1], [1], [3.5], [2, 2, 2], [1], [])]
    found = pipeline.map(rows, on_error="return", output_name="end")
    # The third has an inner item that is too long for its own pipeline; the fourth has too many for the outer one.
    assert [as_told(one)[:3] if isinstance(one, Failure) else one for one in found] == [
        [1, 1, 1],
        [1],
        (("main", "inner", "after"), (2, 0, None), "PipelineTimeoutError"),
        (("main", "inner", "after"), (3, 2, None), "PipelineTimeoutError"),
        [1],
        [],
    ]


# --- streams


def test_a_stream_draws_no_more_than_one_batch_ahead() -> None:
    drawn: list[int] = []

    def source() -> Iterator[dict[str, str]]:
        for at in range(100):
            drawn.append(at)
            yield {"text": "a" * at}

    with contextlib.closing(Pipeline([clean, measure]).map_iter(source(), output_name="length")) as found:
        assert next(found) == 0
        assert len(drawn) == 4
        assert list(found) == list(range(1, 100))


def test_an_error_of_the_source_comes_after_the_rows_before_it() -> None:
    def source() -> Iterator[dict[str, str]]:
        yield from texts(2)
        raise OSError("no more")

    found = Pipeline([clean, measure]).map_iter(source(), output_name="length")
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(OSError, match="no more"):
        next(found)


# --- events


def single(made: Any) -> Any:
    """The node for one item that does what a batch node does for many."""
    func = made.func

    def one(**inputs: Any) -> Any:
        lists = {name: [value] for name, value in inputs.items()}
        return func(**lists)[0]

    names = ", ".join(parameter.name for parameter in made.parameters)
    scope: dict[str, Any] = {"one": one}
    exec(f"def {made.name}({names}): return one({names.split(', ')[0]}={names.split(', ')[0]})", scope)
    return node(scope[made.name], output_name=made.outputs[0])


def test_events_are_those_of_items_and_end_the_other_way_round() -> None:
    trees, rows = [], numbers(1, 0, 2, 4, 5)
    for made in (invert, single(invert)):
        log = EventLog()
        Pipeline([made, node(lambda inverse: inverse, output_name="same", name="same")], callbacks=[log]).map(
            rows, on_error="return"
        )
        trees.append(normalised(log.events))
        if made is invert:
            nodes = [event for event in log.events if event.kind == "node" and event.path[-1] == "invert"]
            first = [event.items[0] for event in nodes[:8]]
            assert first == [0, 1, 2, 3, 3, 2, 1, 0]
            assert len({event.seconds for event in nodes[4:8]}) == 1
            assert [event.status for event in nodes[4:8]] == ["ok", "ok", "error", "ok"]
    assert trees[0] == trees[1]


# --- stages


def test_a_stage_knows_its_largest_batch() -> None:
    assert (stage_of(Pipeline([clean]), ("text",)).batch, stage_of(Pipeline([clean]), ("text",)).block) == (0, 0)
    flat = stage_of(Pipeline([clean, measure]), ("text",))
    deep = stage_of(mapped(measure, input_mapping={"c": "cleaned"}, map_over="c"), ("c",))
    assert (flat.batch, flat.block, deep.batch, deep.block) == (4, 4, 0, 4)


def test_a_failed_row_brings_what_was_made_before_it() -> None:
    def check(length):
        return 1 / (3 - length)

    stage = stage_of(Pipeline([clean, measure, twice, node(check)]), ("text",), salvages=True)
    made = dict(stage.outputs)
    reply = run_rows(stage, [(text["text"],) for text in texts(5)])
    failure, step = reply.failures[3]
    assert failure.made == {made["cleaned"]: "aaa", made["length"]: 3, made["double"]: 6} and step == 3
    assert [values is None for values in reply.values] == [False, False, False, True, False]


def test_a_step_by_itself_is_a_batch_of_one() -> None:
    (step,) = stage_of(Pipeline([measure]), ("cleaned",)).steps
    assert run_step(step, {"cleaned": "abc"}) == (3,)  # type: ignore[arg-type]


def test_what_nobody_needs_any_more_is_let_go() -> None:
    class Heavy:
        pass

    made: list[weakref.ref[Heavy]] = []

    def build(x):
        heavy = Heavy()
        made.append(weakref.ref(heavy))
        return heavy

    def weigh(build):
        return [1 for _ in build]

    def after(weigh):
        return [sum(one() is not None for one in made) for _ in weigh]

    pipeline = Pipeline([node(build), node(weigh, batch_size=4), node(after, batch_size=8)])
    found = pipeline.map([{"x": at} for at in range(8)], output_name="after")
    assert found == [0] * 8 and len(made) == 8


# --- whatever the batches, the same


class Wrong(Exception):
    pass


def functions_of(at: int, name: str, read: str, fails: frozenset[int], shared: bool) -> tuple[Callable[..., Any], Any]:
    """A function for one item that fails on some, and the same for a batch."""

    def one(value: int, given: Any) -> int:
        if value % 7 in fails:
            raise Wrong(f"{name} of {value}")
        return value + at + len(repr(given))

    scope: dict[str, Any] = {"one": one}
    given, both = (", given", ", given") if shared else ("", ", None")
    exec(f"def {name}({read}{given}): return one({read}{both})", scope)
    exec(f"def batch({read}{given}): return [one(value{both}) for value in {read}]", scope)
    scope["batch"].__name__ = name
    return scope[name], scope["batch"]


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[Pipeline, Pipeline, bool]:
    """A pipeline for items and the same with batch nodes; some are mapped over lists."""
    plain: list[Any] = []
    batched: list[Any] = []
    for at in range(draw(st.integers(1, 4))):
        fails = draw(st.frozensets(st.integers(0, 6), max_size=2))
        read = "x" if at == 0 else f"v{draw(st.integers(0, at - 1))}"
        item, batch = functions_of(at, f"v{at}", read, fails, draw(st.booleans()))
        size = draw(st.integers(0, 5))
        plain.append(node(item))
        batched.append(node(batch, batch_size=size, batch_over=read) if size else node(item))
    is_nested = draw(st.booleans())
    found = []
    for nodes in (plain, batched):
        pipeline = Pipeline(nodes, name="inner")
        if is_nested:
            over = pipeline.as_node(input_mapping={"xs": "x"}, map_over="xs")
            pipeline = Pipeline([over, node(lambda v0: len(v0), output_name="count", name="count")], name="outer")
        found.append(pipeline)
    return found[0], found[1], is_nested


def as_told(result: Any) -> Any:
    if not isinstance(result, Failure):
        return result
    return result.path, result.items, result.type_name, result.message, result.place


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pipelines(), st.data())
def test_values_and_failures_do_not_depend_on_batches(
    both: tuple[Pipeline, Pipeline, bool], data: st.DataObject
) -> None:
    plain, batched, is_nested = both
    value = st.lists(st.integers(0, 30), max_size=7) if is_nested else st.integers(0, 30)
    given = st.sampled_from([None, "s", 3])
    varies = data.draw(st.booleans())
    row = {"xs" if is_nested else "x": value, **({"given": given} if varies else {})}
    rows = data.draw(st.lists(st.fixed_dictionaries(row), max_size=12))
    uses_given = any(parameter.name == "given" for one in plain.graph.nodes for parameter in one.parameters)
    inputs = {"given": data.draw(given)} if uses_given and not varies else None
    if varies and not uses_given:
        rows = [{name: value for name, value in row.items() if name != "given"} for row in rows]
    expected = [as_told(one) for one in plain.map(rows, inputs=inputs, on_error="return")]
    assert [as_told(one) for one in batched.map(rows, inputs=inputs, on_error="return")] == expected
    assert [as_told(one) for one in batched.map_iter(iter(rows), inputs=inputs, on_error="return")] == expected
    for row, single in zip(rows, expected, strict=True):
        values = {**(inputs or {}), **row}
        if isinstance(single, dict):
            assert batched.run(values) == single
        else:
            found = failure_from(batched, **values)
            assert as_told(found.at(single[1][0])) == single
