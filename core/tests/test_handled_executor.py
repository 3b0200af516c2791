"""Executors that are made of what a place has, and requests that are given what their nodes ask for."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from hypernodes import IncompatibleEngineError, LocalBackend, Pipeline, PlaceError, node, resource
from hypernodes.plugin import (
    Backend,
    Demand,
    ExecutorEngine,
    Session,
    Site,
    Stage,
    close_process,
    pair,
    payload_of,
    receive,
)
from hypernodes.testing._promises import check_random_cases

pytestmark = pytest.mark.slow


class Desk:
    """What the place has: processes, and a list of what each request asked for."""

    def __init__(self, processes: Executor) -> None:
        self.processes = processes
        self.asked: list[tuple[tuple[str, Demand], ...]] = []


@dataclass(frozen=True)
class DeskEngine(ExecutorEngine):
    name: ClassVar[str] = "desk"
    requires: ClassVar[frozenset[str]] = frozenset({"desk"})
    shares_memory: ClassVar[bool] = False
    by_demand: ClassVar[bool] = True
    overlaps_items: ClassVar[bool] = True
    chunk_seconds: ClassVar[float] = 0.1

    def make_executor(self, workers: int) -> Executor:
        raise AssertionError("its place has the executor")

    def open_executor(self, site: Site, workers: int) -> Any:
        assert workers == 2
        return site.handles["desk"]

    def workers_at(self, site: Site) -> int:
        return min(2, site.max_workers or 2)

    def submit_stage(
        self, executor: Any, stage: Stage, frames: Sequence[Any], blobs: Mapping[str, bytes]
    ) -> Future[bytes]:
        desk: Desk = executor
        desk.asked.append(stage.demands)
        return desk.processes.submit(receive, payload_of(frames, {}), blobs)

    def close_executor(self, executor: Any) -> None:
        """The processes serve all tests."""

    def abort_executor(self, executor: Any) -> None:
        """What runs is short."""


@dataclass(frozen=True)
class DeskBackend(Backend):
    name: ClassVar[str] = "desk"
    provides: ClassVar[frozenset[str]] = frozenset({"desk"})

    engine: Any = DeskEngine()
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    desk: Any = None

    def __post_init__(self) -> None:
        pair(self)

    def open(self) -> Session:
        return DeskSession(self.desk)


class DeskSession(Session):
    def __init__(self, desk: Desk) -> None:
        self.handles = {"desk": desk}

    def close(self) -> None:
        """The engine closes what there is."""


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as found:
        yield found


@pytest.fixture
def desk(processes: Executor) -> Desk:
    return Desk(processes)


@pytest.fixture
def backend(desk: Desk) -> Iterator[DeskBackend]:
    with DeskBackend(desk=desk) as found:
        yield found


GPU = {"gpus": 1}
ASKED = ("main > embed", Demand(gpus=1))


def chain() -> list[Any]:
    first = node(lambda x: x + 1, output_name="a", name="first")
    embed = node(lambda a: a * 2, output_name="b", name="embed", resources=GPU)
    last = node(lambda b: -b, output_name="c", name="last")
    return [first, embed, last]


@pytest.mark.parametrize("count", [1, 40])
def test_nodes_that_ask_for_different_things_travel_apart(backend: DeskBackend, count: int) -> None:
    found = Pipeline(chain(), name="main", backend=backend).map([{"x": x} for x in range(count)], output_name="c")
    assert found == [-2 * (x + 1) for x in range(count)]
    assert set(backend.desk.asked) == {(), (ASKED,)}


def test_nodes_that_ask_for_the_same_travel_together(backend: DeskBackend) -> None:
    both = [node(lambda x: x, output_name="a", name="embed", resources=GPU)]
    both += [node(lambda a: a, output_name="b", name="again", resources=GPU)]
    assert Pipeline(both, name="main", backend=backend).map([{"x": x} for x in range(40)], output_name="b") == list(
        range(40)
    )
    assert set(backend.desk.asked) == {(ASKED, ("main > again", Demand(gpus=1)))}


def test_map_inside_whose_nodes_ask_for_different_things_is_spread(backend: DeskBackend) -> None:
    cell = Pipeline(chain(), name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")
    found = Pipeline([cell], name="main", backend=backend).map(
        [{"xs": list(range(length))} for length in (3, 0, 2)], output_name="c"
    )
    assert found == [[-2, -4, -6], [], [-2, -4]]
    assert set(backend.desk.asked) == {(), (("main > cell > embed", Demand(gpus=1)),)}


def test_clock_of_a_timeout_travels_with_the_node_that_it_is_for(backend: DeskBackend) -> None:
    alone = Pipeline(chain()[1:2], name="main", timeout=600, backend=backend)
    assert alone.map([{"a": a} for a in range(40)], output_name="b") == [2 * a for a in range(40)]
    assert set(backend.desk.asked) == {(ASKED,)}


def test_coroutines_of_many_items_are_awaited_at_once_within_the_budget(desk: Desk) -> None:
    @node(output_name="most")
    async def wait(x: int) -> int:
        counts = globals()
        counts["now"] = counts.get("now", 0) + 1
        most: int = counts["now"]
        await asyncio.sleep(0.01)
        counts["now"] -= 1
        return most

    with DeskBackend(desk=desk, max_workers=8) as eight:
        found = Pipeline([wait], backend=eight).map([{"x": x} for x in range(100)], output_name="most")
    assert 1 < max(found) <= 8
    with DeskBackend(desk=desk, map_execution="sequential") as turns:
        assert Pipeline([wait], backend=turns).map([{"x": x} for x in range(5)], output_name="most") == [1] * 5


def test_random_pipelines_agree(backend: DeskBackend) -> None:
    check_random_cases(30, backend, any_order=True)


def test_stage_says_whether_a_process_keeps_something_for_it(desk: Desk) -> None:
    seen: list[bool] = []

    @dataclass(frozen=True)
    class Watching(DeskEngine):
        def submit_stage(self, executor: Any, stage: Stage, *request: Any) -> Future[bytes]:
            seen.append(stage.is_stateful)
            return super().submit_stage(executor, stage, *request)

    model = resource(lambda: 1, name="model")
    use = node(lambda x, model: x + model, output_name="y")
    with DeskBackend(desk=desk, engine=Watching()) as place:
        assert Pipeline([use, model], backend=place).run(x=1) == {"y": 2}
        assert Pipeline([chain()[0]], backend=place).run(x=1) == {"a": 2}
    assert seen == [True, False]


def test_executor_that_needs_its_place_says_so_elsewhere() -> None:
    with pytest.raises(ValueError, match="it requires 'desk'"):
        from hypernodes import LocalBackend

        LocalBackend(engine=DeskEngine())


def test_worker_closes_what_it_keeps_when_it_is_told_to_and_builds_it_anew() -> None:
    from hypernodes._scope import Scope, keep_of

    closed: list[int] = []
    elsewhere = Scope("a run of another process")
    for number in (1, 2):
        keep_of(elsewhere).once("thing", lambda number=number: number, closed.append)
        close_process()
        close_process()
    assert closed == [1, 2]


class Withdrawing(Executor):
    """Takes everything back as soon as it has it."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


class WithdrawingEngine(ExecutorEngine):
    name: ClassVar[str] = "withdrawing"

    def make_executor(self, workers: int) -> Executor:
        return Withdrawing()


def test_executor_that_takes_back_whatever_it_has_ends_the_run() -> None:
    pipeline = Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=LocalBackend(engine=WithdrawingEngine()))
    with pytest.raises(PlaceError, match=r"cancelled \d+ requests in a row that nobody had given up"):
        pipeline.map([{"x": 1}, {"x": 2}])


@dataclass(frozen=True)
class PickyEngine(DeskEngine):
    """Needs another place where it is given an option."""

    seat: bool = False

    def __post_init__(self) -> None:
        if self.seat:
            object.__setattr__(self, "requires", frozenset({"desk", "chair"}))


def test_what_an_engine_was_given_decides_what_it_requires(desk: Desk) -> None:
    DeskBackend(desk=desk, engine=PickyEngine())
    with pytest.raises(IncompatibleEngineError, match="it requires 'chair', and backend 'desk' provides 'desk'"):
        DeskBackend(desk=desk, engine=PickyEngine(seat=True))
