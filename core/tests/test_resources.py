"""Resources: built once where they are needed, shared by all who ask, closed with the call."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import pickle
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from thread_engine import threads

from hypernodes import (
    DuplicateOutputError,
    Failure,
    GraphError,
    LocalBackend,
    MemoryCache,
    MissingInputError,
    Pipeline,
    Resource,
    ResourceError,
    TypeMismatchError,
    UnknownOutputError,
    _keep,
    node,
    resource,
)
from hypernodes._acquire import supplied
from hypernodes._backend import label
from hypernodes._engine import Engine, Feed, Site
from hypernodes._errors import CycleError, NodeDefinitionError, NodeTimeoutError, PlaceError
from hypernodes._failure import describe
from hypernodes._loops import run_coroutine
from hypernodes._plan import Step
from hypernodes._resource import Need
from hypernodes._scope import Scope, keep_of, opened
from hypernodes._task import Outcome, Stage, run_step
from hypernodes.testing import EventLog, SubprocessBackend
from hypernodes.testing._event_tree import event_problems

ITEMS = [{"x": at} for at in range(5)]
BACKENDS = {
    "sequential": LocalBackend(),
    "threaded": threads(3),
    "async": LocalBackend(engine="async"),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> LocalBackend:
    return BACKENDS[request.param]


class Diary:
    """What happened, in order; a resource of each kind that writes into it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def plain(self, name: str, value: Any = 1) -> Resource:
        def build() -> Any:
            self.lines.append(f"build {name}")
            return value

        return resource(build, name=name)

    def closing(self, name: str, value: Any = 1) -> Resource:
        def build() -> Iterator[Any]:
            self.lines.append(f"build {name}")
            yield value
            self.lines.append(f"close {name}")

        return resource(build, name=name)

    def closing_async(self, name: str, value: Any = 1) -> Resource:
        async def build() -> AsyncIterator[Any]:
            self.lines.append(f"build {name}")
            yield value
            await asyncio.sleep(0)
            self.lines.append(f"close {name}")

        return resource(build, name=name)

    def broken(self, name: str, error: BaseException) -> Resource:
        def build() -> Any:
            self.lines.append(f"try {name}")
            raise error

        return resource(build, name=name)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@node(output_name="y")
def use(x: int, model: Any) -> Any:
    return (x, model)


@node(output_name="y")
async def use_async(x: int, client: Any) -> Any:
    return (x, client)


# -- built once, closed once


def test_a_resource_is_built_once_for_all_items_and_closed_with_the_call(diary: Diary, backend: LocalBackend) -> None:
    pipeline = Pipeline([diary.closing("model", "m"), use], backend=backend)
    assert pipeline.run(x=1) == {"y": (1, "m")}
    assert diary.take() == ["build model", "close model"]
    assert pipeline.map(ITEMS, output_name="y") == [(at, "m") for at in range(5)]
    assert diary.take() == ["build model", "close model"]
    assert pipeline.map(inputs={"x": [1, 2]}, map_over="x", output_name="y") == [(1, "m"), (2, "m")]
    assert diary.take() == ["build model", "close model"]


async def _arun(pipeline: Pipeline) -> Any:
    return await pipeline.arun(x=1, output_name="y"), await pipeline.amap(ITEMS, output_name="y")


def test_the_same_from_a_running_loop(diary: Diary, backend: LocalBackend) -> None:
    pipeline = Pipeline([diary.closing("model", "m"), use], backend=backend)
    assert asyncio.run(_arun(pipeline)) == ((1, "m"), [(at, "m") for at in range(5)])
    assert diary.take() == ["build model", "close model"] * 2


def test_threads_that_need_it_at_once_share_the_one_that_is_built(diary: Diary) -> None:
    together = threading.Barrier(3)

    @node(output_name="y")
    def meet(x: int, model: object) -> object:
        together.wait(20)
        return model

    pipeline = Pipeline([diary.plain("model", object()), meet], backend=BACKENDS["threaded"])
    found = pipeline.map(ITEMS[:3], output_name="y")
    assert len(set(map(id, found))) == 1
    assert diary.take() == ["build model"]


def test_what_nobody_asks_for_is_not_built(diary: Diary) -> None:
    pipeline = Pipeline([diary.plain("model"), use, node(lambda x: x, output_name="z")])
    assert pipeline.run(x=1, output_name="z") == 1
    assert diary.take() == []


def test_resources_need_each_other_and_are_closed_in_reverse_order(diary: Diary, backend: LocalBackend) -> None:
    def index(store: Any, shelf: Any) -> Iterator[Any]:
        diary.lines.append("build model")
        yield (store, shelf)
        diary.lines.append("close model")

    shelf, store = diary.closing("shelf", "f"), diary.closing("store", "s")
    pipeline = Pipeline([use, resource(index, name="model"), shelf, store], backend=backend)
    assert pipeline.map(ITEMS[:2], output_name="y") == [(0, ("s", "f")), (1, ("s", "f"))]
    built = diary.take()
    assert built[:3] == ["build store", "build shelf", "build model"]
    assert built[3:] == ["close model", "close shelf", "close store"]


def test_a_chain_of_resources_may_be_longer_than_the_recursion_limit() -> None:
    links = [resource(lambda: 0, name="r0")]
    for at in range(1, 1200):
        scope: dict[str, Any] = {}
        exec(f"def r{at}(r{at - 1}): return r{at - 1} + 1", scope)
        links.append(resource(scope[f"r{at}"]))
    last = node(lambda r1199: r1199, output_name="y")
    assert Pipeline([*links, last]).run(output_name="y") == 1199


