"""An exception that is raised in a thread from outside never strikes a thread that it is just starting."""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import Future

from hypernodes.plugin import ThreadPool, starting

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
        with starting:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(starter.ident or 0), ctypes.py_object(Stopped))
    starter.join(60)
    assert not starter.is_alive()
    assert struck == TIMES
    assert {future.result(60) for future in begun} == {7}
