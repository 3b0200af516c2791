"""What every engine promises on this machine: that limits hold, that resources are closed, that a strategy changes
nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hypernodes import (
    Failure,
    GraphError,
    IncompatibleEngineError,
    Pipeline,
    WorkerLostError,
    node,
    resource,
)
from hypernodes.testing._compare import compare
from hypernodes.testing._event_tree import EventLog, outline
from hypernodes.testing._leaks import LeakWatch
from hypernodes.testing._promises import Placed, check_random_cases
from hypernodes.testing._zoo import Refused, check, double

__all__ = ["LocalContract", "Marks"]

STRATEGIES = ("item", "stage", "stream")


class Marks:
    """A file that functions in any process of this machine add words to, in the order of what happened."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "marks")

    def add(self, word: str) -> None:
        # One write to a file that was opened to append is never mixed with another's.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{word} {os.getpid()}\n".encode())
        finally:
            os.close(file)

    def all(self) -> list[tuple[str, str]]:
        """Each word with the process that added it."""
        if not os.path.exists(self.path):
            return []
        with open(self.path) as file:
            return [(word, process) for word, process in map(str.split, file)]

    def words(self, process: str) -> list[str]:
        """Those that one process added."""
        return [word for word, one in self.all() if one == process]

    def most_at_once(self) -> int:
        """The most that had begun (`+`) and not ended (`-`) at any time."""
        now, most = 0, 0
        for word, _ in self.all():
            now += 1 if word == "+" else -1
            most = max(most, now)
        return most


def counted(marks: Marks, of: str, seconds: float = 0.005) -> Callable[..., Any]:
    """A function of the parameter `of` that takes some time between two marks."""

    def call(value: Any) -> Any:
        marks.add("+")
        try:
            time.sleep(seconds)  # a limit that does not hold shows in this time
            return value
        finally:
            marks.add("-")

    made: Callable[..., Any] = eval(f"lambda {of}: call({of})", {"call": call})
    return made


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


