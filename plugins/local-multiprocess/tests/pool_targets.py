"""What the pool's tests run in workers. Imported by the zygote, so it imports nothing that starts threads."""

from __future__ import annotations

import atexit
import ctypes
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Blobs = Mapping[str, list[memoryview]]


def echo(frames: list[memoryview], blobs: Blobs) -> list[memoryview]:
    return frames


def command(frames: list[memoryview], blobs: Blobs) -> Any:
    """Run the command that the first frame pickles: a name from this module and its arguments."""
    name, *args = pickle.loads(frames[0], buffers=frames[1:])
    result = globals()[name](*args, blobs=blobs) if name == "blob_sizes" else globals()[name](*args)
    if name == "taint":
        return [pickle.dumps(result)], True
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    return [head, *buffers]


def pid() -> int:
    return os.getpid()


def taint() -> int:
    return os.getpid()


def double(value: Any) -> Any:
    return value * 2


def double_slowly(value: int) -> int:
    """Every fourth takes 3 ms, so that kills find calls that run."""
    if value % 4 == 0:
        time.sleep(0.003)
    return value * 2


def fill_in_place(array: Any) -> Any:
    array[:] = 7
    return array


def sizes(*values: bytes) -> list[int]:
    return [len(value) for value in values]


def blob_sizes(blobs: Blobs) -> dict[str, int]:
    return {digest: sum(map(len, blob)) for digest, blob in blobs.items()}


def open_files() -> list[str]:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return links


def surroundings() -> dict[str, Any]:
    return {
        "path": sys.path,
        "cwd": os.getcwd(),
        "argv": sys.argv,
        "warnoptions": sys.warnoptions,
        "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "tasks": len(os.listdir("/proc/self/task")),
        "stdin": sys.stdin.read(),
    }


def say(text: str) -> None:
    print(text)


def leave(code: int) -> None:
    os._exit(code)


def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)


def segfault() -> None:
    ctypes.string_at(0)


def raise_(name: str) -> None:
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "ValueError": ValueError}[name](3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_unprintable() -> None:
    raise Unprintable


def fork_and_return() -> int:
    """Both copies come back out of the call; only the worker's answer may count."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return os.getpid()


def wait_for(path: str) -> int:
    """Wait until the file is there."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return os.getpid()


def meet(directory: str, number: int) -> int:
    """Wait until that many workers are in this call."""
    Path(directory, str(os.getpid())).touch()
    while len(os.listdir(directory)) < number:
        time.sleep(0.002)
    return os.getpid()


def sleep() -> None:
    time.sleep(300)


def spin() -> None:
    while True:
        pass


def stuck_in_c() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def touch_then(path: str, name: str) -> Any:
    """Show that the call has begun, then go on."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return globals()[name]()


def remember_to_write(path: str) -> None:
    atexit.register(Path(path).write_text, "goodbye")


def nest(path: str) -> None:
    """A pool of this worker's own, with a worker that never ends."""
    from hypernodes_local_multiprocess._pool import ProcessPool

    pool = ProcessPool(2, "pool_targets:command")
    while len(pool.pids) < 2:
        time.sleep(0.002)
    pool.submit([pickle.dumps(("touch_then", path, "spin"))]).result()
