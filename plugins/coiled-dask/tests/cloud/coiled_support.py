"""What several test files of `CoiledBackend` need."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from coiled_plane import TOKEN, ControlPlane

from hypernodes import CoiledBackend, node

HUSHED = "sk-never-seen-anywhere"
CHEAP: dict[str, Any] = {
    **dict.fromkeys(("workers", "threads_per_worker"), 1),
    "software": "prepared",
    "credentials": None,
    "worker_class": "distributed.Worker",
}
"""One worker without a nanny: two processes, and no look at the environment or at credentials of a cloud."""


@node(output_name="process")
def process(x: int) -> int:
    return os.getpid()


@node(output_name="doubled")
def double(x: int) -> int:
    return 2 * x


def backend(**options: Any) -> CoiledBackend:
    return CoiledBackend(**{**CHEAP, **options})


@contextmanager
def program(plane: ControlPlane, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program of somebody who is logged in there; it does not outlive the block."""
    environment = {**os.environ, "DASK_COILED__TOKEN": TOKEN, "DASK_COILED__SERVER": plane.url}
    pipe = subprocess.PIPE
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_for(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)


def settings(plane: ControlPlane) -> dict[str, object]:
    """The Dask settings of somebody who is logged in there."""
    return {
        "coiled.token": TOKEN,
        "coiled.server": plane.url,
        "coiled.cluster-state-check-interval": "100ms",
    }
