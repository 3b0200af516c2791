"""What the pool's tests run in workers. Imported by the zygote, so it imports nothing that starts threads."""

from __future__ import annotations

import atexit
import collections
import ctypes
import gc
import itertools
import os
import pickle
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Blobs = Mapping[str, list[memoryview]]

_kept: list[Any] = []


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


def keep_and_double(array: Any) -> Any:
    _kept.append((array, float(array[0])))
    return array * 2


def kept_are_whole() -> bool:
    return all(bool((array == first).all()) for array, first in _kept)


def keep(what: Any) -> None:
    _kept.append((what, float(what[0])))


def keep_slice(array: Any) -> None:
    keep(array[1000:2000])


def keep_in_a_cycle(array: Any) -> None:
    gc.disable()
    cycle: list[Any] = [array]
    cycle.append(cycle)


def collect() -> None:
    gc.enable()
    gc.collect()


def same(value: Any) -> Any:
    return value


def mapping(array: Any) -> str:
    """The line of this process's map of memory in which the array lies."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return line
    raise AssertionError(f"no mapping holds {address:x}")


def segments() -> int:
    """How many mappings of segments this process has."""
    return Path("/proc/self/maps").read_text().count("memfd:hypernodes")


def write_in_a_copy(array: Any) -> tuple[str, Any]:
    """A forked copy writes into the array; what is seen of that here."""
    child = os.fork()
    if not child:
        array[:] = -1
        os._exit(0)
    os.waitpid(child, 0)
    return mapping(array), array


def keep_in_a_copy(array: Any, go: str) -> int:
    """A forked copy that looks at the array when the file is there: 0 is its exit code if nothing has changed."""
    first = float(array[0])
    child = os.fork()
    if not child:
        wait_for(go)
        os._exit(0 if bool((array == first).all()) else 1)
    array[:] = -2
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def look_for_ever(array: Any, path: str) -> None:
    array[:] = -3
    Path(path).with_suffix(".new").write_text(mapping(array))
    Path(path).with_suffix(".new").rename(path)
    sleep()


def take_no_more_files() -> int:
    """From now on this process can open no file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    return os.getpid()


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
    # A bare descriptor: whoever is told to end between opening and closing it is not warned of it.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(file, f"{os.getpid()}\n".encode())
    os.close(file)
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


def sigterm_in_a_copy() -> int:
    """How a copy that user code forked ends by SIGTERM."""
    child = os.fork()
    if not child:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def keep_a_folder() -> str:
    _kept.append(tempfile.TemporaryDirectory())
    name: str = _kept[-1].name
    return name


def remember_then(farewell: str, begun: str, name: str) -> Any:
    """Build something that is closed at the end of this process, then go on."""
    remember_to_write(farewell)
    return touch_then(begun, name)


def remember_to_wait(begun: str, path: str) -> int:
    """An exit function that takes long."""
    atexit.register(Path(path).write_text, "goodbye")  # the last to run
    atexit.register(sleep)
    atexit.register(Path(begun).touch)
    return os.getpid()


def wait_for_lock() -> None:
    lock = threading.Lock()
    with lock, lock:
        pass


def wait_for_thread() -> None:
    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    thread.join()


def wait_for_loop() -> None:
    import asyncio

    async def wait() -> None:
        await asyncio.gather(*(asyncio.sleep(300) for _ in range(3)))

    asyncio.run(wait())


def wait_for_program() -> None:
    os.waitpid(os.posix_spawn("/bin/sleep", ["sleep", "0.3"], {}), 0)
    sleep()


def catch_exceptions() -> None:
    while True:
        try:
            sleep()
        except Exception:
            continue


def swallow_everything() -> None:
    while True:
        try:
            sleep()
        except BaseException:
            continue


def swallow_and_return() -> int:
    try:
        sleep()
    except BaseException:
        return 7
    return 0


def swallow_and_raise() -> None:
    try:
        sleep()
    except BaseException as error:
        raise ValueError("swallowed") from error


def wait_in_finally() -> None:
    try:
        sleep()
    finally:
        sleep()


def never_back_from_c() -> None:
    collections.deque(itertools.repeat(0), maxlen=0)
