"""What goes wrong in nodes, values and workers, on every engine: the guilty item fails alone and says where and why."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypernodes import (
    Failure,
    LocalBackend,
    NodeTimeoutError,
    Pipeline,
    RemoteError,
    UnsendableError,
    WorkerLostError,
    failure_of,
    node,
)
from hypernodes._places import _find
from hypernodes.plugin import Backend
from hypernodes.testing import SubprocessBackend
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

pytestmark = pytest.mark.slow

ROOT = str(Path(__file__).resolve().parent.parent)
HOME = os.getpid()
PAUSE = 0.01
PATIENCE = 20.0
"""Seconds after which what should happen soon is taken for never happening."""


@pytest.fixture(autouse=True)
def clean(no_leaks: LeakWatch) -> None:
    return


BACKENDS: dict[str, Callable[[], Backend]] = {
    "sequential": LocalBackend,
    "async": lambda: LocalBackend(engine="async", max_workers=2),
    "threaded": lambda: LocalBackend(engine="threaded", max_workers=2),
    "multiprocess": lambda: LocalBackend(engine="multiprocess", max_workers=2),
    "subprocess": lambda: SubprocessBackend(machines=2, paths=(ROOT,)),
}
HERE = ["sequential", "async", "threaded"]
APART = ["multiprocess", "subprocess"]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with BACKENDS[request.param]() as backend:
        yield backend


on = pytest.mark.parametrize


def still_maps(backend: Backend) -> None:
    """The same backend maps 100 items as if nothing had been."""
    pipeline = Pipeline(nodes=[node(lambda x: x * 3, output_name="y")], backend=backend)
    assert pipeline.map([{"x": x} for x in range(100)], output_name="y") == [x * 3 for x in range(100)]


# the crash matrix


def crash(how: str) -> None:
    if how == "raise":
        raise RuntimeError("crashed")
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


def crash_apart(how: str, home: int) -> str:
    if os.getpid() != home:
        crash(how)
    return "unharmed"


def crash_home(how: str, home: int) -> str:
    if os.getpid() == home:
        crash(how)
    return "unharmed"


class Crasher:
    """Crashes where it is pickled or unpickled; `home` is the process of the caller."""

    def __init__(self, where: str, how: str, home: int) -> None:
        self.where, self.how, self.home = where, how, home

    def __reduce__(self) -> Any:
        if self.where == "pickle":
            crash(self.how)
        if self.where == "unpickle in worker":
            return crash_apart, (self.how, self.home)
        if self.where == "pickle result" and os.getpid() != self.home:
            crash(self.how)
        if self.where == "unpickle in parent" and os.getpid() != self.home:
            return crash_home, (self.how, self.home)
        return Crasher, (self.where, self.how, self.home)


@node(output_name="outcome")
def suffer(x: Any) -> Any:
    if isinstance(x, Crasher):
        if x.where == "call":
            crash(x.how)
        if x.where in ("pickle result", "unpickle in parent"):
            return x
    return "fine"


EVERYWHERE = ["raise", "sys.exit", "os._exit", "segfault", "SIGKILL"]
MATRIX = [
    *itertools.product(["unpickle in worker", "call", "pickle result"], EVERYWHERE),
    # in the caller's own process a real crash would be the caller's own
    *itertools.product(["pickle", "unpickle in parent"], ["raise", "sys.exit"]),
]


def check_crash(backend: Backend, where: str, how: str) -> None:
    pipeline = Pipeline(nodes=[suffer], name="main", backend=backend)
    rows: list[dict[str, Any]] = [{"x": x} for x in range(10)]
    rows[3] = {"x": Crasher(where, how, HOME)}
    found = pipeline.map(rows, output_name="outcome", on_error="return")
    assert [at for at, one in enumerate(found) if one != "fine"] == [3], (where, how, found)
    failure = found[3]
    assert isinstance(failure, Failure)
    assert (failure.item, failure.path) == (3, ("main", "suffer"))
    assert failure.place.split(":")[0] == backend.name
    if how not in ("raise", "sys.exit"):
        expected: type[BaseException] = WorkerLostError
    elif where == "call":
        expected = RuntimeError if how == "raise" else SystemExit
    else:
        expected = UnsendableError
    assert isinstance(failure.error, expected), (where, how, failure)
    if expected is UnsendableError:
        assert ("result" in failure.message) == (where in ("pickle result", "unpickle in parent")), failure.message
        assert "crashed" in failure.message or "SystemExit" in failure.message
    with pytest.raises(expected) as caught:
        pipeline.map(rows)
    told = failure_of(caught.value)
    assert told is not None
    assert told.item == 3


@on("how", EVERYWHERE)
@on("backend", ["multiprocess"], indirect=True)
def test_crash_costs_only_the_guilty_item_and_names_it(backend: Backend, how: str) -> None:
    for where, kind in MATRIX:
        if kind == how:
            check_crash(backend, where, how)
    still_maps(backend)


@on("backend", ["subprocess"], indirect=True)
def test_crash_costs_only_the_guilty_item_also_on_a_place_that_receives_bytes(backend: Backend) -> None:
    for where, how in [
        ("call", "SIGKILL"),
        ("unpickle in worker", "raise"),
        ("pickle result", "sys.exit"),
        ("pickle", "raise"),
    ]:
        check_crash(backend, where, how)
    still_maps(backend)


@on("backend", ["multiprocess"], indirect=True)
def test_several_items_that_kill_fail_each_alone(backend: Backend) -> None:
    rows = [{"x": Crasher("call", "SIGKILL", HOME) if x % 10 == 7 else x} for x in range(40)]
    found = Pipeline(nodes=[suffer], backend=backend).map(rows, output_name="outcome", on_error="return")
    assert [at for at, one in enumerate(found) if one != "fine"] == [7, 17, 27, 37]
    assert all(isinstance(found[at].error, WorkerLostError) and found[at].item == at for at in (7, 17, 27, 37))


@on("backend", ["multiprocess"], indirect=True)
def test_fatal_node_inside_a_map_of_maps_costs_only_the_outer_item(backend: Backend) -> None:
    inner = Pipeline(nodes=[suffer], name="inner")
    outer = Pipeline(nodes=[inner.as_node(map_over="x")], name="outer", backend=backend)
    rows: list[dict[str, Any]] = [{"x": [1, 2]}, {"x": [1, Crasher("call", "SIGKILL", HOME)]}, {"x": []}]
    found = outer.map(rows, output_name="outcome", on_error="return")
    assert (found[0], found[2]) == (["fine", "fine"], [])
    assert isinstance(found[1].error, WorkerLostError)
    assert found[1].item == 1


# the exception zoo


class OwnArguments(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class HoldsALock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class OfTheBase(BaseException):
    """Not an Exception at all."""


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class Impostor(Exception):
    def __reduce__(self) -> Any:
        return ValueError, ("somebody else",)


class ExitsWhenRebuilt(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (5,)


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


def raised_from() -> BaseException:
    try:
        try:
            raise KeyError("deep")
        except KeyError as error:
            raise ValueError("shallow") from error
    except ValueError as error:
        return error


ZOO: dict[str, tuple[Callable[[], BaseException], str]] = {
    "OwnArguments": (lambda: OwnArguments(404, "gone"), "404: gone"),
    "KeywordOnly": (lambda: KeywordOnly(code=7), "code 7"),
    "HoldsALock": (lambda: HoldsALock("held"), "held"),
    "OverflowError": (lambda: OverflowError("long " * 200_000), "long long"),
    "ValueError": (raised_from, "shallow"),
    "ExceptionGroup": (
        lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
        "several (2 sub-exceptions)",
    ),
    "OfTheBase": (lambda: OfTheBase("base"), "base"),
    "Speechless": (lambda: Speechless("mute"), "<the message of this Speechless cannot be read"),
    "StopIteration": (lambda: StopIteration("over"), "over"),
    "StopAsyncIteration": (lambda: StopAsyncIteration("over"), "over"),
    "KeyError": (lambda: KeyError("missing"), "'missing'"),
    "SystemExit": (lambda: SystemExit(3), "3"),
    "GeneratorExit": (lambda: GeneratorExit("closed"), "closed"),
    "CancelledError": (lambda: asyncio.CancelledError("called off"), "called off"),
    "TimeoutError": (lambda: TimeoutError("the user's own"), "the user's own"),
    "RecursionError": (lambda: RecursionError("the user's own"), "the user's own"),
    "UnicodeDecodeError": (lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), "'utf-8' codec"),
    "Unpicklable": (lambda: Unpicklable("kept"), "kept"),
    "Impostor": (lambda: Impostor("myself"), "myself"),
    "ExitsWhenRebuilt": (lambda: ExitsWhenRebuilt("leaving"), "leaving"),
    "Frozen": (lambda: Frozen("cold"), "cold"),
}


@node(output_name="tamed")
def tame(animal: str) -> str:
    if animal in ZOO:
        raise ZOO[animal][0]()
    return animal


@node(output_name="tamed", name="tame")
async def tame_later(animal: str) -> str:
    await asyncio.sleep(0)
    if animal in ZOO:
        raise ZOO[animal][0]()
    return animal


def check_animal(backend: Backend, animal: str, tamer: Any) -> None:
    pipeline = Pipeline(nodes=[tamer], name="main", backend=backend)
    rows = [{"animal": name} for name in ("cat", "dog", animal, "cow")]
    found = pipeline.map(rows, output_name="tamed", on_error="return")
    failure = found.pop(2)
    assert found == ["cat", "dog", "cow"]
    assert isinstance(failure, Failure)
    assert failure.type_name == animal
    assert failure.message.startswith(ZOO[animal][1])
    assert len(failure.message) < 20_000
    assert (failure.path, failure.item) == (("main", "tame"), 2)
    with pytest.raises(BaseException) as caught:
        pipeline.map(rows)
    error = caught.value
    assert type(error).__name__ == animal or (isinstance(error, RemoteError) and error.type_name == animal), repr(error)
    told = failure_of(error)
    if animal != "Frozen":
        assert told is not None
        assert told.where == "main (item 2) > tame"
        assert any("main (item 2) > tame" in note for note in error.__notes__)


@on("tamer", [tame, tame_later], ids=["plain", "awaited"])
@on("backend", BACKENDS, indirect=True)
def test_every_exception_comes_home_with_its_name_text_node_and_item(backend: Backend, tamer: Any) -> None:
    misses = []
    for animal in ZOO:
        if tamer is tame_later and animal in ("StopIteration", "StopAsyncIteration", "GeneratorExit"):
            continue  # these are how Python itself ends and closes coroutines
        try:
            check_animal(backend, animal, tamer)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            misses.append(f"{animal}: {error!r}"[:600])
    assert not misses, "\n".join(misses)
    still_maps(backend)


@on("backend", APART, indirect=True)
def test_cause_of_an_exception_is_told_across_processes(backend: Backend) -> None:
    with pytest.raises(ValueError, match="shallow") as caught:
        Pipeline(nodes=[tame], backend=backend).run(animal="ValueError")
    assert any("KeyError: 'deep'" in note for note in caught.value.__notes__)


# the unsendable zoo


class Client:
    def __init__(self, guard: Any) -> None:
        self.guard = guard


class Config:
    def __init__(self, guard: Any) -> None:
        self.clients = [Client(guard)]


GLOBAL_LOCK = threading.Lock()
MODULE_LAMBDA = lambda x: x + 1  # noqa: E731 - a lambda of a module is what is meant


KINDS: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "generator": lambda: (x for x in range(3)),
    "socket": socket.socket,
    "thread": threading.current_thread,
}


@pytest.fixture
def unsendable() -> Iterator[dict[str, Any]]:
    values = {kind: make() for kind, make in KINDS.items()}
    yield values
    values["socket"].close()


@on("backend", APART, indirect=True)
def test_unsendable_closure_names_node_and_path(backend: Backend, unsendable: dict[str, Any]) -> None:
    for kind, value in unsendable.items():
        config = Config(value)

        def make(config: Any) -> Any:
            def reader(x: int) -> Any:
                return config, x

            return reader

        for wanted in ([{"x": 1}], [{"x": 1}, {"x": 2}]):
            with pytest.raises(UnsendableError) as caught:
                Pipeline(nodes=[node(make(config), output_name="y")], name="main", backend=backend).map(wanted)
            message = str(caught.value)
            assert "main > reader" in message
            assert "config" in message and ".clients[0].guard" in message, (kind, message)
    still_maps(backend)


@on("backend", APART, indirect=True)
def test_unsendable_global_names_node_and_name(backend: Backend) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "LOCK": threading.Lock()}
    exec("def locked(x):\n    with LOCK:\n        return x\n", namespace)
    with pytest.raises(UnsendableError, match=r"main > locked.*LOCK"):
        Pipeline(nodes=[node(namespace["locked"], output_name="y")], name="main", backend=backend).run(x=1)
    still_maps(backend)


@on("backend", APART, indirect=True)
def test_unsendable_input_names_parameter_and_path_and_spares_the_others(
    backend: Backend, unsendable: dict[str, Any]
) -> None:
    kind_of = node(lambda config, x: type(config).__name__, output_name="kind", name="kind_of")
    pipeline = Pipeline(nodes=[kind_of], name="main", backend=backend)
    for kind, value in unsendable.items():
        rows: list[dict[str, Any]] = [{"config": x} for x in range(5)]
        rows[2] = {"config": {"deep": [Config(value)]}}
        found = pipeline.map(rows, inputs={"x": 1}, output_name="kind", on_error="return")
        failure = found.pop(2)
        assert found == ["int"] * 4
        assert isinstance(failure.error, UnsendableError), (kind, failure)
        assert "'config['deep'][0].clients[0].guard" in failure.message, (kind, failure.message)
        assert failure.item == 2
        assert failure.path[-1] == "kind_of"
        with pytest.raises(UnsendableError, match="config"):
            pipeline.run(config=value, x=1)
    still_maps(backend)


@on("backend", APART, indirect=True)
def test_unsendable_shared_input_is_named(backend: Backend) -> None:
    pipeline = Pipeline(nodes=[node(lambda guard, x: x, output_name="y")], backend=backend)
    with pytest.raises(UnsendableError, match="'guard'"):
        pipeline.map([{"x": 1}, {"x": 2}], inputs={"guard": threading.Lock()})


@on("backend", APART, indirect=True)
def test_unsendable_result_names_node_and_output_and_spares_the_others(backend: Backend) -> None:
    @node(output_name=("size", "made"))
    def make(x: str) -> Any:
        return 1, [KINDS[x]() if x in KINDS else x]

    pipeline = Pipeline(nodes=[make], name="main", backend=backend)
    for kind in KINDS:
        found = pipeline.map([{"x": "a"}, {"x": kind}, {"x": "b"}], output_name="made", on_error="return")
        assert (found[0], found[2]) == (["a"], ["b"])
        assert isinstance(found[1].error, UnsendableError)
        assert "the result 'made[0]" in found[1].message, found[1].message
        assert "'make'" in found[1].message
        assert (found[1].item, found[1].path) == (1, ("main", "make"))
    still_maps(backend)


@on("backend", APART, indirect=True)
def test_lambdas_of_modules_and_what_pickles_by_reference_travel(backend: Backend) -> None:
    pipeline = Pipeline(nodes=[node(MODULE_LAMBDA, output_name="y"), tame], backend=backend)
    assert pipeline.run(x=1, animal="cat") == {"y": 2, "tamed": "cat"}


# the kill storm


def workers_of(backend: Backend) -> tuple[int, ...]:
    """The processes of a backend's pool that are ready now."""
    place = _find(backend)
    pools = [kept for kept, _ in place.site._kept.values()] if place is not None else []
    return tuple(pid for pool in pools for pid in pool.pids)


