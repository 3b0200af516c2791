"""Engines whose workers await many chunks at once: a slow coroutine holds up nobody but itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from hypernodes import Failure, Pipeline, node
from hypernodes.plugin import Backend, ExecutorEngine, Session, Site, Stage, pair, payload_of, receive, receive_async
from hypernodes.testing._promises import check_random_cases

PATIENCE = 60.0


class Loop:
    """An event loop in a thread, as a worker that takes requests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.plain = ThreadPoolExecutor(2)  # for what does not await
        self.out = self.most = 0

    def submit(self, payload: bytes, blobs: Mapping[str, bytes]) -> Future[bytes]:
        return asyncio.run_coroutine_threadsafe(self._answer(payload, blobs), self.loop)

    async def _answer(self, payload: bytes, blobs: Mapping[str, bytes]) -> bytes:
        self.out += 1
        self.most = max(self.most, self.out)
        try:
            return await receive_async(payload, blobs)
        finally:
            self.out -= 1

    def close(self) -> None:
        self.plain.shutdown()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@dataclass(frozen=True)
class LoopEngine(ExecutorEngine):
    name: ClassVar[str] = "loop"
    requires: ClassVar[frozenset[str]] = frozenset({"loop"})
    shares_memory: ClassVar[bool] = False
    overlaps_items: ClassVar[bool] = True
    awaits_chunks: ClassVar[bool] = True
    chunk_seconds: ClassVar[float] = 0.1

    def make_executor(self, workers: int) -> Executor:
        raise AssertionError("its place has the executor")

    def open_executor(self, site: Site, workers: int) -> Any:
        return site.handles["loop"]

    def workers_at(self, site: Site) -> int:
        return min(2, site.max_workers or 2)

    def submit_request(self, executor: Any, frames: Sequence[Any], blobs: Mapping[str, bytes]) -> Future[bytes]:
        reply: Future[bytes] = executor.plain.submit(receive, payload_of(frames, {}), blobs)
        return reply

    def submit_awaited(
        self, executor: Any, stage: Stage, frames: Sequence[Any], blobs: Mapping[str, bytes], at_once: int
    ) -> Future[bytes]:
        assert at_once == (100 if executor.budget is None else -(-executor.budget // min(2, executor.budget)))
        reply: Future[bytes] = executor.submit(payload_of(frames, {}), blobs)
        return reply

    def close_executor(self, executor: Any) -> None:
        """The loop serves all of a test."""

    def abort_executor(self, executor: Any) -> None:
        """What runs is cancelled by its future."""


@dataclass(frozen=True)
class LoopBackend(Backend):
    name: ClassVar[str] = "loop"
    provides: ClassVar[frozenset[str]] = frozenset({"loop"})

    engine: Any = LoopEngine()
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    loop: Any = None

    def __post_init__(self) -> None:
        pair(self)

    def open(self) -> Session:
        self.loop.budget = self.max_workers
        return LoopSession(self.loop)


class LoopSession(Session):
    def __init__(self, loop: Loop) -> None:
        self.handles = {"loop": loop}

    def close(self) -> None:
        """The fixture closes the loop."""


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def test_item_that_waits_for_all_others_holds_none_of_them_up(loop: Loop) -> None:
    @node(output_name="y")
    async def wait(x: int) -> int:
        done: list[int] = globals().setdefault("done", [])
        if x == 0:
            async with asyncio.timeout(PATIENCE):
                while len(done) < 999:
                    await asyncio.sleep(0.001)
        done.append(x)
        return -x

    with LoopBackend(loop=loop) as backend:
        assert Pipeline([wait], backend=backend).map(rows(1000), output_name="y") == [-x for x in range(1000)]


def test_no_more_is_awaited_than_the_budget_allows(loop: Loop) -> None:
    @node(output_name="y")
    async def wait(x: int) -> int:
        await asyncio.sleep(0.005)
        return x

    with LoopBackend(loop=loop, max_workers=7) as backend:
        assert Pipeline([wait], backend=backend).map(rows(100), output_name="y") == list(range(100))
    assert 1 < loop.most <= 7


def test_failures_and_plain_nodes_are_as_ever(loop: Loop) -> None:
    @node(output_name="thread")
    def plain(x: int) -> str:
        return threading.current_thread().name

    @node(output_name="y")
    async def check(x: int, thread: str) -> int:
        return 1 // (x - 3) and threading.get_ident()

    with LoopBackend(loop=loop) as backend:
        found = Pipeline([plain, check], name="main", backend=backend).map(rows(20), on_error="return")
    failed = found.pop(3)
    assert isinstance(failed, Failure)
    assert (failed.path, failed.item, failed.type_name) == (("main", "check"), 3, "ZeroDivisionError")
    assert all(row["thread"].startswith("hypernodes-async") for row in found), "a plain function held up the loop"


def test_random_pipelines_agree(loop: Loop) -> None:
    with LoopBackend(loop=loop) as backend:
        check_random_cases(30, backend, any_order=True)
