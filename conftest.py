"""What holds for the tests of every package: they do not depend on who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script as a program of its own, with what more its environment is to hold; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(source: str, *options: str, **environment: str) -> subprocess.Popen[str]:
        path = tmp_path / f"script_{len(running)}.py"
        path.write_text(source)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, *options, str(path)]
        running.append(subprocess.Popen(command, env={**os.environ, **environment}, cwd=tmp_path, text=True, **pipes))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def pytest_configure() -> None:
    """Take back what whoever started the tests has made ignored: programs that tests start inherit it.

    A shell's background job ignores SIGINT, and there Ctrl-C would reach no program under test.
    """
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD})
