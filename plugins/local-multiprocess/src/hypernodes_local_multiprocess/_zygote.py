"""The process that worker processes are forked from: one thread, no user code, gone when the pool is.

It is started as a fresh interpreter, imports the target once, and then forks workers on request. Forking is
safe here as nothing else ever runs: no thread can hold a lock at that moment.

On the control socket go lines of JSON. From the pool: `{"spawn": serial, "path": ..., "cwd": ...}` with the
worker's socket and ticket pipe, and `{"kill": serial}`. To the pool: `{"ended": serial, "pid": ..., "status": ...}`,
`{"unforked": serial, "why": ...}` and `{"broken": text}`.

When the pool hangs up, its process dies, or SIGTERM comes, the workers are asked to end, have a short grace, and are
killed. By the signal `AT_ONCE` the pool says that there is no grace, or no more of it.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from hypernodes_local_multiprocess import _ending, _worker

__all__ = ["main"]

_CHUNK = 64 * 1024
_PR_SET_PDEATHSIG = 1
_HEARD = (signal.SIGCHLD, signal.SIGTERM, _ending.AT_ONCE)


def main(control_fd: int, parent: int, target: str, grace: float) -> NoReturn:
    """Serve the pool in process `parent` until it is gone, then end with every worker, within `grace` seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *_HEARD})
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    try:
        _import_once(target)
    except BaseException:
        control.sendall(_line({"broken": traceback.format_exc()}))
        os._exit(1)
    gc.collect()
    gc.freeze()  # workers share these pages as long as no collection touches them
    _Zygote(control, parent, target, grace).serve()


