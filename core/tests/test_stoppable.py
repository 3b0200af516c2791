"""Work that another thread stops, and what never is struck by that."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from hypernodes import Pipeline, node, resource
from hypernodes._loops import close_thread_loop, keep_thread_loop, keeping_thread_loop, run_coroutine
from hypernodes._stoppable import uninterrupted
from hypernodes.plugin import Stoppable, Stopped, ThreadPool
from hypernodes.testing import SubprocessBackend
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

TIMES = 200
swallowed_by_callbacks = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Where it strikes in the callback of a weak reference, Python says so and goes on."""


@contextmanager
def working(work: Callable[[], Any]) -> Iterator[tuple[Stoppable, Future[Any]]]:
    """The work, begun in another thread, and what comes of it."""
    made, outcome = Future[Stoppable](), Future[Any]()

    def run() -> None:
        stoppable = Stoppable()
        made.set_result(stoppable)
        try:
            outcome.set_result(stoppable.run(work))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield made.result(60), outcome
    thread.join(60)
    assert not thread.is_alive(), "it was not stopped"


def test_python_code_is_stopped() -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while True:
            time.sleep(0.001)

    with working(work) as (stoppable, outcome):
        assert begun.wait(60)
        assert stoppable.stop()
        with pytest.raises(Stopped):
            outcome.result(60)
    assert not stoppable.stop()


def test_coroutine_that_waits_is_stopped_at_once_and_in_order() -> None:
    begun, left = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.set()

    with working(lambda: run_coroutine(wait())) as (stoppable, outcome):
        assert begun.wait(60)
        stoppable.stop()
        with pytest.raises(Stopped):
            outcome.result(60)
    assert left.is_set()


def test_coroutine_that_keeps_its_loop_from_a_turn_is_stopped_by_insisting() -> None:
    begun = threading.Event()

    async def block() -> None:
        begun.set()
        while True:
            time.sleep(0.001)

    with working(lambda: run_coroutine(block())) as (stoppable, outcome):
        assert begun.wait(60)
        stoppable.insist()  # nobody has asked
        stoppable.stop()
        stoppable.insist()
        with pytest.raises(Stopped):
            outcome.result(60)


def test_loop_that_does_not_end_closing_is_stopped_by_insisting() -> None:
    closing = threading.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closing.set()
            await asyncio.Event().wait()

    generator = endless()

    async def leave_it_to_the_loop() -> None:
        await anext(generator)

    with working(lambda: run_coroutine(leave_it_to_the_loop())) as (stoppable, outcome):
        assert closing.wait(60)
        stoppable.stop()
        stoppable.insist()
        with pytest.raises(Stopped):
            outcome.result(60)


def test_work_that_was_stopped_before_does_not_begin() -> None:
    stoppable, begun = Stoppable(), threading.Event()
    assert stoppable.stop()
    with pytest.raises(Stopped):
        stoppable.run(begun.set)
    assert not begun.is_set()


def test_work_that_is_over_is_not_stopped() -> None:
    stoppable = Stoppable()
    assert stoppable.run(lambda: 7) == 7
    assert not stoppable.stop()
    stoppable.insist()


async def _short() -> int:
    await asyncio.sleep(0)
    await asyncio.sleep(0.0001)
    return 1


@swallowed_by_callbacks
@pytest.mark.parametrize("keep", [False, True])
def test_no_loop_is_left_open_whenever_it_strikes(keep: bool, no_leaks: LeakWatch) -> None:
    pick = random.Random(7)

    def work() -> Any:
        with keeping_thread_loop(keep):
            return run_coroutine(_short())

    for _ in range(TIMES):
        with working(work) as (stoppable, outcome):
            time.sleep(pick.random() / 1000)
            stopped = stoppable.stop()
            if stopped:
                with pytest.raises(Stopped):
                    outcome.result(60)
            else:
                assert outcome.result(60) == 1


@swallowed_by_callbacks
def test_thread_that_is_being_started_is_spared_and_does_its_work() -> None:
    begun, enough = list[Future[int]](), threading.Event()

    def start_until_struck() -> None:
        while not enough.is_set():
            pool = ThreadPool(1)
            begun.append(pool.submit(int, 7))
            pool.shutdown(wait=False)

    for _ in range(TIMES):
        before, enough = len(begun), threading.Event()
        with working(start_until_struck) as (stoppable, outcome):
            while len(begun) == before:
                time.sleep(0.0001)
            stoppable.stop()
            enough.set()
            with pytest.raises(Stopped):
                outcome.result(60)
    assert {future.result(60) for future in begun} == {7}


class Watching(Exception):
    """Its text says whether another thread may strike while it is written."""

    def __str__(self) -> str:
        with ThreadPoolExecutor(1) as other:
            return "may strike" if other.submit(_takes_lock).result(60) else "spared"


def _takes_lock() -> bool:
    taken = uninterrupted.acquire(blocking=False)
    if taken:
        uninterrupted.release()
    return taken


def fail() -> int:
    raise Watching


@node(output_name="y")
def use(x: int, failing: int) -> int:
    return x + failing


@pytest.mark.parametrize("nodes", [[node(lambda x: fail(), output_name="y")], [resource(fail, name="failing"), use]])
def test_thread_that_writes_a_traceback_is_spared(nodes: list[Any]) -> None:
    with SubprocessBackend(machines=1) as backend, pytest.raises(Exception) as caught:
        Pipeline(nodes, backend=backend).run(x=1)
    told = "\n".join(getattr(caught.value, "__notes__", ()))
    assert "Watching: spared" in told
    assert "Watching: may strike" not in told


@pytest.mark.parametrize("keep", [False, True])
def test_stop_in_the_very_turn_in_which_a_coroutine_ends_leaves_nothing_on_the_loop(keep: bool) -> None:
    found: list[Any] = []

    def work() -> None:
        stoppable = Stoppable()

        async def end() -> None:
            stoppable.stop()  # queued behind this step, and before the loop's own stop

        with pytest.raises(Stopped):
            stoppable.run(lambda: run_coroutine(end()))
        found.append(run_coroutine(asyncio.sleep(0, 5)))

    def thread() -> None:
        if keep:
            keep_thread_loop()
        try:
            work()
        finally:
            close_thread_loop()

    worker = threading.Thread(target=thread)
    worker.start()
    worker.join(60)
    assert found == [5]
