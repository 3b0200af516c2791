"""Late imports that Ctrl-C does not break.

Where an interrupt strikes inside an import, Python may drop it (in the callback of a module's lock) or raise something
else (`RuntimeError`, where Python 3.11 makes a class). So while a first call imports what it needs, an interrupt waits.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

__all__ = ["importing"]

_NOTHING = nullcontext()


def importing(module: str) -> AbstractContextManager[None]:
    """For a block that imports this module: an interrupt that comes meanwhile is raised when the block is over.

    Does nothing where the module is there already.
    """
    return _NOTHING if module in sys.modules else _Held()


class _Held(AbstractContextManager[None]):
    """Keeps SIGINT from its handler; in the main thread, as handlers run there alone."""

    def __enter__(self) -> None:
        self.came: list[FrameType | None] = []
        handler = signal.getsignal(signal.SIGINT)
        self.handler = handler if callable(handler) else None
        if threading.current_thread() is not threading.main_thread():
            self.handler = None
        if self.handler is not None:
            signal.signal(signal.SIGINT, lambda number, frame: self.came.append(frame))

    def __exit__(self, *error: object) -> None:
        if self.handler is None:
            return
        signal.signal(signal.SIGINT, self.handler)
        if self.came:
            self.handler(signal.SIGINT, self.came[0])