class LocalContract(Placed):
    """Promises of an engine on this machine. The fixture `engine` gives its name or an instance, `backend` a backend
    with it.

    `closes_in_workers` says that worker processes end in order when their backend is closed, so that what they built
    is closed. `draw_ahead` is the most items that a stream may have drawn beyond those it has given back.
    """

    closes_in_workers: ClassVar[bool] = True
    draw_ahead: ClassVar[int] = 20_000

    @pytest.fixture(params=STRATEGIES)
    def strategic(self, engine: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
        """A backend with the engine, for each map strategy."""
        try:
            backend = self.backend_with(engine, max_workers=2, map_strategy=request.param)
        except IncompatibleEngineError as error:
            if "schedules nodes and items itself" in str(error):
                pytest.skip("this engine schedules nodes and items itself")
            raise
        with backend:
            yield backend

    # limits -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("most", [1, 2])
    def test_limit_holds_over_nodes_maps_and_nesting(self, backend: Any, tmp_path: Path, most: int) -> None:
        marks = Marks(tmp_path)
        here = node(counted(marks, "x"), output_name="here", limit="calls")
        there = node(counted(marks, "x"), output_name="there", limit="calls")
        each = Pipeline(nodes=[node(counted(marks, "one"), output_name="inside", limit="calls")], name="cell").as_node(
            input_mapping={"xs": "one"}, map_over="xs"
        )
        pipeline = self.placed([here, there, each], backend, limits={"calls": most})
        found = pipeline.map([{"x": x, "xs": [x] * 3} for x in range(6)])
        compare([{"here": x, "there": x, "inside": [x] * 3} for x in range(6)], found)
        assert len(marks.all()) == 2 * 6 * 5
        assert marks.most_at_once() <= most

    def test_nearest_limit_of_a_name_counts(self, backend: Any, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()
        outer, inner = Marks(tmp_path), Marks(tmp_path / "inner")
        first = node(counted(outer, "x"), output_name="first", limit="calls")
        second = Pipeline(
            nodes=[node(counted(inner, "first"), output_name="second", limit="calls")],
            name="cell",
            limits={"calls": 1},
        )
        found = self.placed([first, second], backend, limits={"calls": 2}).map(rows(8), output_name="second")
        assert found == list(range(8))
        assert (outer.most_at_once() <= 2, inner.most_at_once()) == (True, 1)

    def test_limit_of_the_backend_holds(self, engine: Any, tmp_path: Path) -> None:
        marks = Marks(tmp_path)
        limited = node(counted(marks, "x"), output_name="y", limit="calls")
        with self.backend_with(engine, max_workers=2, limits={"calls": 1}) as backend:
            assert self.placed([limited], backend).map(rows(6), output_name="y") == list(range(6))
        assert marks.most_at_once() == 1

    def test_async_nodes_count_too(self, backend: Any, tmp_path: Path) -> None:
        marks = Marks(tmp_path)

        @node(output_name="y", limit="calls")
        async def later(x: Any) -> Any:
            marks.add("+")
            await asyncio.sleep(0.005)
            marks.add("-")
            return x

        found = self.placed([later], backend, limits={"calls": 1}).map(rows(8), output_name="y")
        assert found == list(range(8))
        assert marks.most_at_once() == 1

    def test_failing_call_gives_its_place_back(self, backend: Any) -> None:
        limited = node(check.func, output_name="checked", limit="calls")
        pipeline = self.placed([limited], backend, limits={"calls": 1})
        found = pipeline.map([{"x": x % 3} for x in range(12)], output_name="checked", on_error="return")
        assert [isinstance(one, Failure) for one in found] == [x % 3 == 1 for x in range(12)]
        assert pipeline.map(rows(1), output_name="checked") == [0]

    def test_dead_worker_gives_its_place_back(self, backend: Any) -> None:
        if not self.can_kill_workers:
            pytest.skip("no worker may die here")
        caller = os.getpid()

        @node(output_name="y", limit="calls")
        def kill(x: Any) -> Any:
            if x == 3 and os.getpid() != caller:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

        pipeline = self.placed([kill], backend, limits={"calls": 1})
        found = pipeline.map(rows(8), output_name="y", on_error="return")
        assert isinstance(found.pop(3).error, WorkerLostError)
        assert found == [0, 1, 2, 4, 5, 6, 7]

    def test_rate_lets_no_more_calls_begin_than_it_says(self, backend: Any) -> None:
        limited = node(lambda x: x, output_name="y", limit="calls")
        pipeline = self.placed([limited], backend, limits={"calls": "10/second"})
        begun = time.monotonic()
        assert pipeline.map(rows(11), output_name="y") == list(range(11))
        # The eleventh may begin when a second has passed since the first.
        assert time.monotonic() - begun >= 1

    def test_demands_hold(self, engine: Any, tmp_path: Path) -> None:
        marks = Marks(tmp_path)
        heavy = node(counted(marks, "x"), output_name="heavy", resources={"gpus": 1})
        light = node(counted(marks, "heavy"), output_name="light", resources={"gpus": 0.5})
        with self.backend_with(engine, max_workers=2, resources={"gpus": 1}) as backend:
            assert self.placed([heavy, light], backend).map(rows(6), output_name="light") == list(range(6))
        assert marks.most_at_once() <= 2

    def test_demand_that_this_machine_cannot_meet_is_refused_before_anything_runs(
        self, backend: Any, tmp_path: Path
    ) -> None:
        marks = Marks(tmp_path)
        first = node(counted(marks, "x"), output_name="y")
        heavy = node(lambda y: y, output_name="z", resources={"cpus": 100_000})
        with pytest.raises(GraphError, match="100,000 CPUs"):
            self.placed([first, heavy], backend).map(rows(3))
        assert not marks.all()

    # resources --------------------------------------------------------------------------------------------------

    def test_resource_is_closed_when_the_call_is_over(self, engine: Any, tmp_path: Path) -> None:
        marks = Marks(tmp_path)
        pipeline = Pipeline(nodes=[_read, _refuse, _held(marks)], name="main")

        def fails(of: Pipeline) -> None:
            with pytest.raises(Refused):
                of.map(rows(6))

        def breaks_off(of: Pipeline) -> None:
            with closing(of.map_iter(rows(50), output_name="read")) as stream:
                next(stream)

        calls: tuple[Callable[[Pipeline], object], ...] = (
            lambda of: of.map(rows(20), output_name="read"),
            lambda of: of.run(x=0),
            fails,
        )
        here = str(os.getpid())
        for call in (*calls, breaks_off):
            with self.backend_with(engine, max_workers=2) as backend:
                call(pipeline.with_options(backend=backend))
                words = marks.words(here)
                assert words == ["+", "-"] * (len(words) // 2)
            # A worker that was in the middle of something that nobody wants any more need not end in order.
            if self.closes_in_workers and call is not breaks_off:
                for process in {process for _, process in marks.all()}:
                    words = marks.words(process)
                    assert words == ["+", "-"] * (len(words) // 2)
        assert marks.all()

    def test_resources_are_closed_the_latest_first(self, engine: Any, tmp_path: Path) -> None:
        marks = Marks(tmp_path)

        @resource
        def first() -> Iterator[str]:
            marks.add("+first")
            yield "first"
            marks.add("-first")

        @resource
        def second(first: str) -> Iterator[str]:
            marks.add("+second")
            yield first + " second"
            marks.add("-second")

        read = node(lambda x, second: second, output_name="y")
        with self.backend_with(engine, max_workers=1) as backend:
            found = self.placed([read, first, second], backend).map(rows(3), output_name="y")
        assert found == ["first second"] * 3
        words = [word for word, _ in marks.all()]
        closed = ["-second", "-first"] if self.closes_in_workers or len(words) > 2 else []
        assert words == ["+first", "+second", *closed]

    def test_open_file_is_a_resource(self, backend: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "words")
        Path(path).write_text("one two")

        @resource
        def words() -> Iterator[Any]:
            with open(path) as file:
                yield file

        @node(output_name="y")
        def look(x: Any, words: Any) -> Any:
            return x, words.closed, words.fileno() > 0

        found = self.placed([look, words], backend).map(rows(10), output_name="y")
        compare([(x, False, True) for x in range(10)], found)

    # strategies -------------------------------------------------------------------------------------------------

    def test_map_strategy_changes_neither_values_nor_errors_nor_events(self, strategic: Any) -> None:
        pipeline = Pipeline(nodes=[double, _sum_up, _check_sum, _after], name="main")
        found, trees = list[Any](), list[Any]()
        for place in (None, strategic):
            log = EventLog()
            here = pipeline.with_options(backend=place, callbacks=[log])
            kept = here.map(rows(20), output_name="after", on_error="return")
            found.append([(one.message, one.items) if isinstance(one, Failure) else one for one in kept])
            trees.append(outline(log.tree()))
            with pytest.raises(Refused) as caught:
                here.map(rows(20))
            found.append(caught.value.args)
            trees.append(outline(log.tree()))
        assert found[:2] == found[2:]
        assert trees[:2] == trees[2:]

    def test_random_pipelines_agree_in_every_map_strategy(self, strategic: Any) -> None:
        check_random_cases(25, strategic, any_order=True)

    def test_events_and_caches_agree_in_every_map_strategy(self, strategic: Any) -> None:
        check_random_cases(10, strategic, "check_events")
        check_random_cases(10, strategic, "check_cached", any_order=True)

    def test_stream_draws_a_bounded_step_ahead_in_every_map_strategy(self, strategic: Any) -> None:
        drawn = 0

        def items() -> Iterator[dict[str, Any]]:
            nonlocal drawn
            for drawn in range(1, 1_000_001):
                yield {"x": drawn - 1}

        pipeline = Pipeline(nodes=[double, _sum_up], backend=strategic)
        with closing(pipeline.map_iter(items(), output_name="total")) as stream:
            assert [next(stream) for _ in range(20)] == [3 * x for x in range(20)]
        assert drawn < 20 + self.draw_ahead

    # use --------------------------------------------------------------------------------------------------------

    def test_batches_resources_and_limits_leave_nothing_behind(
        self, engine: Any, no_leaks: LeakWatch, tmp_path: Path
    ) -> None:
        marks = Marks(tmp_path)
        limited = node(_sum_up.func, output_name="total", batch_size=4, limit="calls")
        with self.backend_with(engine, max_workers=2) as backend:
            nodes = [double, limited, _check_sum, _read, _held(marks)]
            pipeline = self.placed(nodes, backend, limits={"calls": 1})
            pipeline.map(rows(10), on_error="return")
            with closing(pipeline.map_iter(rows(500), on_error="return")) as stream:
                next(stream)
            with pytest.raises(Refused):
                pipeline.map(rows(10))


def _held(marks: Marks) -> Any:
    """A resource that marks when it is built and when it is closed."""

    def held() -> Iterator[Any]:
        marks.add("+")
        try:
            yield marks
        finally:
            marks.add("-")

    return resource(held)


@node(output_name="read")
def _read(x: Any, held: Any) -> Any:
    return x, type(held).__name__


@node(output_name="refused")
def _refuse(x: Any, read: Any) -> Any:
    if x == 5:
        raise Refused("5 is refused")
    return x


@node(output_name="total", batch_size=4)
def _sum_up(x: list[int], doubled: list[int]) -> list[int]:
    return [a + b for a, b in zip(x, doubled, strict=True)]


@node(output_name="checked", batch_size=3)
async def _check_sum(total: list[int]) -> list[int]:
    if any(one in (21, 33) for one in total):
        raise Refused(f"{total} is refused")
    return list(total)


@node(output_name="after")
def _after(checked: int, x: int) -> tuple[int, int]:
    return checked, x
