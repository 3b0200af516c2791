"""How a worker ends: its exit functions run, whatever it was doing.

SIGTERM asks it to, from the zygote, the system or a user alike. The first one raises `Ended` in the main thread, so
that `with` and `finally` of the user's code do their part. Code that swallows it, or waits in a `finally`, is not
unwound: at the next SIGTERM the exit functions run on top of it. Code in C that never returns sees neither.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

__all__ = ["AGAIN", "AT_ONCE", "FAREWELL", "GRACE", "Ended", "asked", "leave", "obey"]

GRACE = 1.0
"""Seconds that all workers of a stopped pool have together, before they are killed."""
AGAIN = 0.5
"""Seconds after which those that are left are asked once more."""
FAREWELL = 3
"""Seconds for exit functions where nobody is in a hurry; whole ones, as the alarm takes no others."""
AT_ONCE = signal.SIGUSR1
"""Tells the zygote to kill its workers without a grace."""

_asked = 0


_fork = threading.local()


class Ended(KeyboardInterrupt):
    """This worker was asked to end.

    A KeyboardInterrupt, because event loops, libraries and users' handlers of `Exception` know to let that one pass.
    """


def obey() -> None:
    """From now on SIGTERM ends this process in order. A copy that user code forks ends by it as any process does."""
    signal.signal(signal.SIGTERM, _end)
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_disobey)


def asked() -> bool:
    """Whether this worker was asked to end, and user code swallowed it."""
    return _asked > 0


def leave(status: int = 0) -> NoReturn:
    """Run the exit functions and end; by SIGTERM, where that was asked, else with the status."""
    signal.signal(signal.SIGTERM, _ignore)  # not SIG_IGN, which programs started by an exit function would inherit
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(FAREWELL)
    try:
        atexit._run_exitfuncs()
        flush_streams()
        if _asked:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os._exit(status)


def flush_streams() -> None:
    """Let what the user printed appear now."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except (OSError, ValueError):  # the reader of our output is gone, which fails no call
                continue


def _end(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked += 1
    if _asked == 1:
        raise Ended
    leave()


def _hold() -> None:
    # Python drops what a copy is sent before it is a process of its own.
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _disobey() -> None:
    if signal.getsignal(signal.SIGTERM) in (_end, _ignore):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _let_go()


def _ignore(number: int, frame: FrameType | None) -> None:
    return
