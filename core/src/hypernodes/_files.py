"""The calls by which a cache folder is read and written, in one place, so that tests can record and fail each."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

__all__ = ["FILES", "Files"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # no link to elsewhere; a pipe that was planted must not block
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_AT_ONCE = 1 << 30  # Linux moves at most 2 GiB a call


class Files:
    """The file system. Every call may raise OSError."""

    close = staticmethod(os.close)
    fstat = staticmethod(os.fstat)
    fsync = staticmethod(os.fsync)
    replace = staticmethod(os.replace)
    stat = staticmethod(os.stat)
    unlink = staticmethod(os.unlink)

    def open(self, path: str) -> int:
        """A descriptor to read an existing file."""
        return os.open(path, _READ)

    def create(self, path: str) -> int:
        """A descriptor to write a file that must not be there yet, and that nobody else may read."""
        return os.open(path, _CREATE, 0o600)

    def open_folder(self, path: str) -> int:
        """A descriptor of a folder, to sync it."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def mkdir(self, path: str) -> None:
        """Make a folder for this user alone, and with usual modes the folders above it; none is fine too."""
        os.makedirs(path, 0o700, exist_ok=True)

    def read(self, descriptor: int, size: int) -> bytes:
        return os.read(descriptor, size)

    def read_into(self, descriptor: int, view: memoryview) -> int:
        return os.readv(descriptor, [view[:_AT_ONCE]])

    def write(self, descriptor: int, part: bytes | memoryview) -> int:
        return os.write(descriptor, part if len(part) <= _AT_ONCE else memoryview(part).cast("B")[:_AT_ONCE])

    def touch(self, descriptor: int) -> None:
        """Set the time of last use to now."""
        os.utime(descriptor)

    def scan(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """The regular files of a folder; those that vanish meanwhile are left out."""
        with os.scandir(path) as found:
            for entry in found:
                try:
                    if entry.is_file(follow_symlinks=False):
                        yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue

    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder."""
        with os.scandir(path) as found:
            return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]


def is_regular(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


FILES = Files()