def test_storm_of_kills_loses_nothing_and_blames_nobody() -> None:
    wanted = int(os.environ.get("HYPERNODES_STORM", "150"))
    seed = int(os.environ.get("HYPERNODES_SEED", "1"))
    pick, kills, over = random.Random(seed), 0, threading.Event()
    drawn = count = 0
    drawn_at: list[int] = []

    def storm() -> None:
        nonlocal kills
        while kills < wanted and not over.wait(pick.uniform(0, 0.02)):
            pids = workers_of(place)
            # An item that three workers died of is blamed, rightly or not. Until all is delivered that was drawn
            # before the last kill but one there is no other, so that it strikes no item thrice on however slow a
            # machine.
            if pids and (len(drawn_at) < 2 or count >= drawn_at[-2]):
                try:
                    os.kill(pick.choice(pids), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                drawn_at.append(drawn)
                kills += 1

    def items() -> Iterator[dict[str, int]]:
        nonlocal drawn
        for x in itertools.count():
            if x >= 3_000 and kills >= wanted:
                return
            drawn += 1
            yield {"x": x}

    def cube(x: int) -> int:
        for _ in range(2_000):
            pass
        return x**3

    with LocalBackend(engine="multiprocess", max_workers=2) as place:
        # By value, as this module takes a new worker longer to import than it is left alive.
        stream: Any = Pipeline(nodes=[node(cube, output_name="cube")], backend=place).map_iter(
            items(), output_name="cube", on_error="return"
        )
        thread = threading.Thread(target=storm, name="storm")
        began = time.perf_counter()
        thread.start()
        try:
            for at, value in enumerate(stream):
                assert value == at**3, f"HYPERNODES_SEED={seed}: item {at} gave {value}"
                count += 1
        finally:
            over.set()
            thread.join()
            stream.close()
        assert kills >= wanted
        assert count >= 3_000
        print(f"{kills} kills, {count} items, {time.perf_counter() - began:.1f} s, seed {seed}")
        still_maps(place)


# timeouts

stop = threading.Event()
"""Lets those functions go that were left behind in this process."""


@node(output_name="slept", timeout=2)
def sleeper(x: int) -> int:
    if x == 2:
        stop.wait(60)
    return x


@node(output_name="slept", timeout=2, name="sleeper")
def spinner(x: int) -> int:
    while x == 2 and not stop.is_set():
        pass
    return x


@node(output_name="slept", timeout=2, name="sleeper")
async def waiter(x: int) -> int:
    if x == 2:
        await asyncio.sleep(60)
    return x


@on("slow", [sleeper, spinner, waiter], ids=["sleeps", "spins", "awaits"])
@on("backend", BACKENDS, indirect=True)
def test_node_that_runs_too_long_fails_alone_and_soon(backend: Backend, slow: Any) -> None:
    pipeline = Pipeline(nodes=[slow], name="main", backend=backend)
    still_maps(backend)  # its workers are there
    try:
        found = pipeline.map([{"x": x} for x in range(6)], output_name="slept", on_error="return")
        failure = found.pop(2)
        assert found == [0, 1, 3, 4, 5]
        assert isinstance(failure.error, NodeTimeoutError)
        assert failure.message == "node 'sleeper' ran longer than its timeout of 2 s"
        assert (failure.path, failure.item) == (("main", "sleeper"), 2)
        with pytest.raises(TimeoutError):
            pipeline.run(x=2)
        still_maps(backend)
    finally:
        stop.set()
        for thread in threading.enumerate():
            if thread.name.startswith("hypernodes-timeout"):
                thread.join(PATIENCE)
        stop.clear()


@on("backend", ["multiprocess"], indirect=True)
def test_worker_whose_node_ran_too_long_is_replaced(backend: Backend) -> None:
    @node(output_name="never", timeout=0.3)
    def spin(x: int) -> int:
        while True:
            pass

    still_maps(backend)
    wait_until(lambda: len(workers_of(backend)) == 2, PATIENCE)
    before = workers_of(backend)
    with pytest.raises(NodeTimeoutError):
        Pipeline(nodes=[spin], backend=backend).run(x=1)
    wait_until(lambda: sum(map(is_alive, before)) == 1, PATIENCE)
    wait_until(lambda: len(workers_of(backend)) == 2, PATIENCE)
    still_maps(backend)


def wait_until(over: Callable[[], bool], seconds: float) -> None:
    """Fails when it is not `over` after `seconds`, which are counted in looks: a machine may stand still meanwhile."""
    for _ in range(round(seconds / PAUSE)):
        if over():
            return
        time.sleep(PAUSE)
    raise AssertionError(f"not over after {seconds} s")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# nesting and the budget


def nesting(backend: Backend, levels: int, **options: Any) -> Pipeline:
    """A node that runs a pipeline with a node that runs a pipeline ..., all on one backend."""
    pipeline = Pipeline(nodes=[node(lambda x: x + 1, output_name="y")], backend=backend)
    for _ in range(levels):
        pipeline = Pipeline(nodes=[node(caller_of(pipeline), output_name="y", **options)], backend=backend)
    return pipeline


def caller_of(pipeline: Pipeline) -> Callable[[int], Any]:
    def call(x: int) -> Any:
        return pipeline.map([{"x": x}, {"x": x}], output_name="y")[1]

    return call


@on("options", [{}, {"timeout": 60.0}], ids=["plain", "timed"])
@on("workers", [1, 2])
@on("engine", ["async", "threaded", "multiprocess"])
def test_calls_within_nodes_never_wait_for_their_own_worker(engine: str, workers: int, options: Any) -> None:
    with LocalBackend(engine=engine, max_workers=workers) as backend:
        assert nesting(backend, 5, **options).map([{"x": x} for x in range(4)], output_name="y") == [1, 2, 3, 4]


@on("engine", ["async", "threaded", "multiprocess"])
def test_pipelines_nested_10_deep_share_one_worker(engine: str) -> None:
    pipeline = Pipeline(nodes=[node(lambda x: x + 1, output_name="y")], name="inmost")
    items: Any = 1
    for level in range(10):
        pipeline = Pipeline(nodes=[pipeline.as_node(map_over="x")], name=f"level{level}")
        items = [items, items] if level < 3 else [items]
    with LocalBackend(engine=engine, max_workers=1) as backend:
        found = pipeline.with_backend(backend).run(x=items, output_name="y")
    while isinstance(found, list):
        found = found[-1]
    assert found == 2


@node(output_name="left")
def left(x: int) -> tuple[float, float]:
    return busy()


@node(output_name="right")
def right(x: int) -> tuple[float, float]:
    return busy()


@node(output_name="last")
def last(left: Any, right: Any) -> tuple[float, float]:
    return busy()


def busy() -> tuple[float, float]:
    """When it ran, on the clock that all processes of a machine share."""
    began = time.monotonic()
    time.sleep(0.004)
    return began, time.monotonic()


def meet(folder: str, x: int) -> tuple[float, float]:
    """When it ran, which is not over before two such calls run."""
    began = time.monotonic()
    Path(folder, str(x)).touch()
    wait_until(lambda: len(os.listdir(folder)) >= 2, PATIENCE)
    return began, time.monotonic()


def check_that_an_overlap_is_counted(backend: Backend, folder: Path) -> None:
    meeting = Pipeline(nodes=[node(meet, output_name="met")], name="meeting", backend=backend)
    met = list(spans(meeting.map([{"folder": str(folder), "x": x} for x in range(2)])))
    assert most_at_once(met) == 2, "nothing overlapped: the count would see no excess either"


def spans(value: Any) -> Iterator[tuple[float, float]]:
    """All pairs of times in a result."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, tuple):
            yield one
        elif isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list):
            todo += one


def most_at_once(times: list[tuple[float, float]]) -> int:
    events = sorted([(began, 1) for began, _ in times] + [(ended, -1) for _, ended in times])
    return max(itertools.accumulate(step for _, step in events))


@on(
    ("engine", "modes"),
    [
        pytest.param(engine, modes, id=f"{engine}-{modes[0]}-{modes[1]}")
        for engine in ("threaded", "async", "multiprocess")
        for modes in itertools.product(("sequential", "async", "parallel"), repeat=2)
        if modes != ("sequential", "sequential") and not (engine == "async" and "parallel" in modes)
    ],
)
def test_nodes_items_and_nesting_share_one_budget(engine: str, modes: tuple[str, str], tmp_path: Path) -> None:
    nodes, items = modes
    inner = Pipeline(nodes=[left, right, last], name="inner")
    renamed = {"left": "lefts", "right": "rights", "last": "lasts"}
    outer = Pipeline(nodes=[inner.as_node({"xs": "x"}, renamed, map_over="xs"), left, right, last], name="outer")
    with LocalBackend(engine=engine, max_workers=3, node_execution=nodes, map_execution=items) as backend:
        pipeline = outer.with_backend(backend)
        rows = [{"xs": [1, 2, 3], "x": x} for x in range(4)]
        if "sequential" not in modes:
            check_that_an_overlap_is_counted(backend, tmp_path)
        few = list(spans(pipeline.map(rows)))
        many = list(spans(pipeline.map([{"xs": [1], "x": x} for x in range(16)])))
        one = list(spans(pipeline.run(rows[0])))
    assert (len(few), len(many), len(one)) == (48, 96, 12)
    for times in (few, many, one):
        assert most_at_once(times) <= 3


def test_calls_within_nodes_stay_within_the_budget(tmp_path: Path) -> None:
    with LocalBackend(engine="threaded", max_workers=3) as backend:
        check_that_an_overlap_is_counted(backend, tmp_path)
        inner = Pipeline(nodes=[left, right], name="inner", backend=backend)
        caller = node(lambda x: inner.map([{"x": 1}] * 3), output_name="rows")
        found = Pipeline(nodes=[caller], backend=backend).map([{"x": x} for x in range(8)])
    times = list(spans(found))
    assert len(times) == 48
    assert most_at_once(times) <= 3


# one pipeline in two parents


def test_one_pipeline_in_two_parents_runs_in_the_place_of_each_at_once() -> None:
    inner = Pipeline(nodes=[node(lambda x: (x, os.getpid()), output_name="y")], name="inner")
    start = threading.Barrier(2, timeout=PATIENCE)
    rows = [{"x": x} for x in range(20)]
    found: dict[str, list[Any]] = {"threaded": [], "multiprocess": []}

    def use(engine: str) -> None:
        parent = Pipeline(nodes=[inner], name=engine, backend=LocalBackend(engine=engine, max_workers=2))
        for _ in range(10):
            start.wait()
            found[engine].append(parent.map(rows, output_name="y"))

    threads = [threading.Thread(target=use, args=(engine,)) for engine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for engine, results in found.items():
        assert [[x for x, _ in result] for result in results] == [list(range(20))] * 10
        pids = {pid for result in results for _, pid in result}
        assert pids == {HOME} if engine == "threaded" else HOME not in pids
    assert inner.backend is None
