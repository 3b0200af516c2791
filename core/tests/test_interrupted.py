"""Ctrl-C that strikes while work is being handed out: what was begun is stopped all the same."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from hypernodes import LocalBackend, Pipeline, node
from hypernodes._executor import ExecutorEngine
from hypernodes._threads import ThreadPool
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def clean(no_leaks: LeakWatch) -> None:
    return


class Struck(ThreadPool):
    """Interrupted when the work is on its way and nobody holds its future yet."""

    def submit(self, *work: Any, **more: Any) -> Future[Any]:
        super().submit(*work, **more)
        raise KeyboardInterrupt


class StruckEngine(ExecutorEngine):
    name = "struck"

    def make_executor(self, workers: int) -> ThreadPool:
        return Struck(workers)


def test_work_that_was_just_sent_does_not_hold_the_interrupt_up() -> None:
    release, ended = threading.Event(), threading.Event()
    caught: list[BaseException] = []
    pipeline = Pipeline([node(lambda x: release.wait(PATIENCE), output_name="y")], backend=LocalBackend(StruckEngine()))

    def call() -> None:
        try:
            pipeline.map([{"x": 1}, {"x": 2}])
        except KeyboardInterrupt as error:
            caught.append(error)
        ended.set()

    thread = threading.Thread(target=call)
    thread.start()
    in_time = ended.wait(PATIENCE / 2)  # half of what it takes where the call waits for its nodes
    release.set()
    thread.join()
    assert in_time
    assert len(caught) == 1


def test_pool_closes_where_an_interrupt_kept_a_thread_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(2)
    assert pool.submit(int, "1").result(PATIENCE) == 1
    held = threading.Event()
    first = pool.submit(held.wait, PATIENCE)

    def strike(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", strike)
        while True:  # until no idle thread is there to take it
            pool.submit(int, "2")
    held.set()
    pool.shutdown()
    assert first.result(0)


def test_all_threads_of_a_pool_end_with_it() -> None:
    pool = ThreadPool(4, "ends")
    together = threading.Barrier(4)
    futures = [pool.submit(together.wait, PATIENCE) for _ in range(4)]
    assert {future.result(PATIENCE) for future in futures} == set(range(4))
    pool.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ends-")]


def test_threads_of_a_forgotten_pool_end_too() -> None:
    pool = ThreadPool(2, "forgotten")
    assert pool.submit(int, "1").result(PATIENCE) == 1
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("forgotten-")]
    del pool
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_pool_may_be_let_go_while_its_threads_take_what_it_cancels() -> None:
    for _ in range(200):
        pool = ThreadPool(2)
        futures = [pool.submit(int, "1") for _ in range(20)]
        pool.shutdown(wait=True, cancel_futures=True)
        assert all(future.done() for future in futures)
