"""Event loops: with one running and without, plain calls and awaited ones, nested, with the caller's context.

What only the caller's loop can show - that it is never blocked - is asserted on ticks counted in it, not on time: a
node waits for ticks that come only if the loop goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hypernodes import Failure, LocalBackend, Pipeline, node
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

PATIENCE = 20.0
"""Seconds after which something that should happen at once is taken for not happening."""


@pytest.fixture(autouse=True)
def clean(no_leaks: LeakWatch) -> None:
    return


ENGINES = ["sequential", "async", "threaded"]


@pytest.fixture(params=ENGINES)
def backend(request: pytest.FixtureRequest) -> LocalBackend:
    if request.param == "threaded":
        pytest.importorskip("hypernodes_local_threaded")
    return LocalBackend(engine=request.param, max_workers=None if request.param == "sequential" else 3)


@node(output_name="plain")
def plain(x: int) -> int:
    return x + 1


@node(output_name="awaited")
async def awaited(plain: int) -> int:
    await asyncio.sleep(0)
    return plain * 2


MIXES: dict[str, list[Any]] = {"plain": [plain], "awaited": [awaited], "mixed": [plain, awaited]}


def last(mix: str, x: int) -> int:
    return {"plain": x + 1, "awaited": 2 * x, "mixed": 2 * (x + 1)}[mix]


@pytest.fixture(params=MIXES)
def mix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def built(mix: str, backend: LocalBackend) -> tuple[Pipeline, str, str]:
    """A pipeline with the names of its input and its last output."""
    pipeline = Pipeline(nodes=MIXES[mix], name=mix, backend=backend)
    return pipeline, pipeline.input_names[0], pipeline.output_names[-1]


def test_plain_calls_work_without_a_loop(mix: str, backend: LocalBackend) -> None:
    pipeline, given, wanted = built(mix, backend)
    assert pipeline.run({given: 3}, output_name=wanted) == last(mix, 3)
    rows = [{given: x} for x in range(5)]
    assert pipeline.map(rows, output_name=wanted) == [last(mix, x) for x in range(5)]
    assert list(pipeline.map_iter(rows, output_name=wanted)) == [last(mix, x) for x in range(5)]


def test_plain_calls_work_within_a_running_loop(mix: str, backend: LocalBackend) -> None:
    async def calls() -> None:
        pipeline, given, wanted = built(mix, backend)
        assert pipeline.run({given: 3}, output_name=wanted) == last(mix, 3)
        rows = [{given: x} for x in range(5)]
        assert pipeline.map(rows, output_name=wanted) == [last(mix, x) for x in range(5)]
        assert list(pipeline.map_iter(rows, output_name=wanted)) == [last(mix, x) for x in range(5)]

    asyncio.run(calls())


def test_awaited_calls_work_in_a_running_loop(mix: str, backend: LocalBackend) -> None:
    async def calls() -> None:
        pipeline, given, wanted = built(mix, backend)
        assert await pipeline.arun({given: 3}, output_name=wanted) == last(mix, 3)
        rows = [{given: x} for x in range(5)]
        assert await pipeline.amap(rows, output_name=wanted) == [last(mix, x) for x in range(5)]
        assert [one async for one in pipeline.amap_iter(rows, output_name=wanted)] == [last(mix, x) for x in range(5)]

    asyncio.run(calls())


def test_calls_work_in_a_loop_of_another_thread(backend: LocalBackend) -> None:
    found: list[Any] = []

    async def calls() -> None:
        pipeline = Pipeline(nodes=[plain, awaited], backend=backend)
        found.append(pipeline.run(x=1, output_name="awaited"))
        found.append(await pipeline.arun(x=1, output_name="awaited"))

    thread = threading.Thread(target=lambda: asyncio.run(calls()))
    thread.start()
    thread.join(PATIENCE)
    assert found == [4, 4]


def test_users_error_arrives_unmasked_in_a_running_loop(backend: LocalBackend) -> None:
    async def refuse(x: int) -> int:
        raise RuntimeError("asked for it")

    def refuse_plainly(x: int) -> int:
        raise RuntimeError("asked for it")

    async def calls(function: Callable[[int], Any]) -> None:
        pipeline = Pipeline(nodes=[node(function, output_name="y")], backend=backend)
        with pytest.raises(RuntimeError, match=r"^asked for it"):
            pipeline.run(x=1)
        with pytest.raises(RuntimeError, match=r"^asked for it"):
            await pipeline.arun(x=1)
        with pytest.raises(RuntimeError, match=r"^asked for it"):
            await pipeline.amap([{"x": 1}])
        (left,) = await pipeline.amap([{"x": 1}], on_error="return")
        assert isinstance(left, Failure)
        assert left.type_name == "RuntimeError"

    asyncio.run(calls(refuse))
    asyncio.run(calls(refuse_plainly))


# the caller's loop goes on


class Ticker:
    """A task that ticks in the caller's loop; plain functions wait for ticks, which come only if the loop goes on."""

    def __init__(self) -> None:
        self.ticks, self.patience = 0, PATIENCE
        self._ticked = threading.Condition()

    async def __aenter__(self) -> Ticker:
        self.task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            with self._ticked:
                self.ticks += 1
                self._ticked.notify_all()

    def wait_for(self, count: int) -> bool:
        """Block this thread until the loop ticked `count` times more."""
        with self._ticked:
            goal = self.ticks + count
            return self._ticked.wait_for(lambda: self.ticks >= goal, self.patience)


