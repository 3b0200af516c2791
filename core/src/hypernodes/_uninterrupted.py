"""What no exception that is raised in a thread from outside may strike."""

from __future__ import annotations

import threading

__all__ = ["start", "uninterrupted"]

uninterrupted = threading.RLock()
"""Held while a thread starts, and while a traceback is written for its way home. Take it to raise in a thread by
`PyThreadState_SetAsyncExc`. CPython 3.11 makes the state of a new thread under the identity of the thread that starts
it: so the exception may strike the new one, which then never tells that it runs, and the other waits for that for
ever. Who writes a traceback opens source files, and leaves one open when struck."""


def start(thread: threading.Thread) -> None:
    """Start a thread under the lock."""
    with uninterrupted:
        thread.start()