class _Zygote:
    """The control socket, the workers that have not been reaped, and what wakes the loop."""

    def __init__(self, control: socket.socket, parent: int, target: str, grace: float) -> None:
        self._control = control
        self._target = target
        self._grace = grace
        self._pids: dict[int, int] = {}
        self._serials: dict[int, int] = {}
        self._received = bytearray()
        self._fds: list[int] = []
        # Only this process holds the writing end: workers read its end from the other.
        self._lifeline, self._life = os.pipe()
        # Numbers of signals that came, as bytes; the handlers themselves do nothing.
        self._heard_read, self._heard_write = os.pipe()
        os.set_blocking(self._heard_read, False)
        os.set_blocking(self._heard_write, False)
        for number in _HEARD:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._heard_write, warn_on_full_buffer=False)
        self._at_once = False
        self._poll = select.poll()
        for fd in (control.fileno(), self._heard_read):
            self._poll.register(fd, select.POLLIN)
        self._parent = _watch(parent)
        if self._parent is not None:
            self._poll.register(self._parent, select.POLLIN)

    def serve(self) -> NoReturn:
        """Fork, kill and reap until the pool hangs up, its process dies, or a signal says so."""
        alive = True
        while alive:
            for fd, _ in self._poll.poll():
                if fd == self._heard_read:
                    alive = not self._listen() and alive
                elif fd == self._parent:
                    alive = False  # other processes may hold copies of the pool's socket, so its end says nothing
                elif not self._receive():
                    alive = False
        for fd in (self._control.fileno(), *([] if self._parent is None else [self._parent])):
            self._poll.unregister(fd)
        end = time.monotonic() + self._grace
        while self._serials and not self._at_once and (now := time.monotonic()) < end:
            self._send_all(signal.SIGTERM)
            self._wait_for_workers(min(now + _ending.AGAIN, end))
        self._send_all(signal.SIGKILL)
        while self._serials:
            self._reap(0)
        os._exit(0)

    def _wait_for_workers(self, deadline: float) -> None:
        while self._serials and not self._at_once and (left := deadline - time.monotonic()) > 0:
            if self._poll.poll(left * 1000):
                self._listen()

    def _listen(self) -> bool:
        """Act on signals that came; whether they say that this is the end."""
        numbers = os.read(self._heard_read, _CHUNK)
        self._reap(os.WNOHANG)
        self._at_once = self._at_once or _ending.AT_ONCE in numbers
        return self._at_once or signal.SIGTERM in numbers

    def _send_all(self, number: int) -> None:
        if not self._at_once or number == signal.SIGKILL:
            for pid in self._serials:  # not reaped, so that the id is still this worker's
                os.kill(pid, number)

    def _receive(self) -> bool:
        space = socket.CMSG_SPACE(8 * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._control.recvmsg(_CHUNK, space)
        except ConnectionError:  # the pool's process died with something of ours unread
            return False
        for _, _, payload in ancillary:
            fds = array.array("i")
            fds.frombytes(payload)
            for fd in fds:
                os.set_inheritable(fd, False)
                self._fds.append(fd)
        self._received += data
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        for line in lines:
            request: dict[str, Any] = json.loads(line)
            if "spawn" in request:
                sock, tickets, *self._fds = self._fds
                self._spawn(request, sock, tickets)
            elif request["kill"] in self._pids:  # not reaped, so that the id is still this worker's
                os.kill(self._pids[request["kill"]], signal.SIGKILL)
        return bool(data)

    def _spawn(self, request: dict[str, Any], sock: int, tickets: int) -> None:
        serial = request["spawn"]
        zygote = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # in the copy they would wake the zygote
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"unforked": serial, "why": f"the system refused another process: {error}"})
        else:
            if not pid:
                self._become_worker(request, sock, tickets, zygote)
            self._pids[serial] = pid
            self._serials[pid] = serial
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        os.close(sock)
        os.close(tickets)

    def _become_worker(self, request: dict[str, Any], sock_fd: int, tickets: int, zygote: int) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _HEARD:
                signal.signal(number, signal.SIG_DFL)
            self._control.close()
            for fd in (self._life, self._heard_read, self._heard_write, *self._fds):
                os.close(fd)
            if self._parent is not None:
                os.close(self._parent)
            _die_with(zygote, self._lifeline)
            atexit._clear()
            sock = socket.socket(fileno=sock_fd)  # open to the end: the pool has a worker that hangs up killed
            try:
                _ending.obey()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
                sys.path[:] = request["path"]
                if request["cwd"] is not None:
                    os.chdir(request["cwd"])
                gc.enable()
                _worker.serve(sock, tickets, _resolve(self._target))
                status = 0
            except _ending.Ended:
                raise
            except BaseException as error:
                _worker.say_last_words(sock, error)
            _ending.leave(status)
        except _ending.Ended:
            _ending.leave(status)
        finally:
            os._exit(status)

    def _reap(self, flags: int) -> None:
        while self._serials:
            pid, status = os.waitpid(-1, flags)
            if not pid:
                return
            serial = self._serials.pop(pid)
            del self._pids[serial]
            self._tell({"ended": serial, "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._control.sendall(_line(event))
        except (BrokenPipeError, ConnectionResetError):
            return  # the pool is gone, and the loop is about to see it


def _import_once(target: str) -> None:
    gc.disable()
    importlib.import_module("cloudpickle")
    _resolve(target)


def _resolve(target: str) -> _worker.Target:
    module, _, name = target.partition(":")
    found: _worker.Target = getattr(importlib.import_module(module), name)
    return found


def _watch(pid: int) -> int | None:
    """A descriptor that becomes readable when that process ends, on systems that have one; else None."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(0)
    except OSError:  # refused by a sandbox: the end of the control socket has to do
        return None


def _die_with(zygote: int, lifeline: int) -> None:
    """Make this worker end when the zygote does, even while it runs C code that never lets go of the interpreter.

    Only Linux can promise that much. Elsewhere a thread waits for the end of the lifeline; on Linux there is
    none, as user code that forks is warned about threads.
    """
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0:
        os.close(lifeline)
        if os.getppid() != zygote:
            os._exit(1)
        return

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, name="hypernodes-lifeline", daemon=True).start()


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"
