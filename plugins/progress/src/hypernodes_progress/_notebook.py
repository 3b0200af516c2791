"""A run in a notebook: a table in HTML below the cell, redrawn in place, everything in it escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from hypernodes import Event, Run
from hypernodes.plugin import printable, summary
from hypernodes_progress._picture import Picture, Row
from hypernodes_progress._ticker import Ticker

__all__ = ["NotebookView", "html_of"]

DELAY = PAUSE = 0.25
MARKS = {"waiting": "·", "running": "▸", "ok": "✓", "failed": "✗", "stopped": "■", "more": ""}
COLOURS = {
    "running": "#1f8fc4",
    "ok": "#2e9e5b",
    "failed": "#d43c3c",
    "stopped": "#b7860b",
    "bad": "#d43c3c",
    "cache": "#9a4fc0",
}
CELL = "color:inherit;font:inherit;padding:1px 12px 1px 0;border:0;background:none;white-space:nowrap;text-align:"


class NotebookView:
    """The listener of one run that is shown below a cell. `display` is IPython's function of that name."""

    def __init__(self, run: Run, max_rows: int, display: Any) -> None:
        self._picture, self._max_rows, self._display = Picture(run), max_rows, display
        self._count = self._picture.tally
        self._handle: Any = None
        self._ticker: Ticker | None = None
        self._last = ""

    def __call__(self, event: Event) -> None:
        self._count(event)
        if event.kind in ("pipeline", "map"):
            if event.phase == "start":
                self._handle = self._display(self._bundle(), raw=True, display_id=True)
                self._ticker = Ticker(self._surface, DELAY, PAUSE)
            else:
                if self._ticker is not None:
                    self._ticker.stop()
                self._draw()

    @contextmanager
    def _surface(self) -> Iterator[Callable[[], object]]:
        yield self._draw

    def _draw(self) -> None:
        last = self._last
        bundle = self._bundle()
        if self._last != last and self._handle is not None:
            self._handle.update(bundle, raw=True)

    def _bundle(self) -> dict[str, str]:
        tally = self._picture.tally
        said = f"{printable(tally.run.pipeline)}: {summary(tally) if tally.status else 'running'}"
        self._last = html_of(self._picture.rows(self._max_rows), said if tally.status else "")
        return {"text/plain": said, "text/html": self._last}


def html_of(rows: list[Row], said: str = "") -> str:
    """The rows as a table, and a sentence below it."""
    body = "".join(f"<tr style='background:none'>{_cells(row)}</tr>" for row in rows)
    below = f"<div style='opacity:.7;margin-top:2px'>{escape(said)}</div>" if said else ""
    return (
        "<div style='overflow-x:auto;font:12px/1.5 var(--jp-code-font-family,ui-monospace,monospace)'>"
        "<table style='border-collapse:collapse;margin:0;border:0;color:inherit;font:inherit'>"
        f"{body}</table>{below}</div>"
    )


def _cells(row: Row) -> str:
    colour = COLOURS.get(row.state)
    mark = f"<span style='display:inline-block;width:1.2em{f';color:{colour}' if colour else ''}'>"
    mark += f"{MARKS[row.state]}</span>"
    faint = ";opacity:.55" if row.state in ("waiting", "more") else ""
    bold = ";font-weight:600" if not row.level else ""
    name = f"<td style='{CELL}left;padding-left:{row.level * 1.4:g}em{bold}{faint}'>{mark}{escape(row.name)}</td>"
    figures = "".join(
        f"<td style='{CELL}right{';opacity:.65' if faint else ''}'>{escape(text)}</td>"
        for text, faint in ((row.count, False), (row.rate, True), (row.left, True), (row.elapsed, True))
    )
    notes = " &nbsp;".join(
        f"<span style='{f'color:{COLOURS[note.tone]}' if note.tone in COLOURS else 'opacity:.65'}'>"
        f"{escape(note.text)}</span>"
        for note in row.notes
    )
    return f"{name}<td style='{CELL}left'>{_bar(row)}</td>{figures}<td style='{CELL}left'>{notes}</td>"


def _bar(row: Row) -> str:
    if row.share is None:
        return ""
    percent = min(max(row.share, 0.0), 1.0) * 100
    colour = COLOURS["ok" if percent >= 100 else "running"]
    return (
        f"<div role='progressbar' aria-valuenow='{percent:.0f}' aria-valuemin='0' aria-valuemax='100' "
        "style='width:160px;height:6px;border-radius:3px;background:rgba(127,127,127,.25)'>"
        f"<div style='width:{percent:.1f}%;height:6px;border-radius:3px;background:{colour}'></div></div>"
    )
