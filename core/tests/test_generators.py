"""Nodes that yield: their value is a list everywhere, and where one map alone takes it the items flow one by one.

How far a generator is ahead is counted in the functions themselves, never by a clock.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import signal
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import cloudpickle
import pytest

from hypernodes import (
    Event,
    Failure,
    LocalBackend,
    MemoryCache,
    NodeDefinitionError,
    NodeTimeoutError,
    OutputCountError,
    Pipeline,
    TypeMismatchError,
    node,
)
from hypernodes._compile import compile_plan
from hypernodes._layout import MOST_ROWS
from hypernodes._task import Stage, run_rows
from hypernodes._typetext import output_text
from hypernodes.testing import normalised
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

ENGINES = ["sequential", "async", "threaded", "multiprocess"]


@pytest.fixture(params=ENGINES)
def backend(request: pytest.FixtureRequest, no_leaks: LeakWatch) -> Iterator[LocalBackend]:
    if request.param in ("threaded", "multiprocess"):
        pytest.importorskip(f"hypernodes_local_{request.param}")
    workers = None if request.param == "sequential" else 2
    with LocalBackend(engine=request.param, max_workers=workers) as opened:
        assert isinstance(opened, LocalBackend)
        yield opened


@node(output_name="numbers")
def count(stop: int, broken_at: int | None = None) -> Iterator[int]:
    for number in range(stop):
        if number == broken_at:
            raise LookupError(number)
        yield number


@node(output_name="numbers")
async def count_async(stop: int, broken_at: int | None = None) -> AsyncIterator[int]:
    for number in range(stop):
        await asyncio.sleep(0)
        if number == broken_at:
            raise LookupError(number)
        yield number


@node(output_name="total")
def add(numbers: list[int]) -> int:
    assert type(numbers) is list
    return sum(numbers)


@node(output_name="square")
def square(number: int, wrong: tuple[int, ...] = ()) -> int:
    if number in wrong:
        raise ZeroDivisionError(number)
    return number * number


def mapped(*nodes: Any, over: str = "numbers", inner: str = "number", **options: Any) -> Any:
    return Pipeline(list(nodes), name="each").as_node(input_mapping={over: inner}, map_over=over, **options)


SQUARES = Pipeline([count, mapped(square)], name="squares")

# --- a list, everywhere


@pytest.mark.parametrize("counting", [count, count_async], ids=["plain", "async"])
def test_the_value_is_the_list_of_what_is_yielded(backend: LocalBackend, counting: Any) -> None:
    pipeline = Pipeline([counting, add], backend=backend)
    assert pipeline.run(stop=4) == {"numbers": [0, 1, 2, 3], "total": 6}
    assert pipeline.run(stop=0) == {"numbers": [], "total": 0}
    stops = [{"stop": stop} for stop in range(30)]
    expected = [list(range(stop)) for stop in range(30)]
    assert pipeline.map(stops, output_name="numbers") == expected
    assert pipeline.map(inputs={"stop": range(30)}, map_over="stop")["numbers"] == expected
    assert list(pipeline.map_iter(stops, output_name="numbers")) == expected


@pytest.mark.parametrize("counting", [count, count_async], ids=["plain", "async"])
def test_an_exception_midway_is_the_failure_of_the_node(backend: LocalBackend, counting: Any) -> None:
    pipeline = Pipeline([counting, add], name="main", backend=backend)
    items = [{"stop": 3, "broken_at": at} for at in (None, 2, 3)]
    first, failed, third = pipeline.map(items, output_name="total", on_error="return")
    assert (first, third) == (3, 3)
    assert isinstance(failed, Failure) and failed.path == ("main", counting.name)
    assert isinstance(failed.error, LookupError) and failed.item == 1
    with pytest.raises(LookupError) as caught:
        pipeline.run(stop=3, broken_at=1)
    assert any(f"main > {counting.name}" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("counting", [count, count_async], ids=["plain", "async"])
@pytest.mark.parametrize("limited", [{}, {"timeout": 60}], ids=["", "timeout"])
def test_the_traceback_begins_in_the_generator(counting: Any, limited: dict[str, Any]) -> None:
    pipeline = Pipeline([node(counting.func, output_name="numbers", **limited)])
    failure = pipeline.map([{"stop": 3, "broken_at": 1}], on_error="return")[0]
    assert isinstance(failure, Failure) and failure.error is not None
    assert traceback.extract_tb(failure.error.__traceback__)[-1].name == counting.func.__name__
    if not limited:
        assert len(traceback.extract_tb(failure.error.__traceback__)) == 1


def test_calling_the_node_calls_the_function() -> None:
    yielded = count(2)
    assert next(yielded) == 0
    assert count.is_generator and not count.is_async
    assert count_async.is_generator and count_async.is_async
    assert not square.is_generator


class Counter:
    def __init__(self, stop: int) -> None:
        self.stop = stop

    def upwards(self) -> Iterator[int]:
        yield from range(self.stop)

    def __call__(self) -> Iterator[int]:
        yield from range(self.stop)


@pytest.mark.parametrize(
    "function",
    [Counter(3), Counter(3).upwards, functools.partial(count.func, 3), lambda: (yield from range(3))],
    ids=["callable", "method", "partial", "lambda"],
)
def test_any_callable_that_yields_is_a_generator_node(function: Callable[[], Any]) -> None:
    made = node(function, output_name="numbers", name="numbers")
    assert made.is_generator
    assert Pipeline([made]).run(output_name="numbers") == [0, 1, 2]


def test_a_plain_function_in_the_list_of_nodes_may_yield() -> None:
    def numbers(stop: int) -> Iterator[int]:
        yield from range(stop)

    assert Pipeline([numbers, add]).run(stop=3) == {"numbers": [0, 1, 2], "total": 3}


def test_several_outputs_are_the_items_in_order() -> None:
    @node(output_name=("low", "high"))
    def ends(stop: int) -> Iterator[int]:
        yield from range(stop)

    assert Pipeline([ends]).run(stop=2) == {"low": 0, "high": 1}
    with pytest.raises(OutputCountError, match="3 values"):
        Pipeline([ends]).run(stop=3)


def test_what_is_yielded_travels_between_processes_and_the_node_too() -> None:
    again = cloudpickle.loads(cloudpickle.dumps(SQUARES))
    assert again.run(stop=3, output_name="square") == [0, 1, 4]


@pytest.mark.parametrize("counting", [count, count_async], ids=["plain", "async"])
def test_the_list_is_cached(counting: Any) -> None:
    events: list[Event] = []
    pipeline = Pipeline([counting, mapped(square)], cache=MemoryCache(), callbacks=[events.append])
    for _ in range(2):
        assert pipeline.run(stop=3, output_name="square") == [0, 1, 4]
        assert pipeline.run(stop=3) == {"numbers": [0, 1, 2], "square": [0, 1, 4]}
    ran = [event.name for event in events if (event.kind, event.phase, event.status) == ("node", "end", "ok")]
    assert ran == [counting.name, "square", "square", "square"]


# --- retries, timeouts, replays: for the whole


def test_a_retry_begins_the_generator_anew() -> None:
    begun: list[int] = []

    @node(output_name="numbers", retries=2)
    def flaky(stop: int) -> Iterator[int]:
        begun.append(len(begun))
        for number in range(stop):
            if number == 2 and len(begun) < 3:
                raise ConnectionError
            yield number

    assert Pipeline([flaky, mapped(square)]).run(stop=4, output_name="square") == [0, 1, 4, 9]
    assert begun == [0, 1, 2]


def test_a_timeout_bounds_the_whole_generator() -> None:
    release = threading.Event()

    @node(output_name="numbers", timeout=0.05)
    def endless() -> Iterator[int]:
        yield 1
        release.wait(60)

    try:
        with pytest.raises(NodeTimeoutError, match="'endless' ran longer"):
            Pipeline([endless, mapped(square)]).run(output_name="square")
    finally:
        release.set()


def test_a_timeout_closes_an_async_generator() -> None:
    closed = []

    @node(output_name="numbers", timeout=0.05)
    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    with pytest.raises(NodeTimeoutError):
        Pipeline([endless]).run()
    assert closed == [True]


def test_a_timeout_of_the_pipeline_bounds_it_too() -> None:
    assert SQUARES.with_options(timeout=60).run(stop=3, output_name="square") == [0, 1, 4]


@pytest.mark.parametrize("counting", [count, count_async], ids=["plain", "async"])
def test_a_failure_is_made_again(counting: Any) -> None:
    pipeline = Pipeline([counting, mapped(square)], keep_inputs=True)
    failure = pipeline.map([{"stop": 3, "broken_at": 1}], output_name="square", on_error="return")[0]
    assert isinstance(failure, Failure)
    with pytest.raises(LookupError):
        failure.reproduce()


# --- what is refused, and what is said


def yields(numbers: list[int]) -> Iterator[int]:
    yield from numbers


async def yields_async(numbers: list[int]) -> AsyncIterator[int]:
    for number in numbers:
        yield number


@pytest.mark.parametrize("function", [yields, yields_async])
def test_a_generator_is_no_batch_node(function: Callable[..., Any]) -> None:
    with pytest.raises(NodeDefinitionError, match=rf"node '{function.__name__}' yields and has batch_size=8; .*list"):
        node(function, output_name="out", batch_size=8)


def test_its_type_for_the_nodes_behind_it_is_a_list() -> None:
    @node
    def wrong(numbers: int) -> int:
        return numbers

    with pytest.raises(TypeMismatchError, match="returns 'numbers' as list, but node 'wrong'"):
        Pipeline([count, wrong])


def bare(n: int) -> Iterator:  # type: ignore[type-arg]
    yield n


def unsaid(n):  # type: ignore[no-untyped-def]
    yield n


def generated(n: int) -> Generator[tuple[str, int], None, None]:
    yield "", n


@pytest.mark.parametrize(
    ("function", "shown"),
    [(count.func, "list[int]"), (count_async.func, "list[int]"), (bare, "list"), (unsaid, ""),
     (generated, "list[tuple[str, int]]")],
)  # fmt: skip
def test_pictures_show_the_list(function: Callable[..., Any], shown: str) -> None:
    assert output_text(node(function, output_name="out"), "out") == shown


# --- items that flow


class Ahead:
    """Counts how many items were yielded that no row has taken."""

    def __init__(self) -> None:
        self.drawn = self.used = self.most = 0
        self.closed = False

    def counting(self, **options: Any) -> Any:
        @node(output_name="numbers", **options)
        def counted(stop: int) -> Iterator[int]:
            try:
                for number in range(stop):
                    self.drawn += 1
                    self.most = max(self.most, self.drawn - self.used)
                    yield number
            finally:
                self.closed = True

        return counted

    def use(self, number: int) -> int:
        self.used += 1
        return number


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("heard", [None, [lambda event: None]], ids=["", "watched"])
@pytest.mark.parametrize("last", ["plain", "awaited"])
def test_items_flow_one_by_one_into_a_mapped_pipeline(nested: bool, heard: Any, last: str) -> None:
    ahead = Ahead()

    async def awaited(number: int) -> int:
        await asyncio.sleep(0)
        return ahead.use(number)

    used = node(ahead.use if last == "plain" else awaited, output_name="used", name="use")
    pipeline = Pipeline([ahead.counting(), mapped(used)], name="flow", callbacks=heard)
    outer = Pipeline([pipeline]) if nested else pipeline
    assert outer.run(stop=1000, output_name="used") == list(range(1000))
    assert ahead.most == 1 and ahead.closed
    ahead.most = 0
    assert outer.map([{"stop": 9}, {"stop": 0}], output_name="used") == [list(range(9)), []]
    assert outer.map(inputs={"stop": [3]}, map_over="stop", output_name="used") == [[0, 1, 2]]
    assert ahead.most == 1


def test_items_that_were_used_are_let_go() -> None:
    class Page:
        pass

    alive: weakref.WeakSet[Page] = weakref.WeakSet()
    most = 0

    @node(output_name="pages")
    def read(stop: int) -> Iterator[Page]:
        for _ in range(stop):
            page = Page()
            alive.add(page)
            yield page

    @node(output_name="number")
    def weigh(page: Page) -> int:
        nonlocal most
        most = max(most, len(alive))
        return 1

    pipeline = Pipeline([read, mapped(weigh, over="pages", inner="page")])
    gc.disable()
    try:
        assert sum(pipeline.run(stop=500, output_name="number")) == 500
    finally:
        gc.enable()
    assert most <= 3


@pytest.mark.parametrize("engine", ["threaded", "multiprocess"])
def test_items_flow_within_the_worker_that_runs_the_whole_item(engine: str) -> None:
    pytest.importorskip(f"hypernodes_local_{engine}")

    @node(output_name="numbers")
    def far(stop: int) -> Iterator[list[int]]:
        box = [0]
        for number in range(stop):
            yield box
            box[0] = number + 1

    @node(output_name="seen")
    def look(box: list[int]) -> int:
        return box[0]

    pipeline = Pipeline([far, mapped(look, inner="box")])
    with LocalBackend(engine=engine, max_workers=2) as backend:
        # The box shows what the generator had done when the row looked: nothing more than to yield this very item.
        found = pipeline.with_backend(backend).map([{"stop": 4}] * 50, output_name="seen")
    assert found == [[0, 1, 2, 3]] * 50


@pytest.mark.parametrize("heard", [None, [lambda event: None]], ids=["", "watched"])
def test_items_flow_into_batches(heard: Any) -> None:
    ahead = Ahead()

    @node(output_name="doubled", batch_size=8)
    def double(number: list[int]) -> list[int]:
        ahead.used += len(number)
        return [2 * one for one in number]

    size = 3 * MOST_ROWS
    pipeline = Pipeline([ahead.counting(), mapped(double)], callbacks=heard)
    assert pipeline.run(stop=size, output_name="doubled") == [2 * one for one in range(size)]
    assert 8 <= ahead.most <= MOST_ROWS
    rows = [{"stop": size}, {"stop": 0}, {"stop": 5}]
    assert [len(found) for found in pipeline.map(rows, output_name="doubled")] == [size, 0, 5]
    assert ahead.most <= MOST_ROWS and ahead.closed


@pytest.mark.parametrize("flows", [True, False])
def test_batches_share_the_items_of_several_generators(flows: bool) -> None:
    batches: list[list[int]] = []

    @node(output_name="doubled", batch_size=4)
    def double(number: list[int]) -> list[int]:
        batches.append(number)
        return [2 * one for one in number]

    wanted = ["doubled"] if flows else ["doubled", "numbers"]
    plan = compile_plan(Pipeline([count, mapped(double)]), ("stop", "broken_at"), wanted, LocalBackend())
    stage = Stage("main", plan.steps, plan.inputs, plan.outputs)
    reply = run_rows(stage, [(3, None), (9, 2), (3, None)])
    assert [None if row is None else row[0] for row in reply.values] == [[0, 2, 4], None, [0, 2, 4]]
    assert {at: (failure.path[-1], step) for at, (failure, step) in reply.failures.items()} == {1: ("count", 0)}
    assert batches == [[0, 1, 2, 0], [1, 2]]


def test_generators_flow_at_every_level() -> None:
    order: list[str] = []

    @node(output_name="books")
    def shelf(size: int) -> Iterator[int]:
        for book in range(size):
            order.append(f"book {book}")
            yield book

    @node(output_name="pages")
    def leaf(book: int) -> Iterator[str]:
        for page in range(2):
            order.append(f"page {book}.{page}")
            yield f"{book}.{page}"

    @node(output_name="text")
    def read(page: str) -> str:
        order.append(f"read {page}")
        return page

    reading = mapped(leaf, mapped(read, over="pages", inner="page"), over="books", inner="book")
    assert Pipeline([shelf, reading]).run(size=2, output_name="text") == [["0.0", "0.1"], ["1.0", "1.1"]]
    lines = [[f"book {b}"] + [line for p in range(2) for line in (f"page {b}.{p}", f"read {b}.{p}")] for b in range(2)]
    assert order == lines[0] + lines[1]


def other(numbers: list[int]) -> int:
    return len(numbers)


def _wanted(ahead: Ahead, use: Any) -> Any:
    return Pipeline([ahead.counting(), mapped(use)]).run(stop=5)["used"]


def _read_twice(ahead: Ahead, use: Any) -> Any:
    return Pipeline([ahead.counting(), mapped(use), other]).run(stop=5)["used"]


def _with_retries(ahead: Ahead, use: Any) -> Any:
    return Pipeline([ahead.counting(retries=1), mapped(use)]).run(stop=5, output_name="used")


def _with_retries_of_the_pipeline(ahead: Ahead, use: Any) -> Any:
    return Pipeline([ahead.counting(), mapped(use)], retries=1).run(stop=5, output_name="used")


def _with_a_timeout(ahead: Ahead, use: Any) -> Any:
    return Pipeline([ahead.counting(timeout=60), mapped(use)]).run(stop=5, output_name="used")


def _cached(ahead: Ahead, use: Any) -> Any:
    return Pipeline([ahead.counting(), mapped(use)], cache=MemoryCache()).run(stop=5, output_name="used")


def _not_next(ahead: Ahead, use: Any) -> Any:
    @node(output_name="wrong")
    def between() -> tuple[int, ...]:
        return ()

    @node(output_name="used")
    def after(number: int, wrong: tuple[int, ...]) -> int:
        return int(use.func(number))

    return Pipeline([ahead.counting(), between, mapped(after)]).run(stop=5, output_name="used")


@pytest.mark.parametrize(
    "run",
    [_wanted, _read_twice, _with_retries, _with_retries_of_the_pipeline, _with_a_timeout, _cached, _not_next],
    ids=lambda run: run.__name__.strip("_"),
)
def test_where_the_list_is_needed_it_is_made_first(run: Any) -> None:
    ahead = Ahead()
    assert run(ahead, node(ahead.use, output_name="used")) == [0, 1, 2, 3, 4]
    assert ahead.most == 5


# --- nobody can tell


async def square_async(number: int, wrong: tuple[int, ...] = ()) -> int:
    await asyncio.sleep(0)
    return square(number, wrong)


def square_all(number: list[int], wrong: tuple[int, ...] = ()) -> list[int]:
    return [square(one, wrong) for one in number]


async def square_all_async(number: list[int], wrong: tuple[int, ...] = ()) -> list[int]:
    await asyncio.sleep(0)
    return square_all(number, wrong)


SQUARING: dict[str, Any] = {
    "plain": square,
    "async": node(square_async, output_name="square"),
    "batch": node(square_all, output_name="square", batch_size=2),
    "async batch": node(square_all_async, output_name="square", batch_size=2),
}


def told(call: Callable[[], Any]) -> Any:
    """What a call returns, or what of its error a user sees."""
    try:
        return call()
    except Exception as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return type(error), error.args, error.__notes__, error.__context__, names[-1]


@pytest.mark.parametrize("broken_at", [None, 0, 2, 4])
@pytest.mark.parametrize("wrong", [(), (0,), (2,), (3, 1), (4,)])
@pytest.mark.parametrize("kind", ["plain", "async", "batch", "async batch"])
def test_errors_and_values_are_those_of_the_list(broken_at: int | None, wrong: tuple[int, ...], kind: str) -> None:
    each = mapped(SQUARING[kind])
    flowing = Pipeline([count, each], name="squares")
    listed = Pipeline([count, each, node(other, output_name="length")], name="squares")
    inputs = {"stop": 5, "broken_at": broken_at, "wrong": wrong}
    assert told(lambda: flowing.run(inputs, output_name="square")) == told(
        lambda: listed.run(inputs, output_nodes=["square", "length"])["square"]
    )
    inputs_of_rows = [{**inputs, "broken_at": at} for at in (None, broken_at, 3)]
    found = flowing.map(inputs_of_rows, output_name="square", on_error="return")
    expected = listed.map(inputs_of_rows, output_nodes=["square", "length"], on_error="return")
    assert [shown(one) for one in found] == [
        shown(one if isinstance(one, Failure) else one["square"]) for one in expected
    ]


def shown(result: Any) -> Any:
    if not isinstance(result, Failure):
        return result
    assert result.error is not None
    return result.path, result.items, type(result.error), result.error.args, result.error.__context__


def events_of(pipeline: Pipeline, inputs: dict[str, Any], **wanted: Any) -> list[Event]:
    events: list[Event] = []
    told(lambda: pipeline.with_options(callbacks=[events.append]).run(inputs, **wanted))
    return events


@pytest.mark.parametrize("broken_at", [None, 0, 3])
@pytest.mark.parametrize("wrong", [(), (1,)])
@pytest.mark.parametrize("kind", SQUARING)
def test_events_are_those_of_the_list(broken_at: int | None, wrong: tuple[int, ...], kind: str) -> None:
    inputs = {"stop": 4, "broken_at": broken_at, "wrong": wrong}
    pipeline = Pipeline([count, mapped(SQUARING[kind])], name="squares")
    steps = [("squares", "count"), ("squares", "each", SQUARING[kind].name)]
    flowing = events_of(pipeline, inputs, output_name="square")
    listed = events_of(pipeline, inputs, output_nodes=["square", "numbers"])
    assert normalised(flowing, steps) == normalised(listed, steps)


def test_the_record_of_a_generator_lasts_from_its_first_item_to_its_end() -> None:
    told_of = [(e.path[-1], e.phase) for e in events_of(SQUARES, {"stop": 2}, output_name="square") if e.kind == "node"]
    rows = [("square", "start"), ("square", "end")]
    assert told_of == [("count", "start"), *rows, *rows, ("count", "end")]


def test_after_a_failing_row_the_generator_comes_to_its_end_and_no_row_runs() -> None:
    ahead = Ahead()

    def use(number: int) -> int:
        ahead.use(number)
        raise ZeroDivisionError

    pipeline = Pipeline([ahead.counting(), mapped(node(use, output_name="used"))])
    with pytest.raises(ZeroDivisionError):
        pipeline.run(stop=10, output_name="used")
    assert (ahead.drawn, ahead.used, ahead.closed) == (10, 1, True)


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_an_interrupt_closes_the_generator(awaits: bool, watched: bool) -> None:
    ahead = Ahead()
    events: list[Event] = []

    def use(number: int) -> int:
        raise KeyboardInterrupt

    async def use_async(number: int) -> int:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    used = node(use_async if awaits else use, output_name="used", name="use")
    heard = [events.append] if watched else None
    with pytest.raises(KeyboardInterrupt):
        Pipeline([ahead.counting(), mapped(used)], callbacks=heard).run(stop=10, output_name="used")
    assert ahead.closed and ahead.drawn == 1
    ends = {e.path[-1]: e.status for e in events if e.kind == "node" and e.phase == "end"}
    assert ends == ({"counted": "stopped", "use": "stopped"} if watched else {})


def test_a_signal_while_a_row_is_awaited_closes_the_generator() -> None:
    ahead = Ahead()

    async def use(number: int) -> int:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()
        return number

    with pytest.raises(KeyboardInterrupt):
        Pipeline([ahead.counting(), mapped(node(use, output_name="used"))]).run(stop=10, output_name="used")
    assert ahead.closed and ahead.drawn == 1


def test_a_generator_that_raises_while_it_is_closed_does_not_hide_the_interrupt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @node(output_name="numbers")
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise LookupError("while closing")

    def use(number: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([stubborn, mapped(node(use, output_name="used"))]).run(output_name="used")
    assert "raised while it was closed" in caplog.text


def test_an_interrupt_in_the_generator_is_an_interrupt() -> None:
    @node(output_name="numbers")
    def interrupted() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([interrupted, mapped(square)]).run(output_name="square")