def test_every_form_of_function_builds_a_resource() -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def managed() -> Iterator[str]:
        try:
            yield "managed"
        finally:
            log.append("managed")

    class Model:
        def __init__(self, size: int = 3) -> None:
            self.size = size

    @resource(name="other")
    def named() -> str:
        return "other"

    @node(output_name="y")
    def show(managed: str, model: Any, other: str) -> Any:
        return managed, model.size, other

    pipeline = Pipeline([resource(managed), resource(Model, name="model"), named, show])
    assert pipeline.run(output_name="y") == ("managed", 3, "other")
    assert log == ["managed"]
    assert named() == "other", "it stays a plain callable"


def test_a_returned_generator_or_context_manager_is_passed_as_it_is() -> None:
    lock = threading.Lock()
    numbers = (at for at in range(3))
    look = node(lambda lock, numbers: (lock.locked(), list(numbers)), output_name="y")
    pipeline = Pipeline([resource(lambda: lock, name="lock"), resource(lambda: numbers, name="numbers"), look])
    assert pipeline.run(output_name="y") == (False, [0, 1, 2])


def test_it_is_built_in_the_context_of_the_node_and_where_it_runs() -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    variable.set("inside")
    seen = resource(lambda: (variable.get(), threading.current_thread()), name="seen")
    pipeline = Pipeline([seen, node(lambda seen: (seen, threading.current_thread()), output_name="y")])
    (value, built_in), ran_in = pipeline.run(output_name="y")
    assert value == "inside"
    assert built_in is ran_in


def test_batch_nodes_are_given_resources_once_a_call(diary: Diary, backend: LocalBackend) -> None:
    @node(output_name="y", batch_size=2)
    def embed(x: list[int], model: int) -> list[int]:
        return [one * model for one in x]

    pipeline = Pipeline([diary.closing("model", 10), embed], backend=backend)
    assert pipeline.map(ITEMS, output_name="y") == [0, 10, 20, 30, 40]
    assert pipeline.run(x=7, output_name="y") == 70
    assert diary.take() == ["build model", "close model"] * 2


def test_a_broken_resource_of_a_batch_node_ends_the_run_and_is_not_halved(diary: Diary, backend: LocalBackend) -> None:
    @node(output_name="y", batch_size=4)
    def embed(x: list[int], model: int) -> list[int]:
        return x

    pipeline = Pipeline([diary.broken("model", OSError("gone")), embed], backend=backend)
    with pytest.raises(ResourceError, match="'model'"):
        pipeline.map(ITEMS, on_error="return")
    assert diary.take() == ["try model"]


def test_what_overrides_a_resource_comes_single_to_a_batch_node(diary: Diary) -> None:
    @node(output_name="y", batch_size=2)
    def embed(x: list[int], model: Any) -> list[Any]:
        return [(one, model) for one in x]

    own = Pipeline([diary.plain("model"), embed], name="own")
    assert own.run(x=1, model="fake", output_name="y") == (1, "fake")
    assert own.map(ITEMS[:1], inputs={"x": 1, "model": "fake"}, output_name="y") == [(0, "fake")]
    asks = Pipeline([embed], name="asks")
    around = Pipeline(
        [
            diary.plain("model"),
            asks.as_node(map_over="x"),
            asks.as_node(name="z", output_mapping={"y": "z"}, input_mapping={"w": "x"}),
        ]
    )
    assert around.run(x=[1, 2, 3], w=4, model="fake") == {"y": [(at, "fake") for at in (1, 2, 3)], "z": (4, "fake")}
    assert diary.take() == []


def test_a_batch_node_takes_something_else_than_resources(diary: Diary) -> None:
    whole = node(lambda model: [model], output_name="y", batch_size=2, name="whole")
    pipeline = Pipeline([diary.plain("model"), whole], name="main")
    with pytest.raises(
        GraphError, match="node 'main > whole' takes batches, but nothing comes to it as a list of items"
    ):
        pipeline.run()
    assert pipeline.run(y=3) == {"y": 3}, "nobody minds where it does not run"
    asks = Pipeline([diary.plain("model"), node(lambda x, model: x, output_name="y", batch_size=2, batch_over="x")])
    with pytest.raises(MissingInputError, match="'x'"):
        asks.run()


# -- closed however the call ends


@node(output_name="y")
def fail(x: int, model: Any) -> Any:
    raise ValueError(f"no {x}")


def test_it_is_closed_when_a_node_fails(diary: Diary, backend: LocalBackend) -> None:
    pipeline = Pipeline([diary.closing("model"), fail], backend=backend)
    with pytest.raises(ValueError, match="no 1"):
        pipeline.run(x=1)
    assert diary.take() == ["build model", "close model"]
    with pytest.raises(ValueError, match="no 0"):
        pipeline.map(ITEMS)
    assert diary.take() == ["build model", "close model"]
    assert all(isinstance(found, Failure) for found in pipeline.map(ITEMS, on_error="return"))
    assert diary.take() == ["build model", "close model"]


