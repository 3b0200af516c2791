"""Loops that worker threads keep from call to call."""

from __future__ import annotations

import asyncio
import ctypes
import threading

from hypernodes._loops import close_thread_loop, keep_thread_loop, run_coroutine


class Stopped(KeyboardInterrupt):
    """What is raised in the thread from outside."""


def test_what_a_stopped_call_left_on_the_loop_does_not_go_on_under_the_next_call() -> None:
    waits, told = threading.Event(), list[str]()

    async def stopped() -> None:
        waits.set()
        await asyncio.sleep(0.2)  # the exception strikes when the loop's wait for this is over
        told.append("it went on")

    def work() -> None:
        keep_thread_loop()
        try:
            run_coroutine(stopped())
        except Stopped:
            told.append("stopped")
        run_coroutine(asyncio.sleep(0.3))
        close_thread_loop()

    worker = threading.Thread(target=work)
    worker.start()
    assert waits.wait(60)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(Stopped))
    worker.join(60)
    assert not worker.is_alive()
    assert told == ["stopped"]
