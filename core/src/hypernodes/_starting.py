"""Starting threads, so that an exception raised in a thread from outside does not strike the one it is starting."""

from __future__ import annotations

import threading

__all__ = ["start", "starting"]

starting = threading.Lock()
"""Held while a thread starts. Take it to raise in a thread by `PyThreadState_SetAsyncExc`: CPython 3.11 makes the state
of a new thread under the identity of the thread that starts it. So the exception may strike the new one, which then
never tells that it runs, and the other waits for that for ever."""


def start(thread: threading.Thread) -> None:
    """Start a thread under the lock."""
    with starting:
        thread.start()
