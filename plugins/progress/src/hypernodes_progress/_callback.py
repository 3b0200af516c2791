"""What users put into `callbacks=[...]`, and the choice of how to show a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from hypernodes import Callback, Event, Run
from hypernodes.plugin import LineProgress, inside_worker

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ProgressCallback"]


class ProgressCallback(Callback):
    """Shows how far a run is, how fast it goes, who works on it and what failed.

    In a terminal: a tree of pipelines that is redrawn ten times a second, at most `max_rows` rows of it, and one line
    when the run has ended. In a notebook: a table that is redrawn in place. Elsewhere: plain lines on standard error,
    at most one in `every` seconds. `console` is the terminal to draw in; if None, standard error. A run that a node
    starts inside a pool's worker is not shown.

    Raises ValueError if `every` is negative or `max_rows` less than 2.
    """

    def __init__(self, *, every: float = 10.0, max_rows: int = 20, console: Console | None = None) -> None:
        if max_rows < 2:
            raise ValueError(f"ProgressCallback: max_rows={max_rows!r} must be 2 or more")
        self._lines = LineProgress(every=every)
        self.every, self.max_rows, self.console = every, max_rows, console

    def __repr__(self) -> str:
        return f"ProgressCallback(every={self.every:g}, max_rows={self.max_rows})"

    def begin(self, run: Run) -> Callable[[Event], object] | None:
        if inside_worker():
            return None
        if self.console is None and (display := notebook_display()) is not None:
            from hypernodes_progress._notebook import NotebookView

            return NotebookView(run, self.max_rows, display)

        from hypernodes_progress._screen import TerminalView, screen_for

        screen = screen_for(self.console)
        if screen is None:
            return self._lines.begin(run)
        return TerminalView(run, self.max_rows, screen)


def notebook_display() -> object | None:
    """IPython's `display`, if this process is the kernel of a notebook; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    get_shell = getattr(ipython, "get_ipython", None)
    shell = get_shell() if callable(get_shell) else None
    if getattr(shell, "kernel", None) is None:  # none, or IPython in a terminal
        return None
    from IPython.display import display

    shown: object = display
    return shown