def test_it_is_closed_after_ctrl_c(diary: Diary) -> None:
    @node(output_name="y")
    def interrupted(x: int, model: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([diary.closing("model"), interrupted]).map(ITEMS)
    assert diary.take() == ["build model", "close model"]


def test_those_that_are_built_are_closed_when_ctrl_c_strikes_while_another_is_being_built(diary: Diary) -> None:
    broken = resource(_interrupting, name="second")
    take = node(lambda first, second: 0, output_name="y")
    with pytest.raises(KeyboardInterrupt):
        Pipeline([diary.closing("first"), broken, take]).run()
    assert diary.take() == ["build first", "close first"]


def _interrupting() -> Any:
    raise KeyboardInterrupt


def test_the_others_are_closed_when_ctrl_c_strikes_while_one_is_being_closed(diary: Diary) -> None:
    def second(first: Any) -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    take = node(lambda first, second: 0, output_name="y")
    with pytest.raises(KeyboardInterrupt):
        Pipeline([diary.closing("first"), resource(second), take]).run()
    assert diary.take() == ["build first", "close first"]


def test_it_is_closed_with_a_closed_iterator(diary: Diary, backend: LocalBackend) -> None:
    pipeline = Pipeline([diary.closing("model"), use], backend=backend)
    results = pipeline.map_iter(ITEMS)
    assert next(results) == {"y": (0, 1)}
    assert diary.take() == ["build model"]
    results.close()
    assert diary.take() == ["close model"]


def test_it_is_closed_when_the_task_is_cancelled(diary: Diary) -> None:
    reached = asyncio.Event()

    @node(output_name="y")
    async def wait(x: int, client: Any, model: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    pipeline = Pipeline([diary.closing_async("client"), diary.closing("model"), wait], backend=BACKENDS["async"])

    async def main() -> None:
        task = asyncio.create_task(pipeline.arun(x=1))
        await reached.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert diary.take() == ["build client", "build model", "close model", "close client"]


def test_a_thread_that_is_left_behind_is_not_waited_for(diary: Diary) -> None:
    release, over = threading.Event(), threading.Event()

    @node(output_name="y", timeout=0.01)
    def slow(x: int, model: Any) -> None:
        release.wait(20)
        over.set()

    pipeline = Pipeline([diary.closing("model"), slow])
    with pytest.raises(NodeTimeoutError):
        pipeline.run(x=1)
    assert diary.take() == ["build model", "close model"]
    assert not over.is_set()
    release.set()
    assert over.wait(20)


def test_whoever_still_uses_it_when_a_run_was_stopped_is_waited_for(diary: Diary) -> None:
    begun = threading.Event()

    @node(output_name="y")
    def work(x: int, model: Any) -> int:
        if x:
            begun.wait(20)
            raise ValueError("stop")
        begun.set()
        failed.wait(20)
        diary.lines.append("used")
        return x

    failed = threading.Event()

    def told(event: Any) -> None:
        if event.kind == "node" and event.status == "error":
            failed.set()

    pipeline = Pipeline([diary.closing("model"), work], backend=BACKENDS["threaded"], callbacks=[told])
    with pytest.raises(ValueError, match="stop"):
        list(pipeline.map_iter([{"x": 1}, {"x": 0}]))
    assert diary.take() == ["build model", "used", "close model"]


def test_an_error_on_closing_is_raised_where_the_call_succeeded(diary: Diary, backend: LocalBackend) -> None:
    def model() -> Iterator[int]:
        yield 1
        raise OSError("disk full")

    pipeline = Pipeline([diary.closing("first"), resource(model), node(lambda first, model: 0, output_name="y")])
    with pytest.raises(ResourceError) as caught:
        pipeline.with_backend(backend).run()
    assert str(caught.value) == "resource 'model' (of pipeline) could not be closed: OSError: disk full"
    assert isinstance(caught.value.__cause__, OSError)
    assert diary.take() == ["build first", "close first"]


def test_an_error_on_closing_is_a_note_where_the_call_has_failed() -> None:
    def model() -> Iterator[int]:
        yield 1
        raise OSError("disk full")

    with pytest.raises(ValueError, match="no 1") as caught:
        Pipeline([resource(model), fail]).run(x=1)
    notes = caught.value.__notes__
    assert "besides, resource 'model' (of pipeline) could not be closed: OSError: disk full" in notes


# -- what cannot be built


def test_what_cannot_be_built_ends_the_run_once(diary: Diary, backend: LocalBackend) -> None:
    inner = Pipeline([diary.broken("model", OSError("no such file")), use], name="inner")
    pipeline = Pipeline([inner.as_node(map_over="x")], name="main", backend=backend)
    for on_error in ("raise", "return"):
        with pytest.raises(ResourceError) as caught:
            pipeline.map([{"x": [1, 2]}] * 3, on_error=on_error)
        said = f"resource 'model' (of main > inner) could not be built on {label(backend)}: OSError: no such file"
        assert str(caught.value) == said
        assert isinstance(caught.value.__cause__, OSError)
        assert diary.take() == ["try model"]
    with pytest.raises(ResourceError, match="no such file"):
        list(pipeline.map_iter([{"x": [1]}]))
    with pytest.raises(ResourceError, match="no such file"):
        asyncio.run(pipeline.amap([{"x": [1]}], on_error="return"))
    with pytest.raises(ResourceError, match="no such file"):
        asyncio.run(pipeline.arun(x=[1]))


def test_what_was_built_before_is_closed_when_another_cannot_be_built(diary: Diary, backend: LocalBackend) -> None:
    pipeline = Pipeline(
        [
            diary.closing("first"),
            diary.broken("second", OSError("gone")),
            node(lambda x, first, second: 0, output_name="y"),
        ],
        backend=backend,
    )
    with pytest.raises(ResourceError):
        pipeline.map(ITEMS)
    assert diary.take() == ["build first", "try second", "close first"]


def test_building_is_neither_retried_nor_bounded_by_the_node(diary: Diary) -> None:
    release = threading.Event()

    @node(output_name="y", timeout=30, retries=3, retry_delay=0)
    def quick(x: int, model: Any) -> Any:
        return model

    with pytest.raises(ResourceError):
        Pipeline([diary.broken("model", OSError("gone")), quick]).run(x=1)
    assert diary.take() == ["try model"]

    @node(output_name="y", timeout=1.0)
    def bounded(x: int, model: Any) -> Any:
        return model

    def slow() -> str:
        release.wait(1.5)  # longer than the node may take
        return "built"

    assert Pipeline([resource(slow, name="model"), bounded]).run(x=1, output_name="y") == "built"


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), StopIteration("end")])
def test_whatever_a_builder_raises_ends_the_run_as_a_resource_error(
    diary: Diary, backend: LocalBackend, error: BaseException
) -> None:
    pipeline = Pipeline([diary.broken("model", error), use], backend=backend)
    with pytest.raises(ResourceError) as caught:
        pipeline.run(x=1)
    assert type(caught.value.__cause__) is type(error)


