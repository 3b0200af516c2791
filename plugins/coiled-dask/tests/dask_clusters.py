"""Clusters of processes that tests start, kill and stop, and how to wait for what happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hypernodes import DaskBackend, Pipeline, node

PATIENCE = 60.0
"""Seconds within which a loaded machine does anything that a test waits for."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something holds, and give what it gave."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain for {what}"
        time.sleep(0.02)
    return found


class Harmed:
    """A cluster of a scheduler and of workers without nannies, each a process that a test may kill or stop."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, list[subprocess.Popen[bytes]]()
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(file))
        self.address = until(lambda: _address(file), "the scheduler's address")

    def worker(self, *options: str, preload: str = "", folder: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a worker of one thread; `preload` is a program that it runs first."""
        more = []
        if preload:
            file = self._folder / f"preload_{len(self._running)}.py"
            file.write_text(preload)
            more = ["--preload", str(file)]
        place = ["--local-directory", str(self._folder), "--nthreads", "1", "--no-nanny"]
        return self._start("worker", self.address, *place, *more, *options, folder=folder)

    def until_connected(self, workers: int = 1) -> None:
        """Wait until the scheduler knows of so many workers."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=PATIENCE)

    def _start(self, what: str, *options: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
        command += ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        with open(self._folder / f"{what}.log", "ab") as log:
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
            running = subprocess.Popen(
                command, cwd=folder or self._folder, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._running.append(running)
        return running

    def close(self) -> None:
        for running in self._running:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _address(file: Path) -> str:
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError):
        return ""


KEPT: set[int] = set()
"""The processes of clusters that stay for the whole session."""


def hosts() -> list[int]:
    """The processes with the schedulers of local clusters that the test has started."""
    found = []
    for child in psutil.Process().children():
        try:
            if child.pid not in KEPT and any("hypernodes_coiled._host" in part for part in child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def workers_of(backend: DaskBackend) -> set[int]:
    """The process ids of a backend's two workers."""
    process = node(_process, output_name="process")
    pipeline = Pipeline(nodes=[process], backend=backend)

    def both() -> set[int]:
        found = set(pipeline.map([{"x": x} for x in range(8)], output_name="process"))
        return found if len(found) == 2 else set()

    found: set[int] = until(both, "both workers to take part")
    return found


def _process(x: int) -> int:
    time.sleep(0.05)
    return os.getpid()
