"""The directory of a control plane, and what became of those whose program was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hypernodes_modal.testing._links import sweep_links

__all__ = ["Home"]

PREFIX = "local-modal-"
YOUNG = 60.0
"""Seconds within which a directory without a lock may be one that is just being made."""


class Home:
    """A temporary directory, locked while its control plane lives. Making one removes those that nobody holds."""

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir())
        for left in folder.glob(f"{PREFIX}*"):
            sweep(left)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        new = self.path / "lock.new"
        self._lock = new.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(self.path / "lock")  # under this name only when it is locked

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep(left: Path) -> None:
    """Remove a directory whose control plane has gone without removing it, and the links into it."""
    with suppress(OSError):  # it is another user's, or somebody else sweeps it
        known = left.stat()
        if known.st_uid != os.getuid():
            return
        try:
            lock = (left / "lock").open("r+")
        except FileNotFoundError:
            if time.time() - known.st_mtime > YOUNG:
                shutil.rmtree(left, ignore_errors=True)
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep_links(left)
            shutil.rmtree(left, ignore_errors=True)
