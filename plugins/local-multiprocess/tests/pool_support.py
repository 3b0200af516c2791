"""What the pool's tests share: calls to a pool, and a look for anything that is left behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from hypernodes_local_multiprocess._pool import ProcessPool

TAG = "HYPERNODES_TEST_TAG"
_PAUSE = 0.002
_PATIENCE = 20.0


def eventually(condition: Callable[[], Any]) -> Any:
    """The first true value of the condition; fails when there is none within the time.

    The time is counted in looks, as on a machine that stands still for a while or is short of processors nothing else
    gets on either.
    """
    for _ in range(round(_PATIENCE / _PAUSE)):
        if value := condition():
            return value
        time.sleep(_PAUSE)
    raise AssertionError(f"not within {_PATIENCE} s")


def tagged(tag: str) -> list[int]:
    """Living processes, this one apart, that were started with that tag in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if tag.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except (OSError, ProcessLookupError):
                continue  # it ended, or is another user's
    return found


def call(pool: ProcessPool, name: str, *args: Any, blobs: Any = None) -> Future[list[memoryview]]:
    """Ask a pool on `pool_targets:command` for one of the functions there."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps((name, *args), protocol=5, buffer_callback=buffers.append)
    return pool.submit([head, *buffers], blobs or {})


def value(future: Future[list[memoryview]], seconds: float = 20.0) -> Any:
    """The unpickled result."""
    frames = future.result(seconds)
    return pickle.loads(frames[0], buffers=frames[1:])


def holders(mapping: str) -> list[int]:
    """Living processes that still hold the segment which that line of a map of memory tells of."""
    inode = mapping.split()[4]
    assert "memfd:hypernodes" in mapping
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "maps").read_text().splitlines()
                mapped = any("memfd:hypernodes" in line and line.split()[4] == inode for line in lines)
                if mapped or any(os.stat(fd).st_ino == int(inode) for fd in _segments_open(entry)):
                    found.append(int(entry.name))
            except (OSError, ProcessLookupError):
                continue  # it ended, or is another user's
    return found


def _segments_open(process: Path) -> list[Path]:
    return [fd for fd in (process / "fd").iterdir() if "memfd:hypernodes" in os.readlink(fd)]


def open_fds() -> dict[str, str]:
    """What each descriptor of this process leads to."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


def check_no_new_fds(before: dict[str, str]) -> None:
    """Fails when descriptors are open that were not `before`; threads of other tests may open some for a moment."""
    for _ in range(round(_PATIENCE / _PAUSE)):
        new = {fd: what for fd, what in open_fds().items() if before.get(fd) != what}
        if not new:
            return
        time.sleep(_PAUSE)
    raise AssertionError(f"descriptors that were not open before: {new}")
