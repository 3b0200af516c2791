"""The `no_leaks` fixture: a test that leaves threads, processes, descriptors, shared memory, files or loops fails.

Linux only, by way of /proc; elsewhere only threads, temporary files and loops are looked at.
"""

from __future__ import annotations

import fnmatch
import gc
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["LeakWatch", "no_leaks", "watch_test"]

TAG = "HYPERNODES_TEST_TAG"
"""The environment variable by which processes started in a test are known, wherever they end up."""

_PAUSE = 0.01


class LeakWatch:
    """Remembers what there is when it starts, and says what is there too many later.

    `scratch` is the directory in which the watched code makes its temporary files.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.tag = secrets.token_hex(8)
        self._allowed: list[tuple[str, str]] = []
        self._before = {kind: set(find(self)) for kind, find in _DETECTORS.items()}

    def allow(self, kind: str, pattern: str) -> None:
        """Accept leftovers of a kind (a key of the report, such as `"thread"`) whose description fits the pattern."""
        if kind not in _DETECTORS:
            raise ValueError(f"unknown kind of leak '{kind}'; the kinds are {', '.join(_DETECTORS)}")
        self._allowed.append((kind, pattern))

    def leaks(self, grace: float = 2.0) -> list[str]:
        """What is left, as `kind: description`, after waiting at most `grace` seconds for it to go.

        The seconds are counted in looks: while a machine stands still, or is short of processors, nothing can go.
        """
        first = found = self._left()
        if found:
            # what only a reference cycle keeps alive is not leaked
            gc.collect()
        for _ in range(round(grace / _PAUSE)):
            if not found:
                break
            time.sleep(_PAUSE)
            # shared memory that appears only now is a neighbour's: whatever could make it for us is reported itself
            found = [one for one in self._left() if one in first or not one.startswith("shared memory:")]
        return found

    def _left(self) -> list[str]:
        left = []
        for kind, find in _DETECTORS.items():
            new = {key: text for key, text in find(self).items() if key not in self._before[kind]}
            if kind == "shared memory" and new:
                for name in _held_by_others(set(new), _family(self.tag)):
                    del new[name]
            left += [f"{kind}: {text}" for text in new.values() if not self._is_allowed(kind, text)]
        return left

    def _is_allowed(self, kind: str, text: str) -> bool:
        return any(kind == allowed and fnmatch.fnmatch(text, pattern) for allowed, pattern in self._allowed)


@pytest.fixture
def no_leaks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeakWatch]:
    """Fail the test if anything it started or opened is still there two seconds after its end.

    Kept pools are closed first. Make it the first fixture of a suite, so that it looks last:
    `@pytest.fixture(autouse=True)` over `def clean(no_leaks): ...`. What must stay is declared with
    `no_leaks.allow(kind, pattern)`.
    """
    yield from watch_test(tmp_path_factory, monkeypatch)


def watch_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeakWatch]:
    """What the fixture `no_leaks` does, for classes that bring it as a fixture of their own."""
    if "multiprocessing" in sys.modules:
        # This directory lives as long as the process, so it must not lie in one test's scratch directory.
        from multiprocessing import util

        util.get_temp_dir()
    scratch = tmp_path_factory.mktemp("scratch", numbered=True)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    watch = LeakWatch(scratch)
    monkeypatch.setenv(TAG, watch.tag)
    yield watch
    close_pools()
    left = watch.leaks()
    shutil.rmtree(scratch, ignore_errors=True)
    if left:
        pytest.fail("the test left behind:\n" + "\n".join(f"  {one}" for one in left), pytrace=False)


def close_pools() -> None:
    """Close the places and pools that core keeps warm between calls, if it was used at all."""
    places = sys.modules.get("hypernodes._places")
    if places is not None:
        places.close_all()


# detectors: what is there now, as identity and description --------------------------------------------------------


def _threads(watch: LeakWatch) -> dict[Any, str]:
    return {thread: thread.name for thread in threading.enumerate()}


def _processes(watch: LeakWatch) -> dict[Any, str]:
    return {pid: f"{pid} {_command(pid)}" for pid in _family(watch.tag) - _helper_processes()}


def _descriptors(watch: LeakWatch) -> dict[Any, str]:
    found = {}
    for number in _numbers("/proc/self/fd") - _helper_descriptors():
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # it was the descriptor of the listing itself
        found[number, target] = f"{number} {target}"
    return found


def _shared_memory(watch: LeakWatch) -> dict[Any, str]:
    if not os.path.isdir("/dev/shm"):
        return {}
    # A directory there is no segment: somebody uses the place for files.
    return {file.name: file.name for file in os.scandir("/dev/shm") if file.is_file(follow_symlinks=False)}


def _files(watch: LeakWatch) -> dict[Any, str]:
    return {path: str(path.relative_to(watch.scratch)) for path in sorted(watch.scratch.rglob("*"))}


def _loops(watch: LeakWatch) -> dict[Any, str]:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return {}
    found: dict[Any, str] = {}
    if asyncio._get_running_loop() is not None:
        found["running"] = "a loop still counts as running in the test's thread"
    # An open loop holds an eventpoll: without one there is no need to search the heap, which takes 20 ms.
    if any("eventpoll" in text for text in _descriptors(watch).values()):
        for thing in gc.get_objects():
            if isinstance(thing, asyncio.AbstractEventLoop) and not thing.is_closed():
                found[id(thing)] = f"{type(thing).__name__} was not closed"
    return found


_DETECTORS: dict[str, Callable[[LeakWatch], dict[Any, str]]] = {
    "thread": _threads,
    "process": _processes,
    "descriptor": _descriptors,
    "shared memory": _shared_memory,
    "file": _files,
    "loop": _loops,
}


# /proc --------------------------------------------------------------------------------------------------------------


def _family(tag: str) -> set[int]:
    """Processes that descend from this one, or were started with the tag and outlived what started them."""
    own, parents = os.getpid(), dict[int, int]()
    for pid in _numbers("/proc"):
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if len(fields) > 1 and fields[0] != b"Z":
            parents[pid] = int(fields[1])
    marked = f"{TAG}={tag}".encode()
    family = {pid for pid in parents if pid != own and marked in _read(f"/proc/{pid}/environ").split(b"\0")}
    for pid in parents:
        line, above = [pid], parents.get(pid)
        while above is not None and above != own and above not in line:
            line.append(above)
            above = parents.get(above)
        if above == own:
            family.update(line)
    return family - {own}


def _held_by_others(names: set[str], family: set[int]) -> set[str]:
    """Shared memory that a process which is none of ours has mapped, or that has gone meanwhile.

    On a shared machine those are a neighbour's. Told by inode: a semaphore is mapped under a passing name and then
    linked to its own, so that its name stands in nobody's maps.
    """
    inodes = {}
    for name in names:
        try:
            inodes[name] = os.stat(f"/dev/shm/{name}").st_ino
        except FileNotFoundError:
            inodes[name] = 0
    mapped = {0}
    for pid in _numbers("/proc") - family - {os.getpid()}:
        for line in _read(f"/proc/{pid}/maps").splitlines():
            if b"/dev/shm/" in line:
                mapped.add(int(line.split()[4]))
    return {name for name, inode in inodes.items() if inode in mapped}


def _helper_processes() -> set[int]:
    """The standard library's own helpers, of which a process keeps one each until its end."""
    tracker, server = _helpers()
    pids = {getattr(tracker, "_pid", None), getattr(server, "_forkserver_pid", None)}
    return {pid for pid in pids if pid is not None}


def _helper_descriptors() -> set[int]:
    tracker, server = _helpers()
    numbers = {getattr(tracker, "_fd", None), getattr(server, "_forkserver_alive_fd", None)}
    return {number for number in numbers if number is not None}


def _helpers() -> tuple[Any, Any]:
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    server = sys.modules.get("multiprocessing.forkserver")
    return getattr(tracker, "_resource_tracker", None), getattr(server, "_forkserver", None)


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def _numbers(folder: str) -> set[int]:
    return {int(name) for name in os.listdir(folder) if name.isdecimal()} if os.path.isdir(folder) else set()


def _read(path: str) -> bytes:
    """The file's content; nothing when the process is gone or another user's."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
