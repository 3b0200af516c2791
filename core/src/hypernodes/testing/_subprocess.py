"""The honest minimal cloud: fresh interpreters that receive bytes and nothing else."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import IO, Any, ClassVar

from hypernodes.plugin import Backend, PlaceError, Session, WorkerLostError, pair

__all__ = ["SubprocessBackend"]

_MAIN = "from hypernodes.testing._subprocess import far_side; far_side()"
_LENGTH = 8


@dataclass(frozen=True)
class SubprocessBackend(Backend):
    """Runs in `machines` fresh interpreters that share nothing with this process but what a payload holds.

    They do not see this program's `__main__`, its modules outside the installed packages (unless `paths` adds folders)
    or its memory, just like a container in a cloud. For tests of pipelines that cross borders, and of backends.
    """

    name: ClassVar[str] = "subprocess"
    provides: ClassVar[frozenset[str]] = frozenset({"threads", "processes"})
    default_engine: ClassVar[str | None] = "sequential"

    engine: Any = None
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    machines: int = 1
    paths: tuple[str, ...] = ()
    label: str = ""
    map_strategy: str | None = None

    def __post_init__(self) -> None:
        pair(self)

    def open(self) -> Session:
        return _Session(self.machines, self.paths)


class _Session(Session):
    warm = False

    def __init__(self, machines: int, paths: tuple[str, ...]) -> None:
        self.workers = machines
        self.paths = paths
        self._work: SimpleQueue[tuple[bytes, Future[bytes]] | None] = SimpleQueue()
        self._machines: dict[int, subprocess.Popen[bytes]] = {}
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(at,), name=f"hypernodes-subprocess-{at}", daemon=True)
            for at in range(machines)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> tuple[int, ...]:
        """The interpreters that are running now."""
        return tuple(machine.pid for machine in list(self._machines.values()) if machine.poll() is None)

    def submit(self, payload: bytes) -> Future[bytes]:
        future: Future[bytes] = Future()
        self._work.put((payload, future))
        return future

    def _serve(self, at: int) -> None:
        while (work := self._work.get()) is not None:
            payload, future = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                machine = self._machine(at)
                assert machine.stdin is not None and machine.stdout is not None
                _write(machine.stdin, payload)
                reply = _read(machine.stdout)
            except OSError as error:
                reply = None
                if not self._closed and at not in self._machines:
                    future.set_exception(PlaceError(f"no interpreter could be started: {error}"))
                    continue
            if reply is None:
                lost = self._machines.pop(at)
                _close(lost)
                future.set_exception(
                    WorkerLostError(f"the interpreter {lost.pid} {_ended(lost.returncode)} while it ran this item")
                )
            else:
                future.set_result(reply)
        if at in self._machines:
            _close(self._machines.pop(at))

    def _machine(self, at: int) -> subprocess.Popen[bytes]:
        machine = self._machines.get(at)
        if machine is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(self.paths)}
            machine = self._machines[at] = subprocess.Popen(
                [sys.executable, "-c", _MAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        return machine

    def abort(self) -> None:
        for machine in list(self._machines.values()):
            machine.kill()

    def close(self) -> None:
        self._closed = True
        while True:
            try:
                work = self._work.get_nowait()
            except Empty:
                break
            if work is not None:
                work[1].cancel()
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()


def far_side() -> None:
    """The far interpreter's main loop: requests on standard input, replies on what was standard output."""
    from hypernodes.plugin import receive

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for _ in itertools.count():
        payload = _read(source)
        if payload is None:
            return
        _write(sink, receive(payload))


def _write(stream: IO[bytes], payload: bytes) -> None:
    stream.write(len(payload).to_bytes(_LENGTH, "little"))
    stream.write(payload)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    head = stream.read(_LENGTH)
    if len(head) < _LENGTH:
        return None
    length = int.from_bytes(head, "little")
    payload = stream.read(length)
    return payload if len(payload) == length else None


def _close(machine: subprocess.Popen[bytes]) -> None:
    for stream in (machine.stdin, machine.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                # It died with our bytes unread; there is nothing left to flush.
                continue
    machine.wait()


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with code {code}"