def test_awaited_call_of_blocking_functions_never_blocks_the_callers_loop(backend: LocalBackend) -> None:
    async def main() -> None:
        async with Ticker() as ticker:
            ticked = node(lambda x: ticker.wait_for(10), output_name="ticked")
            pipeline = Pipeline(nodes=[ticked], backend=backend)
            assert await pipeline.arun(x=1, output_name="ticked")
            assert await pipeline.amap([{"x": x} for x in range(4)], output_name="ticked") == [True] * 4
            stream = pipeline.amap_iter(({"x": x} for x in range(4)), output_name="ticked")
            assert [one async for one in stream] == [True] * 4

    asyncio.run(main())


def test_awaited_call_within_a_map_of_maps_never_blocks_the_callers_loop(backend: LocalBackend) -> None:
    async def main() -> None:
        async with Ticker() as ticker:
            ticked = node(lambda x: ticker.wait_for(5), output_name="ticked")
            inner = Pipeline(nodes=[ticked], name="inner")
            outer = Pipeline(nodes=[inner.as_node(map_over="x")], backend=backend)
            assert await outer.arun(x=[1, 2], output_name="ticked") == [True, True]

    asyncio.run(main())


def test_ticker_sees_a_blocked_loop() -> None:
    async def main() -> bool:
        async with Ticker() as ticker:
            ticker.patience = 0.2
            return ticker.wait_for(1)

    assert not asyncio.run(main())


def test_blocking_functions_of_several_items_overlap_while_awaited() -> None:
    async def main() -> None:
        together = threading.Barrier(3, timeout=PATIENCE)
        pipeline = Pipeline(
            nodes=[node(lambda x: together.wait() >= 0, output_name="met")],
            backend=LocalBackend(engine="async", max_workers=3),
        )
        assert await pipeline.amap([{"x": x} for x in range(3)], output_name="met") == [True] * 3

    asyncio.run(main())


def test_cancelled_call_ends_with_its_cancellation(backend: LocalBackend) -> None:
    started, release = threading.Event(), threading.Event()

    def hold(x: int) -> int:
        started.set()
        release.wait(PATIENCE)
        return x

    async def main() -> None:
        pipeline = Pipeline(nodes=[node(hold, output_name="y")], backend=backend)
        task = asyncio.create_task(pipeline.amap([{"x": x} for x in range(50)]))
        await asyncio.to_thread(started.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(main())
    finally:
        release.set()


# context variables

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


def told_plainly(x: int) -> str:
    return request_id.get()


async def told_later(x: int) -> str:
    await asyncio.sleep(0)
    return request_id.get()


@pytest.mark.parametrize("function", [told_plainly, told_later])
def test_context_variables_flow_into_nodes(function: Callable[..., Any], backend: LocalBackend) -> None:
    pipeline = Pipeline(nodes=[node(function, output_name="told")], backend=backend)
    rows = [{"x": x} for x in range(20)]

    def calls() -> None:
        request_id.set("outside")
        assert pipeline.run(x=1, output_name="told") == "outside"
        assert pipeline.map(rows, output_name="told") == ["outside"] * 20
        assert list(pipeline.map_iter(rows[:3], output_name="told")) == ["outside"] * 3

    async def awaited_calls() -> None:
        request_id.set("within")
        assert pipeline.run(x=1, output_name="told") == "within"
        assert pipeline.map(rows, output_name="told") == ["within"] * 20
        assert await pipeline.arun(x=1, output_name="told") == "within"
        assert await pipeline.amap(rows, output_name="told") == ["within"] * 20
        assert [one async for one in pipeline.amap_iter(rows[:3], output_name="told")] == ["within"] * 3

    contextvars.copy_context().run(calls)
    asyncio.run(awaited_calls())
    assert request_id.get() == "none"


def test_context_variables_flow_into_every_level_of_maps(backend: LocalBackend) -> None:
    inner = Pipeline(nodes=[node(told_plainly, output_name="told")], name="inner")
    pipeline = Pipeline(nodes=[inner.as_node(map_over="x")], backend=backend)

    def calls() -> None:
        request_id.set("outside")
        assert pipeline.run(x=[1, 2, 3], output_name="told") == ["outside"] * 3

    contextvars.copy_context().run(calls)


# calls within calls


def within(levels: int, backend: LocalBackend | None) -> Coroutine[Any, Any, int]:
    """Coroutine nodes that make a plain call of a pipeline with a coroutine node, `levels` deep."""

    async def deeper(level: int) -> int:
        await asyncio.sleep(0)
        if not level:
            return 0
        found: int = Pipeline(nodes=[node(deeper, output_name="depth")], backend=backend).run(level=level - 1)["depth"]
        return found + 1

    return deeper(levels)


def test_plain_calls_within_awaited_ones_nest_50_deep(backend: LocalBackend) -> None:
    assert asyncio.run(within(50, backend)) == 50


def test_awaited_calls_nest_50_deep(backend: LocalBackend) -> None:
    async def deeper(level: int) -> int:
        if not level:
            return 0
        pipeline = Pipeline(nodes=[node(deeper, output_name="depth")], backend=backend)
        found: int = await pipeline.arun(level=level - 1, output_name="depth")
        return found + 1

    assert asyncio.run(deeper(50)) == 50


def test_1_000_plain_calls_with_coroutine_nodes_in_one_loop_never_wait_for_each_other() -> None:
    pipeline = Pipeline(nodes=[plain, awaited])

    async def one(x: int) -> Any:
        return pipeline.run(x=x, output_name="awaited")

    async def main() -> None:
        assert await asyncio.gather(*map(one, range(1_000))) == [2 * (x + 1) for x in range(1_000)]

    asyncio.run(main())


def test_ctrl_c_while_a_mapped_pipeline_awaits_is_ctrl_c() -> None:
    async def wait(x: int) -> int:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()
        return x

    inner = Pipeline([node(wait, output_name="waited")], name="inner")
    with pytest.raises(KeyboardInterrupt):
        Pipeline([inner.as_node(map_over="x")]).run(x=[1, 2])