def test_a_run_within_a_node_ends_alone(diary: Diary) -> None:
    inner = Pipeline([diary.broken("model", OSError("gone")), use])

    @node(output_name="z")
    def nested(x: int) -> Any:
        return inner.run(x=x) if x else 0

    outer = Pipeline([nested, diary.plain("model"), node(lambda model, z: z, output_name="y")])
    first, second = outer.map([{"x": 0}, {"x": 1}], on_error="return", output_name="y")
    assert first == 0
    assert isinstance(second, Failure)
    assert isinstance(second.error, ResourceError)


class Stepwise(Engine):
    """Calls single steps, as an engine that builds graphs does, and makes an outcome of whatever they raise."""

    name = "stepwise"

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for task in tasks:
            values = dict(zip([slot for _, slot in stage.inputs], task.values, strict=True))
            try:
                for step in stage.steps:
                    assert isinstance(step, Step)
                    made = run_step(step, {name: values[slot] for name, slot in step.reads})
                    values.update(zip(step.writes, made, strict=True))
            except Exception as error:
                failure = describe(error, step.path, (None,) * len(step.path), "local:stepwise")
                yield Outcome(task.index, None, failure)
            else:
                yield Outcome(task.index, tuple([values[slot] for _, slot in stage.outputs]))


def test_an_engine_that_calls_single_steps_has_resources_too(diary: Diary) -> None:
    backend = LocalBackend(engine=Stepwise())
    pipeline = Pipeline([diary.closing("model", "m"), use], backend=backend)
    assert pipeline.map(ITEMS[:2], output_name="y") == [(0, "m"), (1, "m")]
    assert diary.take() == ["build model", "close model"]
    failing = Pipeline([diary.broken("model", OSError("gone")), use], name="main", backend=backend)
    for on_error in ("raise", "return"):
        with pytest.raises(ResourceError) as caught:
            failing.map(ITEMS, on_error=on_error)
        said = "resource 'model' (of main) could not be built on local:stepwise: OSError: gone"
        assert str(caught.value) == said
        assert diary.take() == ["try model"]


def test_a_generator_that_does_not_yield_once_is_told() -> None:
    def never() -> Iterator[int]:
        yield from ()

    def twice() -> Iterator[int]:
        yield 1
        yield 2

    take = node(lambda model: model, output_name="y")
    with pytest.raises(ResourceError, match=r"could not be built .*: its function ended without a yield"):
        Pipeline([resource(never, name="model"), take]).run()
    with pytest.raises(ResourceError, match="could not be closed: its function yields a second time"):
        Pipeline([resource(twice, name="model"), take]).run()


# -- who keeps them


def test_the_last_user_closes_what_nobody_waits_for_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keep, "GRACE", 0.0)
    closed: list[str] = []
    keep = _keep.Keep()
    keep.enter()
    assert keep.once("a", lambda: "a", closed.append) == "a"
    assert keep.once("a", lambda: "other", closed.append) == "a"
    assert keep.close() == []
    assert closed == []
    keep.once("late", lambda: "late", closed.append)
    keep.leave()
    assert closed == ["late", "a"]


def test_what_is_made_when_all_is_closed_is_closed_by_who_made_it() -> None:
    closed: list[str] = []
    keep = _keep.Keep()
    assert keep.close() == []
    keep.enter()
    keep.once("late", lambda: "late", closed.append)
    keep.leave()
    assert closed == ["late"]


def test_an_error_that_nobody_can_be_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail_to_close(_: object) -> None:
        raise OSError("disk full")

    keep = _keep.Keep()
    keep.once("a", object, fail_to_close)
    keep.end()
    assert [record.getMessage() for record in caplog.records] == ["disk full"]


def test_a_call_that_is_over_builds_nothing_more() -> None:
    with opened() as scope:
        assert keep_of(scope) is keep_of(scope)
    with pytest.raises(PlaceError, match="is over"):
        keep_of(scope)
    elsewhere = Scope("another process")
    assert keep_of(elsewhere) is keep_of(Scope("and another"))


def test_a_process_lets_go_of_resources_of_loops_that_ended() -> None:
    class Client:
        pass

    async def client() -> Client:
        return Client()

    async def take(client: Client) -> Client:
        return client

    need = Need(resource(client), ("main", "client"))
    call = supplied(("main", "take"), (("client", need),), take, is_async=True, alone=True)
    elsewhere = Scope("another process")
    first = weakref.ref(run_coroutine(call(elsewhere)))
    gc.collect()
    assert first() is None
    assert not any(isinstance(key, tuple) for key in keep_of(elsewhere).made)


