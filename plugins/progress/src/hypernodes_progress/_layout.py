"""Rows laid out in the cells of a terminal: aligned columns that give way, one after another, where it is narrow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from hypernodes_progress._picture import Note, Row

__all__ = ["ASCII", "UNICODE", "Glyphs", "Span", "laid_out"]

Span = tuple[str, str]
"""Text and its tone."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that a terminal can show."""

    spinner: str
    marks: dict[str, str]
    tree: tuple[str, str, str, str]  # goes on, branch, last branch, nothing
    bar: tuple[str, str, str]  # done, the half of a cell, to do
    ellipsis: str


UNICODE = Glyphs(
    "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    {"waiting": "·", "ok": "✓", "failed": "✗", "stopped": "■", "more": " "},
    ("│  ", "├─ ", "└─ ", "   "),
    ("━", "╸", "━"),
    "…",
)
ASCII = Glyphs(
    "|/-\\",
    {"waiting": ".", "ok": "+", "failed": "x", "stopped": "#", "more": " "},
    ("|  ", "|- ", "`- ", "   "),
    ("#", "#", "-"),
    "~",
)
WIDEST_NAME = 36
COLUMNS = ("count", "rate", "left", "elapsed")
BARS = (28, 16, 8, 0)  # the widths that are tried
GIVE_WAY = (
    (BARS[1], "", "all"),
    (BARS[2], "", "urgent"),
    (BARS[2], "rate", "urgent"),
    (BARS[2], "elapsed", "urgent"),
    (BARS[3], "", "urgent"),
    (BARS[3], "left", "none"),
    (BARS[3], "count", "none"),
)
"""In turn: how long the bar may be, which column goes, and for which notes that is done."""


def laid_out(rows: Sequence[Row], width: int, glyphs: Glyphs) -> list[list[Span]]:
    """A line of spans for each row, none wider than `width` cells."""
    heads = [head_of(row, glyphs) for row in rows]
    widest = min(max((sum(cell_len(text) for text, _ in head) for head in heads), default=0), WIDEST_NAME)
    columns = {name: max((cell_len(getattr(row, name)) for row in rows), default=0) for name in COLUMNS}
    has_bar = any(row.share is not None for row in rows)
    wanted = max((_size(row.notes) for row in rows), default=0)
    urgent = max((_size([note for note in row.notes if note.tone != "dim"]) for row in rows), default=0)
    bar = BARS[0] if has_bar else 0
    shown = {name for name, size in columns.items() if size}

    def room_for_notes() -> int:
        return width - widest - sum(columns[name] + 2 for name in shown) - (bar + 2 if bar else 0)

    # What is missed least gives way first: the bar gets shorter, then columns go, and what failed last of all.
    for size, column, needed in GIVE_WAY:
        if room_for_notes() >= (wanted if needed == "all" else urgent if needed == "urgent" else 0):
            break
        bar = min(bar, size)
        shown.discard(column)
    notes = max(min(wanted, room_for_notes()), 0)
    widest = min(widest, width)
    return [
        [*_fitted(head, widest, glyphs), *_body(row, columns, shown, bar, notes, glyphs)]
        for head, row in zip(heads, rows, strict=True)
    ]


def head_of(row: Row, glyphs: Glyphs) -> list[Span]:
    """The place in the tree, the mark and the name."""
    on, branch, last, nothing = glyphs.tree
    guides = "".join(on if level in row.bars else nothing for level in range(1, row.level))
    if row.level:
        guides += (branch if row.level in row.bars else last) if row.state != "more" else nothing
    mark = glyphs.marks.get(row.state) or glyphs.spinner[int(time.monotonic() * 10) % len(glyphs.spinner)]
    tone = "strong" if not row.level else "dim" if row.state in ("waiting", "more") else ""
    return [(guides, "dim"), (f"{mark} ", row.state), (row.name, tone)]


def _body(row: Row, columns: dict[str, int], shown: set[str], bar: int, notes: int, glyphs: Glyphs) -> list[Span]:
    spans: list[Span] = []
    if bar:
        spans.append(("  ", ""))
        spans += bar_of(row, bar, glyphs)
    for name in COLUMNS:
        if name in shown:
            text = getattr(row, name)
            spans.append((" " * (2 + columns[name] - cell_len(text)) + text, "" if name == "count" else "dim"))
    for note in row.notes:
        notes -= _size([note])
        if notes < 0:
            break
        spans.append((" " * note.gap + note.text, note.tone))
    while spans and not spans[-1][0].strip():
        spans.pop()
    return spans


def _size(notes: Sequence[Note]) -> int:
    return sum(cell_len(note.text) + note.gap for note in notes)


def bar_of(row: Row, width: int, glyphs: Glyphs) -> list[Span]:
    if row.share is None:
        return [(" " * width, "")]
    done, half, rest = glyphs.bar
    halves = int(min(max(row.share, 0.0), 1.0) * width * 2)
    full, odd = divmod(halves, 2)
    tone = "done" if row.share >= 1 else "bar"
    return [(done * full + half * odd, tone), (rest * (width - full - odd), "rest")]


def _fitted(head: Sequence[Span], width: int, glyphs: Glyphs) -> list[Span]:
    """The head in exactly `width` cells."""
    spans: list[Span] = []
    room = width
    for text, tone in head:
        size = cell_len(text)
        if size > room:
            spans.append((set_cell_size(text, room - 1) + glyphs.ellipsis if room > 1 else " " * room, tone))
            return spans
        spans.append((text, tone))
        room -= size
    spans.append((" " * room, ""))
    return spans
