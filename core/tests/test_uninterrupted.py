"""What an exception that is raised in a thread from outside never strikes."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from hypernodes import Pipeline, node, resource
from hypernodes.plugin import ThreadPool, uninterrupted
from hypernodes.testing import SubprocessBackend

TIMES = 200


class Stopped(BaseException):
    """What is raised from outside."""


def test_thread_that_is_being_started_is_spared_and_does_its_work() -> None:
    armed = threading.Event()
    struck, begun = 0, list[Future[int]]()

    def start_until_struck() -> None:
        nonlocal struck
        while struck < TIMES:
            try:
                armed.set()  # from here on it is struck once, and not again before it says so
                while True:
                    pool = ThreadPool(1)
                    begun.append(pool.submit(int, 7))
                    pool.shutdown(wait=False)
            except Stopped:
                struck += 1

    starter = threading.Thread(target=start_until_struck, daemon=True)
    starter.start()
    for _ in range(TIMES):
        assert armed.wait(60), "a thread that was being started was struck, and its starter waits for ever"
        armed.clear()
        with uninterrupted:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(starter.ident or 0), ctypes.py_object(Stopped))
    starter.join(60)
    assert not starter.is_alive()
    assert struck == TIMES
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