# -- async


def test_async_resources_are_built_once_a_loop_and_closed_on_it(diary: Diary) -> None:
    loops: list[Any] = []

    async def client() -> AsyncIterator[str]:
        loops.append(asyncio.get_running_loop())
        diary.lines.append("build client")
        yield "c"
        loops.append(asyncio.get_running_loop())
        diary.lines.append("close client")

    pipeline = Pipeline([resource(client), use_async])
    for engine in ("sequential", "async"):
        on = pipeline.with_backend(BACKENDS[engine])
        assert on.map(ITEMS, output_name="y") == [(at, "c") for at in range(5)]
        assert diary.take() == ["build client", "close client"]
        assert list(on.map_iter(ITEMS)) == [{"y": (at, "c")} for at in range(5)]
        assert diary.take() == ["build client", "close client"]
    assert asyncio.run(_arun(pipeline)) == ((1, "c"), [(at, "c") for at in range(5)])
    assert diary.take() == ["build client", "close client"] * 2
    assert loops[::2] == loops[1::2], "each is closed on the loop that it was built on"


def test_each_thread_has_its_own_loop_and_so_its_own_async_resource(diary: Diary) -> None:
    pipeline = Pipeline([diary.closing_async("client", "c"), use_async], backend=BACKENDS["threaded"])
    with BACKENDS["threaded"]:  # the threads, and their loops, stay; what was built on them does not
        for _ in range(2):
            assert pipeline.map(ITEMS, output_name="y") == [(at, "c") for at in range(5)]
            lines = diary.take()
            assert 1 <= lines.count("build client") == lines.count("close client") <= 3


def test_every_async_form_builds_a_resource(diary: Diary) -> None:
    @contextlib.asynccontextmanager
    async def managed() -> AsyncIterator[str]:
        yield "managed"
        diary.lines.append("close managed")

    async def plain() -> str:
        return "plain"

    async def both(managed: str, plain: str, sync: str) -> str:
        return f"{managed} {plain} {sync}"

    take = _async_node("both")
    nodes = [resource(managed), resource(plain), resource(both), resource(lambda: "sync", name="sync"), take]
    assert Pipeline(nodes).run(output_name="y") == "managed plain sync"
    assert diary.take() == ["close managed"]


