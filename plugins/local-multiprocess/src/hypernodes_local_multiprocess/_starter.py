"""The pool's side of the zygote: start it, ask it for workers, hear how they ended, end it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

from hypernodes import PlaceError
from hypernodes_local_multiprocess import _ending
from hypernodes_local_multiprocess._frames import Outbox, Packet

__all__ = ["Starter"]

_CHUNK = 64 * 1024
_PATIENCE = 5.0  # seconds for the zygote to end with all workers, which takes it milliseconds
_BOOT = """\
import json, os, sys
start = json.load(sys.stdin)
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.close(null)
sys.path[:], sys.argv[:] = start["path"], start["argv"]
from hypernodes_local_multiprocess._zygote import main
main(start["control"], start["parent"], start["target"], start["grace"])
"""


class Starter:
    """A running zygote. Its socket never blocks; `outbox` holds what the zygote has not taken yet."""

    def __init__(self, target: str) -> None:
        if not sys.executable:
            raise PlaceError("worker processes cannot be started: `sys.executable` names no Python interpreter")
        # -P: until it has our path, nothing in the current directory may stand in for a standard module.
        flags = [*subprocess._args_from_interpreter_flags(), *([] if sys.flags.safe_path else ["-P"])]  # type: ignore[attr-defined]
        self.sock, far = socket.socketpair()
        with far:
            start = {
                "path": _path(),
                "argv": sys.argv,
                "control": far.fileno(),
                "parent": os.getpid(),
                "target": target,
                "grace": _ending.GRACE,
            }
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *flags, "-c", _BOOT], stdin=subprocess.PIPE, pass_fds=[far.fileno()]
                )
            except OSError as error:
                self.sock.close()
                raise PlaceError(f"worker processes cannot be started with {sys.executable!r}: {error}") from error
        self.sock.setblocking(False)
        self.outbox = Outbox(self.sock)
        self._received = bytearray()
        assert self._process.stdin is not None
        try:
            with self._process.stdin as stdin:
                stdin.write(json.dumps(start).encode())
        except BrokenPipeError:
            return  # it died at once, which its control socket tells next

    def spawn(self, serial: int, sock: int, tickets: int) -> None:
        """Ask for a worker; the descriptors are handed over."""
        request = {"spawn": serial, "path": _path(), "cwd": _cwd()}
        self.outbox.push(Packet(json.dumps(request).encode() + b"\n", (sock, tickets)))
        self.outbox.flush()

    def kill(self, serial: int) -> None:
        """Ask for a worker's death by SIGKILL. The zygote knows which process id is still that worker's."""
        self.outbox.push(Packet(json.dumps({"kill": serial}).encode() + b"\n"))
        self.outbox.flush()

    def events(self) -> tuple[list[dict[str, Any]], bool]:
        """What the zygote has told since, and whether it still lives."""
        alive = True
        try:
            data = self.sock.recv(_CHUNK)
            alive = bool(data)
            self._received += data
        except BlockingIOError:
            pass
        except ConnectionResetError:
            alive = False
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines], alive

    def hang_up(self) -> None:
        """Let the zygote ask all workers to end, kill those that do not within the grace, and end itself."""
        self.outbox.clear()
        try:
            # Unlike close(), this reaches the zygote even when a forked copy of this process holds the socket.
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it hung up first
            return

    def close(self) -> int:
        """End the zygote and all workers at once, wait for that, and return its exit code."""
        self._process.send_signal(_ending.AT_ONCE)
        self.hang_up()
        self.sock.settimeout(_PATIENCE)
        try:
            while self.sock.recv(_CHUNK):
                continue
        except TimeoutError:
            self._process.kill()
        except OSError:  # it hung up first
            pass
        self.sock.close()
        return self._process.wait()


def _path() -> list[str]:
    return list(sys.path)


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted; workers then stay where the zygote is
        return None
