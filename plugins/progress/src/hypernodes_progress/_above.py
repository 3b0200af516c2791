"""What a program prints while a display stands at the bottom of the terminal: written above it, as it is."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

__all__ = ["Above", "prints_above"]


class Above(io.TextIOBase):
    """Stands in for a stream that leads to the console's terminal. Whole lines are written above the display.

    `tail` is the line that was begun and not ended yet, such as a prompt; the display shows it.
    """

    def __init__(self, console: Console, stream: TextIO) -> None:
        self._console, self._stream = console, stream
        self._lock = threading.RLock()
        self._on = True
        self.tail = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            if not self._on:  # somebody kept it, such as a logging handler made during the run
                return self._stream.write(text)
            whole, newline, tail = (self.tail + text).rpartition("\n")
            # what a carriage return takes back need not be kept
            self.tail = tail.rstrip("\r").rpartition("\r")[2]
            if newline:
                self._console.print(_Verbatim(whole), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def let_go(self) -> None:
        """Write what is left to the stream, and from now on everything."""
        with self._lock:
            self._on = False
            if self.tail:
                self._stream.write(self.tail + "\n")  # the display is followed by a line of its own
                self._stream.flush()
                self.tail = ""


class _Verbatim:
    """Lines that go to the terminal with no wrapping, markup or colours of ours."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(self._text)
        yield Segment.line()


@contextmanager
def prints_above(console: Console) -> Iterator[list[Above]]:
    """Within, `sys.stdout` and `sys.stderr` write above the display, where they lead to the console's terminal."""
    replaced: list[tuple[str, Above]] = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and terminal_of(stream) and terminal_of(stream) == terminal_of(console.file):
            above = Above(console, stream)
            setattr(sys, name, above)
            replaced.append((name, above))
    try:
        yield [above for _, above in replaced]
    finally:
        for name, above in replaced:
            if getattr(sys, name) is above:  # the program may have put another one there
                setattr(sys, name, above._stream)


def terminal_of(stream: IO[str]) -> str | None:
    """The name of the terminal that a stream leads to, or None."""
    import os

    try:
        return os.ttyname(stream.fileno())
    except (OSError, ValueError):  # no terminal, closed, or no file at all
        return None