def _async_node(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(f"async def take({name}): return {name}", scope)
    return node(scope["take"], output_name="y")


def test_async_generators_that_do_not_yield_once_are_told() -> None:
    async def never() -> AsyncIterator[int]:
        for at in [0] * 0:
            yield at

    async def twice() -> AsyncIterator[int]:
        yield 1
        yield 2

    with pytest.raises(ResourceError, match=r"could not be built .*: its function ended without a yield"):
        Pipeline([resource(never, name="model"), _async_node("model")]).run()
    with pytest.raises(ResourceError, match="could not be closed: its function yields a second time"):
        Pipeline([resource(twice, name="model"), _async_node("model")]).run()


def test_an_error_on_closing_on_a_loop_is_raised_too(backend: LocalBackend) -> None:
    async def model() -> AsyncIterator[int]:
        yield 1
        raise OSError("reset by peer")

    pipeline = Pipeline([resource(model), _async_node("model")], backend=backend)
    with pytest.raises(ResourceError, match=r"'model' .* could not be closed: OSError: reset by peer"):
        pipeline.run()
    with pytest.raises(ResourceError, match=r"'model' .* could not be closed: OSError: reset by peer"):
        asyncio.run(pipeline.arun())


def test_many_tasks_of_a_loop_wait_for_the_one_that_builds(diary: Diary) -> None:
    async def client() -> object:
        diary.lines.append("build")
        await asyncio.sleep(0)
        return object()

    pipeline = Pipeline([resource(client), use_async], backend=BACKENDS["async"])
    found = pipeline.map(ITEMS, output_name="y")
    assert len({id(made) for _, made in found}) == 1
    assert diary.take() == ["build"]


def test_a_plain_resource_does_not_hold_up_the_loop_of_the_caller() -> None:
    go_on = threading.Event()

    @node(output_name="y")
    async def take(model: str) -> str:
        return model

    def model() -> str:
        assert go_on.wait(20), "the loop was blocked"
        return "built"

    pipeline = Pipeline([resource(model), take], backend=BACKENDS["async"])

    async def main() -> Any:
        run = asyncio.create_task(pipeline.arun(output_name="y"))
        await asyncio.sleep(0)
        go_on.set()
        return await run

    assert asyncio.run(main()) == "built"


def test_a_run_within_a_plain_node_needs_no_thread_of_the_run_around_it(diary: Diary) -> None:
    inner = Pipeline([diary.plain("client", "c"), use_async])

    @node(output_name="z")
    def nested(x: int) -> Any:
        return inner.run(x=x, output_name="y")

    outer = Pipeline([nested], backend=LocalBackend(engine="async", max_workers=1))
    assert outer.map(ITEMS[:2], output_name="z") == [(0, "c"), (1, "c")]


def test_what_is_built_is_closed_when_ctrl_c_strikes_in_a_listener(diary: Diary) -> None:
    def told(event: Any) -> None:
        if event.kind == "resource" and event.phase == "start":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([diary.closing("model"), use], callbacks=[told]).run(x=1)
    assert diary.take() == ["build model", "close model"]


def test_a_plain_node_may_not_take_an_async_resource(diary: Diary) -> None:
    pipeline = Pipeline([diary.closing_async("model"), use], name="main")
    with pytest.raises(GraphError, match=r"node 'main > use' is a plain function and takes .* 'model'.*async"):
        pipeline.run(x=1)
    assert pipeline.run(x=1, model=2) == {"y": (1, 2)}
    depends = resource(lambda client: client, name="model")
    with pytest.raises(GraphError, match=r"resource 'main > model' takes 'client'.*make 'model' an async function"):
        Pipeline([diary.closing_async("client"), depends, use], name="main").run(x=1)
    assert diary.take() == []


# -- overriding, names, scopes


def test_a_plain_value_overrides_it(diary: Diary, backend: LocalBackend) -> None:
    pipeline = Pipeline([diary.plain("model"), use], backend=backend)
    assert pipeline.run(x=1, model="fake") == {"y": (1, "fake")}
    assert pipeline.map(ITEMS[:1], inputs={"model": "fake"}) == [{"y": (0, "fake")}]
    assert pipeline.map([{"x": 1, "model": "a"}, {"x": 2, "model": "b"}], output_name="y") == [(1, "a"), (2, "b")]
    nested = Pipeline([pipeline.as_node(input_mapping={"other": "model"})])
    assert nested.run(x=1, other="fake") == {"y": (1, "fake")}
    mapped = Pipeline([pipeline.as_node(input_mapping={"models": "model"}, map_over="models")])
    assert mapped.run(x=1, models=["a", "b"], output_name="y") == [(1, "a"), (1, "b")]
    assert diary.take() == []


def test_an_outer_resource_reaches_inner_pipelines_that_do_not_provide_it(diary: Diary, backend: LocalBackend) -> None:
    asks = Pipeline([use], name="asks")
    own = Pipeline([diary.closing("model", "own"), use], name="own").as_node(output_mapping={"y": "z"})
    mapped = asks.as_node(map_over="xs", input_mapping={"xs": "x"}, output_mapping={"y": "ys"}, name="mapped")
    renamed = asks.as_node(input_mapping={"engine": "model"}, output_mapping={"y": "w"}, name="renamed")
    engine = resource(lambda model: f"engine of {model}", name="engine")
    outer = Pipeline([asks, own, mapped, renamed, engine, diary.closing("model", "outer")], backend=backend)
    assert outer.run(x=1, xs=[1, 2]) == {
        "y": (1, "outer"),
        "z": (1, "own"),
        "ys": [(1, "outer"), (2, "outer")],
        "w": (1, "engine of outer"),
    }
    assert sorted(diary.take()) == ["build model"] * 2 + ["close model"] * 2


def test_an_outer_resource_reaches_resources_of_inner_pipelines() -> None:
    inner = Pipeline([resource(lambda client: f"model on {client}", name="model"), use], name="inner")
    outer = Pipeline([inner, resource(lambda: "client", name="client")])
    assert outer.run(x=1) == {"y": (1, "model on client")}
    with pytest.raises(MissingInputError, match="resource 'inner > model' takes 'client', which nobody provides"):
        inner.run(x=1)


def test_a_resource_that_two_pipelines_list_is_built_once(diary: Diary) -> None:
    model = diary.closing("model", "m")
    inner = Pipeline([model, node(lambda y, model: (y, model), output_name="z")], name="inner")
    assert Pipeline([model, use, inner]).run(x=1, output_name="z") == ((1, "m"), "m")
    assert diary.take() == ["build model", "close model"]


def test_a_name_that_nobody_provides_is_a_missing_input() -> None:
    with pytest.raises(MissingInputError, match="'model'") as caught:
        Pipeline([use, node(lambda x: x, output_name="z", limit="api")], limits={"api": 1}).run(x=1)
    assert str(caught.value).endswith("given: 'x'")  # and nothing of what travels unseen


def test_a_resource_cannot_be_asked_for_as_an_output_or_mapped_over(diary: Diary) -> None:
    pipeline = Pipeline([diary.plain("model"), use], name="main")
    assert pipeline.output_names == ("y",)
    assert pipeline.input_names == ("x",)
    with pytest.raises(UnknownOutputError, match="'model' is a resource, which is passed to nodes and never returned"):
        pipeline.run(x=1, output_name="model")
    with pytest.raises(UnknownOutputError, match="names no output of it"):
        pipeline.as_node(output_mapping={"model": "m"})
    asks = Pipeline([use], name="asks").as_node(map_over="model")
    with pytest.raises(GraphError, match="map_over names 'model', which is a resource here"):
        Pipeline([diary.plain("model"), asks]).run(x=1)


def test_one_name_has_one_provider(diary: Diary) -> None:
    model = diary.plain("model")
    with pytest.raises(DuplicateOutputError, match="resource 'model' is twice among its nodes; list it once"):
        Pipeline([model, model, use])
    with pytest.raises(DuplicateOutputError, match="resource 'model' and resource 'model' both provide 'model'"):
        Pipeline([model, diary.plain("model"), use])
    with pytest.raises(DuplicateOutputError, match="resource 'model' and node 'make' both provide 'model'"):
        Pipeline([model, node(lambda x: x, output_name="model", name="make"), use])


def test_resources_that_need_each_other_in_a_circle_are_refused() -> None:
    one, two = resource(lambda b: b, name="a"), resource(lambda a: a, name="b")
    with pytest.raises(CycleError, match=r"has a cycle: a -> b -> a|has a cycle: b -> a -> b"):
        Pipeline([one, two, node(lambda a: a, output_name="y")])
    with pytest.raises(CycleError, match="resource 'a' takes itself"):
        Pipeline([resource(lambda a: a, name="a"), node(lambda a: a, output_name="y")])


def test_a_resource_is_not_built_of_what_may_differ_between_items() -> None:
    model = resource(lambda x, path="m": path, name="model")
    with pytest.raises(GraphError, match="resource 'main > model' takes 'x', which is an input or an output here"):
        Pipeline([model, use], name="main").run(x=1)
    plain = Pipeline([resource(lambda path="m": path, name="model"), use], name="main")
    assert plain.run(x=1) == {"y": (1, "m")}


def test_what_a_resource_yields_is_compared_with_what_takes_it() -> None:
    def model() -> Iterator[str]:
        yield ""

    def takes(x: int, model: int) -> int:
        return x

    with pytest.raises(TypeMismatchError, match="resource 'model' returns 'model' as str, but node 'takes'"):
        Pipeline([resource(model), node(takes, output_name="y")])
    Pipeline([resource(model), node(takes, output_name="y")], check_types=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resource(3), "takes a function, not 3"),  # type: ignore[call-overload]
        (lambda: resource("model"), r"write @resource\(name='model'\)"),  # type: ignore[call-overload]
        (lambda: resource(lambda: 1), "has no name of its own"),
        (lambda: resource(resource(lambda: 1, name="a")), "'a' is a resource already"),
        (lambda: resource(use), "'use' is a node already"),
        (lambda: resource(lambda *args: 1, name="a"), r"'\*args'"),
        (lambda: resource(lambda: 1, name="not a name"), "not an identifier"),
    ],
)
def test_what_cannot_be_a_resource_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NodeDefinitionError, match=message):
        make()


