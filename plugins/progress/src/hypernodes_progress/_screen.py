"""The bottom of a terminal: shared by all runs that go on at once, since there is only one."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from rich.console import Console, ConsoleOptions, RenderResult
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from hypernodes import Event, Run
from hypernodes.plugin import printable, summary
from hypernodes_progress._above import Above, prints_above
from hypernodes_progress._layout import ASCII, UNICODE, laid_out
from hypernodes_progress._picture import Picture, Row
from hypernodes_progress._ticker import Ticker

__all__ = ["Screen", "TerminalView", "screen_for"]

TONES = {
    name: Style.parse(style)
    for name, style in {
        "": "none",
        "dim": "dim",
        "strong": "bold",
        "running": "cyan",
        "ok": "green",
        "failed": "bold red",
        "stopped": "yellow",
        "waiting": "dim",
        "more": "dim",
        "bar": "cyan",
        "done": "green",
        "rest": "bright_black",
        "bad": "bold red",
        "cache": "magenta",
    }.items()
}
DELAY, PAUSE = 0.1, 0.1


class Screen:
    """Draws the runs that are shown on one console, from the first one's start to the last one's end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._glyphs = ASCII if console.options.ascii_only else UNICODE
        self._lock = threading.Lock()
        self._shown: list[tuple[Picture, int]] = []
        self._ticker: Ticker | None = None
        self._above: list[Above] = []

    def show(self, picture: Picture, max_rows: int) -> None:
        with self._lock:
            self._shown = [*self._shown, (picture, max_rows)]
            if self._ticker is None:
                self._ticker = Ticker(self._surface, DELAY, PAUSE)
                atexit.register(self.close)  # for a run that nobody ended, such as a stream left unread

    def end(self, picture: Picture) -> None:
        """Take the run from the screen, and leave one line about it."""
        with self._lock:
            self._shown = [shown for shown in self._shown if shown[0] is not picture]
            if not self._shown:
                self._stop()
            if picture.tally.status:
                self._console.print(self._last_line(picture), soft_wrap=True)

    def close(self) -> None:
        """Erase the display, and bring back the cursor and the streams."""
        with self._lock:
            self._shown = []
            self._stop()

    def _stop(self) -> None:
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            atexit.unregister(self.close)
            ticker.stop()

    @contextmanager
    def _surface(self) -> Iterator[Callable[[], object]]:
        live = Live(
            console=self._console,
            get_renderable=lambda: _Drawn(self),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        with prints_above(self._console) as self._above:
            try:
                live.start()
                yield live.refresh
            finally:
                above, self._above = self._above, []
                live.stop()
                for stream in above:
                    stream.let_go()

    def _last_line(self, picture: Picture) -> Text:
        tally = picture.tally
        state = {"error": "failed", "stopped": "stopped"}.get(tally.status, "ok")
        line = Text.assemble(
            (self._glyphs.marks[state] + " ", TONES[state]),
            (printable(tally.run.pipeline), TONES["strong"]),
            f": {summary(tally)}",
        )
        line.highlight_regex(r"[\d,]+ failed\b", TONES["bad"])
        return line

    def lines(self, width: int, height: int) -> list[list[tuple[str, str]]]:
        """What to draw now in a terminal of this size, as text and tones."""
        tails = [[(printable(above.tail)[-width:], "")] for above in self._above if above.tail]
        shown = self._shown
        room = max(1, height - 1 - len(tails))
        rows: list[Row] = []
        for at, (picture, max_rows) in enumerate(shown):
            if len(rows) >= room:
                break
            rows += picture.rows(max(1, min(max_rows, (room - len(rows)) // (len(shown) - at))))
        return [*tails, *laid_out(rows[:room], width, self._glyphs)]


class _Drawn:
    """The lines as segments, made by hand: a `rich.Table` of the same costs ten times as much."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first = True
        for line in self._screen.lines(options.max_width, options.size.height):
            if not first:
                yield Segment.line()
            first = False
            for text, tone in line:
                if text:
                    yield Segment(text, TONES[tone])


class TerminalView:
    """The listener of one run that is shown on a screen."""

    def __init__(self, run: Run, max_rows: int, screen: Screen) -> None:
        self._picture = Picture(run)
        self._screen, self._max_rows = screen, max_rows
        self._count = self._picture.tally
        self._inner = 0

    def __call__(self, event: Event) -> None:
        self._count(event)
        kind = event.kind
        if kind == "node" or kind == "item":
            return
        if kind == "pipeline" or kind == "map":
            if event.phase == "start":
                self._screen.show(self._picture, self._max_rows)
            else:
                self._screen.end(self._picture)
        elif kind == "nested" and not self._count.root.begun:
            # A callback of a nested pipeline alone: the run around it is none of its business, nor is its end.
            self._inner += 1 if event.phase == "start" else -1
            if event.phase == "start" and self._inner == 1:
                self._screen.show(self._picture, self._max_rows)
            elif not self._inner:
                self._screen.end(self._picture)


_lock = threading.Lock()
_screens: WeakKeyDictionary[Console, Screen] = WeakKeyDictionary()
_own: list[Console] = []  # standard error as it was last seen


def screen_for(console: Console | None) -> Screen | None:
    """The screen of this console, of standard error if None; None itself where nothing can be drawn."""
    with _lock:
        if console is None:
            stream = sys.stderr
            if isinstance(stream, Above):
                stream = stream._stream
            if not can_draw(stream):
                return None
            if not _own or _own[0].file is not stream:
                _own[:] = [Console(file=stream, force_terminal=True, force_interactive=True, force_jupyter=False)]
            console = _own[0]
        elif not console.is_terminal or not console.is_interactive or console.is_dumb_terminal:
            return None
        if console not in _screens:
            _screens[console] = Screen(console)
        return _screens[console]


def can_draw(stream: object) -> bool:
    """Whether a stream is a terminal that can move its cursor, and in which nobody else draws."""
    if stream is None or isinstance(stream, FileProxy) or isinstance(sys.stdout, FileProxy):
        return False
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return False
    isatty = getattr(stream, "isatty", None)
    return callable(isatty) and bool(isatty())
