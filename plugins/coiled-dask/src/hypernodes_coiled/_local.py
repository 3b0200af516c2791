"""A cluster on this machine: a process with the scheduler and the nannies of the workers, and nothing of ours in it.

It is started by its own name, so scripts need no main guard. It speaks TLS on the loopback alone, with a key that is
made for it and never written anywhere. It ends when this process closes it, or is gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distributed.security import Security

from hypernodes import PlaceError

__all__ = ["LocalCluster", "LocalPlan", "end_group"]

_PATIENCE = 10.0
"""Seconds for the cluster to end in order, which takes it a fraction of one."""
_GRACE = 2.0
"""Seconds for workers whose host is gone to end when they are asked, and again when they are killed."""


@dataclass(frozen=True)
class LocalPlan:
    """How many workers, with how many threads, how much memory and which resources each."""

    workers: int | None = None
    threads: int = 1
    memory: str | int | None = None
    resources: tuple[tuple[str, float], ...] = ()


class LocalCluster:
    """A running cluster. Raises `PlaceError` when it does not start."""

    def __init__(self, plan: LocalPlan) -> None:
        if os.name == "nt":
            raise PlaceError(
                "DaskBackend() starts no cluster on Windows; give it one: DaskBackend(distributed.LocalCluster())"
            )
        self.security = Security.temporary()
        self._folder = tempfile.TemporaryDirectory(prefix="hypernodes-dask-")
        told, tell = os.pipe()
        try:
            self._process = subprocess.Popen(
                # semaphores are left to their tracker where a host is killed, and it need not tell of them
                [sys.executable, *_flags(), "-W", "ignore:resource_tracker", "-c", _BOOT],
                stdin=subprocess.PIPE,
                pass_fds=[tell],
                start_new_session=True,  # Ctrl-C in a terminal is for the program alone
            )
        finally:
            os.close(tell)
        with open(told) as answers:
            try:
                self._start(plan, tell)
                self.address = self._answer(answers.readline())
            except BaseException:
                self.close()
                raise

    def _start(self, plan: LocalPlan, tell: int) -> None:
        ca, certificate, key = _keys(self.security)
        start = {
            "path": list(sys.path),
            "tell": tell,
            "workers": plan.workers or _cores(),
            "threads": plan.threads,
            "memory": "auto" if plan.memory is None else plan.memory,
            "resources": dict(plan.resources),
            "folder": self._folder.name,
            "security": {"ca": ca, "certificate": certificate, "key": key},
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once, which is told next
            self._process.stdin.write(json.dumps(start).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, line: str) -> str:
        if not line:
            raise PlaceError(
                f"the local Dask cluster did not start: its process ended with code {self._process.wait()}; "
                "what it wrote to standard error says more"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise PlaceError(f"the local Dask cluster did not start: {answer['error']}")
        return str(answer["address"])

    @property
    def pid(self) -> int:
        """The process of the scheduler and the nannies."""
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the scheduler and all workers, and wait for that."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end_group(self._process.pid)
        self._folder.cleanup()


def end_group(group: int) -> None:
    """End what is left of a process group whose first process has ended: workers without their nanny; often none.

    Python's tracker of semaphores lets the first request pass, and removes theirs from the machine when they are gone.
    """
    for request in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _GRACE
        try:
            os.killpg(group, request)
            while time.monotonic() < until:
                time.sleep(0.01)
                os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):  # the second is what macOS says of processes that have ended
            return


_BOOT = """\
import json, sys
start = json.loads(sys.stdin.buffer.readline())
sys.path[:] = start["path"]
from hypernodes_coiled._host import main
main(start)
"""


def _flags() -> list[str]:
    """The options this interpreter was started with; and until it has our path, nothing in the folder counts."""
    found: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [*found, *([] if sys.flags.safe_path else ["-P"])]


def _keys(security: Any) -> tuple[str, str, str]:
    return security.tls_ca_file, security.tls_client_cert, security.tls_client_key


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