def test_a_resource_is_immutable() -> None:
    model = resource(lambda: 1, name="model")
    with pytest.raises(AttributeError, match="resource 'model' is immutable"):
        model.name = "other"


# -- travelling, explaining


@resource
def of_this_module() -> str:
    return "mine"


def test_it_travels_by_reference_or_with_its_key() -> None:
    import cloudpickle

    assert pickle.loads(pickle.dumps(of_this_module)) is of_this_module
    local = resource(lambda: 1, name="model")
    back = pickle.loads(cloudpickle.dumps(local))
    assert (back.name, back.key, back()) == ("model", local.key, 1)
    pipeline = pickle.loads(cloudpickle.dumps(Pipeline([local, use])))
    assert pipeline.run(x=1) == {"y": (1, 1)}
    assert pipeline.with_options(name="other").run(x=1) == {"y": (1, 1)}


def test_explain_says_who_provides_what_and_what_would_not_travel() -> None:
    lock = threading.Lock()
    inner = Pipeline([use], name="inner")
    main = Pipeline([resource(lambda: lock, name="model"), inner], name="main")
    found = main.explain()
    assert found.nodes[0].resources == (("model", "main"),)
    assert "model (main)" in str(found)
    with SubprocessBackend(machines=1) as far:
        said = str(main.with_backend(far).explain())
    assert "cannot be sent: the function of resource 'model' (of main), which node 'main > inner > use' needs" in said


def test_a_picture_shows_resources() -> None:
    pipeline = Pipeline([of_this_module, node(lambda of_this_module: 0, output_name="y", name="take")])
    from hypernodes._diagram import diagram_of

    kinds = {one.label: one.kind for one in diagram_of(pipeline, None).nodes}
    assert kinds == {"of_this_module": "resource", "take": "node"}


def test_a_failure_is_made_again_with_resources_built_anew(diary: Diary) -> None:
    pipeline = Pipeline([diary.closing("model"), fail], keep_inputs=True)
    (failure,) = pipeline.map([{"x": 1}], on_error="return")
    diary.take()
    assert failure.inputs == {"x": 1}
    with pytest.raises(ValueError, match="no 1"):
        failure.reproduce()
    assert diary.take() == ["build model", "close model"]


def test_the_traceback_begins_in_the_users_function(diary: Diary) -> None:
    with pytest.raises(ValueError, match="no 1") as caught:
        Pipeline([diary.plain("model"), fail]).run(x=1)
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "fail"
    assert "supply" not in names


# -- caches


def _model(value: int) -> Resource:
    def build(base: int) -> int:
        return base + value

    return resource(build, name="model")


def test_results_depend_on_how_their_resources_are_built() -> None:
    cache, log = MemoryCache(), EventLog()

    def ran(base: int, value: int, **overrides: Any) -> tuple[Any, list[str]]:
        source = resource(lambda: base, name="base")
        pipeline = Pipeline([source, _model(value), use], cache=cache, callbacks=[log])
        return pipeline.run(x=1, output_name="y", **overrides), log.statuses()["use"]

    assert ran(1, 2) == ((1, 3), ["ok"])
    assert ran(1, 2) == ((1, 3), ["cached"])
    assert ran(1, 3) == ((1, 4), ["ok"]), "another way to build it is another result"
    assert ran(2, 2) == ((1, 4), ["ok"]), "and so is another one that it needs"
    assert ran(1, 2, model=3) == ((1, 3), ["ok"]), "a value given instead counts by its content"
    assert ran(2, 2, model=3) == ((1, 3), ["cached"])


