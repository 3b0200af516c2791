"""The callback that writes a report of each run."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from hypernodes import Callback, Event, Run
from hypernodes.plugin import write_whole
from hypernodes_visualize._tally import Tally

__all__ = ["ReportCallback"]


class ReportCallback(Callback):
    """Writes one self-contained HTML file about a run when it ends, also when it fails or is interrupted.

    The file holds the picture of the pipeline, a timeline with a lane for each worker and place, the slowest nodes,
    cache hits and failures. It holds names, times and types, and never values; `messages=True` adds the messages of
    exceptions, which may hold some. It appears whole or not at all, in place of that of an earlier run. Where it
    cannot be written, a warning is logged and the run goes on. On a nested pipeline it tells of that pipeline alone.
    """

    def __init__(self, filename: str | os.PathLike[str] = "report.html", *, messages: bool = False) -> None:
        given: object = filename
        if not isinstance(given, str | os.PathLike) or not Path(given).name:
            raise TypeError(f"ReportCallback: filename={given!r}; give the name of a file, such as 'report.html'")
        self.filename = Path(filename)
        self.messages = messages

    def __repr__(self) -> str:
        return f"ReportCallback({str(self.filename)!r}{', messages=True' if self.messages else ''})"

    def begin(self, run: Run) -> Callable[[Event], None]:
        return _Listener(_Notes(run, self.filename, self.messages))


class _Notes:
    """The tally of one run, and whether the file tells all of it."""

    def __init__(self, run: Run, filename: Path, messages: bool) -> None:
        self.run, self.filename, self.messages = run, filename.absolute(), messages
        self.tally = Tally()
        self.fresh = True
        self.warned = False

    def take(self, event: Event) -> None:
        self.tally.take(event)
        self.fresh = False
        if self.tally.over(event):
            self.write()

    def write(self) -> None:
        """Write the file, if there is news."""
        if self.fresh:
            return
        self.fresh = True
        try:
            from hypernodes_visualize._report_page import report_of

            write_whole(self.filename, report_of(self.run, self.tally, messages=self.messages).encode())
        except Exception as error:
            if not self.warned:
                logging.getLogger("hypernodes").warning(
                    "no report of pipeline '%s': '%s' could not be written: %s: %s",
                    *(self.run.pipeline, self.filename, type(error).__name__, error),
                )
            self.warned = True


class _Listener:
    """Hears the events. When nobody can tell it more, what the file lacks is written."""

    def __init__(self, notes: _Notes) -> None:
        self._notes = notes
        weakref.finalize(self, notes.write)

    def __call__(self, event: Event) -> None:
        self._notes.take(event)
