"""A program in a real terminal, and what stands on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyte
import pytest

PATIENCE = 30.0  # seconds until a program that does not get there has failed


class Terminal:
    """A terminal of some size in which a program runs. The program waits where it reads a line of standard input."""

    def __init__(self, folder: Path, program: str, columns: int, rows: int, env: dict[str, str]) -> None:
        file = folder / "program.py"
        file.write_text(PRELUDE + textwrap.dedent(program), encoding="utf-8")
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(file)],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            start_new_session=True,
            env={**kept, "TERM": "xterm-256color", "COLUMNS": "", "LC_ALL": "C.UTF-8", **env},
        )
        os.close(theirs)

    @property
    def lines(self) -> list[str]:
        """What can be read on the screen, without empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, *expected: str) -> list[str]:
        """Read what the program writes until lines that follow each other match these patterns; all the lines then.

        Pictures are drawn by the clock, and read in parts: what is expected of one is said here, all of it.
        """
        self.read_until(lambda: _follow_each_other(self.lines, expected), f"never seen: {expected}")
        return self.lines

    def read_until(self, reached: Callable[[], bool], otherwise: str) -> None:
        """Read what the program writes until this holds."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline, f"{otherwise}; on the screen:\n{self.text}"
            assert self._read(0.2), f"{otherwise}, and the program ended; on the screen:\n{self.text}"

    def go_on(self) -> None:
        """Let the program go on from where it waits."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> list[str]:
        """Wait for the program's end; the lines that are left."""
        deadline = time.monotonic() + PATIENCE
        while self._read(0.2):
            assert time.monotonic() < deadline, f"never ended; on the screen:\n{self.text}"
        self.process.wait(PATIENCE)
        return self.lines

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        os.close(self._ours)

    def colour_of(self, text: str) -> str:
        """The colour in which this stands on the screen."""
        for row, line in enumerate(self.screen.display):
            if text in line:
                return str(self.screen.buffer[row][line.index(text)].fg)
        raise AssertionError(f"{text!r} is not on the screen:\n{self.text}")

    def _read(self, seconds: float) -> bool:
        """Read what is there; False when the program has closed the terminal."""
        ready, _, _ = select.select([self._ours], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux says so when nobody holds the other end any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


def _follow_each_other(lines: list[str], expected: Sequence[str]) -> bool:
    windows = (lines[at : at + len(expected)] for at in range(len(lines) - len(expected) + 1))
    return any(all(map(re.search, expected, window)) for window in windows)


UNWANTED = {"NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "LINES", "PYTHONPATH"}
PRELUDE = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parents[3] / "core" / "tests")!r})
from event_story import Story
from hypernodes import LocalBackend, Pipeline, ProgressCallback, node

def wait():
    sys.stdin.readline()

"""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """`terminal(program, columns=100, rows=24, **env)` starts a program in a terminal of its own."""
    started: list[Terminal] = []

    def start(program: str, *, columns: int = 100, rows: int = 24, **env: str) -> Terminal:
        started.append(Terminal(tmp_path, program, columns, rows, env))
        return started[-1]

    yield start
    for one in started:
        one.close()