def test_what_the_cache_has_needs_no_resource(diary: Diary) -> None:
    cache, log = MemoryCache(), EventLog()
    pipeline = Pipeline([of_this_module, node(lambda x, of_this_module: x, output_name="y", name="take")], cache=cache)
    pipeline.run(x=1)
    again = pipeline.with_options(callbacks=[log])
    assert again.run(x=1) == {"y": 1}
    assert log.statuses() == {"take": ["cached"]}
    assert log.statuses("resource") == {}


def test_what_contextlib_made_of_a_function_counts_with_that_function() -> None:
    log, cache = EventLog(), MemoryCache()

    def ran(value: int) -> Any:
        @contextlib.contextmanager
        def model() -> Iterator[int]:
            yield value

        return Pipeline([resource(model), use], cache=cache, callbacks=[log]).run(x=1, output_name="y")

    assert (ran(1), ran(2), ran(1)) == ((1, 1), (1, 2), (1, 1))
    assert log.statuses() == {"use": ["cached"]}


# -- events


def test_listeners_hear_what_is_built_and_for_how_long(diary: Diary, backend: LocalBackend) -> None:
    log = EventLog()
    inner = Pipeline([diary.closing("model"), use], name="inner")
    pipeline = Pipeline([inner], name="main", backend=backend, callbacks=[log])
    pipeline.map(ITEMS)
    started, ended = (event for event in log.events if event.kind == "resource")
    assert (started.phase, started.path, started.items) == ("start", ("main", "inner", "model"), (None, None, None))
    assert started.seconds is not None and started.worker and started.place
    assert (ended.phase, ended.span, ended.status) == ("end", started.span, "ok")
    assert ended.seconds is not None and ended.seconds >= 0
    assert started.parent == log.events[0].span
    assert event_problems(log.events) == []
    assert log.tree() is not None


def test_listeners_hear_of_what_could_not_be_built(diary: Diary, backend: LocalBackend) -> None:
    log = EventLog()
    pipeline = Pipeline([diary.broken("model", OSError("gone")), use], backend=backend, callbacks=[log])
    with pytest.raises(ResourceError):
        pipeline.map(ITEMS, on_error="return")
    started, ended = (event for event in log.events if event.kind == "resource")
    assert (ended.phase, ended.span, ended.status, ended.error) == ("end", started.span, "error", "OSError")
    assert event_problems(log.events) == []
    assert (log.events[-1].kind, log.events[-1].status, log.events[-1].error) == ("map", "error", "ResourceError")


def test_the_log_tells_of_resources(diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    from hypernodes import LoggingCallback

    with caplog.at_level(logging.INFO):
        Pipeline([diary.closing("model"), use], name="main", callbacks=[LoggingCallback()]).run(x=1)
    told = [record.getMessage() for record in caplog.records if "model" in record.getMessage()]
    assert [line.partition(" in ")[0].partition(" after ")[0] for line in told] == [
        "main > model built",
        "main > model closed",
    ]


# -- far places


def test_a_far_place_builds_its_own_and_says_what_it_cannot_build(tmp_path: Any) -> None:
    folder = str(tmp_path)

    @resource
    def model() -> str:
        import os
        import pathlib

        pathlib.Path(folder, f"built-{os.getpid()}").touch(exist_ok=False)
        return "far"

    @resource
    def broken() -> str:
        raise OSError("no such file")

    log = EventLog()
    with SubprocessBackend(machines=1) as far:
        ask = node(lambda x, model: (x, model), output_name="y")
        pipeline = Pipeline([model, ask], backend=far, callbacks=[log])
        assert pipeline.map(ITEMS, output_name="y") == [(at, "far") for at in range(5)]
        assert pipeline.run(x=1, output_name="y") == (1, "far"), "the warm place has it still"
        assert len(list(tmp_path.iterdir())) == 1
        failing = Pipeline([broken, node(lambda x, broken: x, output_name="y")], name="main", backend=far)
        with pytest.raises(ResourceError) as caught:
            failing.map(ITEMS, on_error="return")
    place = caught.value.place
    assert place.startswith("subprocess")
    assert str(caught.value) == f"resource 'broken' (of main) could not be built on {place}: OSError: no such file"
    assert isinstance(caught.value.__cause__, OSError)
    assert "in broken" in "\n".join(caught.value.__notes__), "the traceback over there comes along"


def test_batch_node_to_which_only_resources_come_is_refused_where_it_runs() -> None:
    embed = node(lambda model, text="": [model], output_name="embedded", batch_size=4, batch_over="model")
    model = resource(lambda: 1, name="model")
    pipeline = Pipeline(nodes=[embed, model, node(lambda x: -x, output_name="other")])
    with pytest.raises(GraphError, match="nothing comes to it as a list of items: 'model' is given by a resource"):
        pipeline.run(x=1)
    # Nobody is told of a node that does not run.
    assert pipeline.run(x=1, output_name="other") == -1
    assert pipeline.run(x=1, embedded=[2]) == {"embedded": [2], "other": -1}
    lists = node(lambda texts, model: [model for _ in texts], output_name="embedded", batch_size=4)
    with pytest.raises(MissingInputError, match="'texts'"):
        Pipeline(nodes=[lists, model]).run()


def test_batch_node_that_nobody_wants_asks_for_no_list() -> None:
    @node(output_name="ranked", batch_size=4)
    def rank(query: list[str], where: str) -> list[str]:
        return query

    where = resource(lambda: "here", name="where")
    first = node(lambda text: len(text), output_name="size")
    assert Pipeline([where, first, rank]).run(text="abc", output_name="size") == 3
    with pytest.raises(MissingInputError, match="'query'"):
        Pipeline([where, first, rank]).run(text="abc")
