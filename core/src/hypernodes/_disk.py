"""`DiskCache`: one self-describing file for each entry in a folder of its owner's alone, and no index."""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hypernodes._bytes_cache import BytesCache, Kept, Refused
from hypernodes._cache import Found, bound_of
from hypernodes._entry import Defect, Part
from hypernodes._errors import CacheError
from hypernodes._files import FILES, Files, is_regular
from hypernodes._signing import SigningKey, signing_key_of

__all__ = ["DiskCache"]

UNDER_WAY = "tmp"
"""The folder of files that are being written. It is beside the entries, so that moving them is one step."""
STALE = 3600.0
"""After so many seconds a file under way belongs to a process that has died."""
TOUCH = 600.0
"""How old the time of last use may be, in seconds; it is not written at every read."""
_SMALL = 128 * 1024
_TRIES = 3  # somebody may delete the folder between two calls


class DiskCache(BytesCache):
    """Keeps entries in a folder: `DiskCache(".cache")`.

    The folder is made at the first save, with mode 0700. Any number of threads and processes may use it at once; a
    crash at any moment leaves entries whole. `max_bytes` bounds the sum of the files' lengths: entries that were not
    used for longest go first. Several processes that write at once may pass it by a twentieth each. `signing_key`
    (bytes or text of 16 bytes or more, or `"env:NAME"`) signs entries, and only entries signed with it are read.
    `fsync=True` waits until the disk has each entry: that is for power cuts, and entries are checked either way.

    Raises CacheError when the path is a file, or a folder that others own or may write to, for entries are pickles:
    who may write to the folder may run code in this process. A folder that cannot be made or written is no error,
    only a warning at the first save.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        signing_key: SigningKey | bytes | str | None = None,
        fsync: bool = False,
    ) -> None:
        given = _path_of(path)
        bound = bound_of(max_bytes, "max_bytes", f"DiskCache('{given}')")
        self._set(os.path.abspath(os.path.expanduser(given)), bound, fsync)
        self.signing_key = signing_key_of(signing_key, f"DiskCache('{given}')")
        trouble = _unsafe(self.path)
        if trouble:
            raise CacheError(f"DiskCache('{given}') cannot be used: {trouble}")

    def _set(self, path: str, max_bytes: int | None, fsync: bool) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.fsync = fsync
        self.files: Files = FILES
        self.trouble = ""
        self._room = 0  # bytes that may be written before the folder is looked through again
        self._opened = False
        self._clearing = threading.Lock()

    @property
    def address(self) -> str:
        return self.path

    def load(self, key: str) -> Found | None:
        return None if self._off() else super().load(key)

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        return not self._off() and super().save(key, value, note)

    def read(self, key: str, most: int | None = None) -> tuple[bytes | bytearray, int] | None:
        files = self.files
        try:
            descriptor = files.open(f"{self.path}/{key[:2]}/{key}")
        except FileNotFoundError:
            return None
        try:
            status = files.fstat(descriptor)
            if not is_regular(status):
                raise Defect("foreign", "something other than a file is in its place")
            if status.st_uid != os.geteuid():
                raise Defect("owner", f"its file belongs to another user ({status.st_uid})")
            size = status.st_size
            if most is not None:
                return files.read(descriptor, min(most, size)), size
            data = files.read(descriptor, size) if size <= _SMALL else self._read_large(descriptor, size)
            if not -TOUCH < time.time() - status.st_mtime < TOUCH:
                try:
                    files.touch(descriptor)
                except OSError:
                    pass  # a cache that can only be read is a good cache; its order of use does not matter
            return data, size
        finally:
            files.close(descriptor)

    def _read_large(self, descriptor: int, size: int) -> bytearray:
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size:
            got = self.files.read_into(descriptor, view[at:])
            if not got:
                raise Defect("damaged", "it is cut off")
            at += got
        return data

    def write(self, key: str, parts: Sequence[Part], size: int) -> None:
        if not self._opened:
            self._opened = True
            try:
                self.sweep()
            except OSError:
                pass  # somebody else sweeps too; whether entries can be written is told when one is
        if self.max_bytes is not None and size > self._room:
            self._make_room(size, self.max_bytes)
        self._room -= size
        folder = f"{self.path}/{key[:2]}"
        passing = f"{self.path}/{UNDER_WAY}/{key[:16]}.{os.getpid()}.{secrets.token_hex(8)}"
        for tries_left in reversed(range(_TRIES)):
            try:
                self._write(parts, passing, f"{folder}/{key}", folder)
                return
            except FileNotFoundError:
                if not tries_left:
                    raise
                self.files.mkdir(self.path)
                self.files.mkdir(f"{self.path}/{UNDER_WAY}")
                self.files.mkdir(folder)

    def _write(self, parts: Sequence[Part], passing: str, final: str, folder: str) -> None:
        files = self.files
        descriptor = files.create(passing)
        try:
            try:
                for part in parts:
                    done = files.write(descriptor, part)
                    if done < len(part):
                        view = memoryview(part)
                        while done < len(view):
                            done += files.write(descriptor, view[done:])
                if self.fsync:
                    files.fsync(descriptor)
            finally:
                files.close(descriptor)
            files.replace(passing, final)
        except BaseException:  # Ctrl-C too: nothing stays behind
            try:
                files.unlink(passing)
            except OSError:
                pass  # it is swept later
            raise
        if self.fsync:
            descriptor = files.open_folder(folder)
            try:
                files.fsync(descriptor)
            finally:
                files.close(descriptor)

    def kept(self) -> Iterator[Kept]:
        try:
            folders = self.files.folders(self.path)
        except FileNotFoundError:
            return
        for folder in folders:
            if len(folder) != 2:
                continue
            try:
                for name, status in self.files.scan(f"{self.path}/{folder}"):
                    if len(name) == 64 and name.startswith(folder):
                        yield Kept(name, status.st_size, status.st_mtime)
            except FileNotFoundError:
                continue

    def delete(self, key: str) -> None:
        try:
            self.files.unlink(f"{self.path}/{key[:2]}/{key}")
        except FileNotFoundError:
            pass

    def sweep(self) -> None:
        # Called at the first save. The folder holds nothing else, so looking is cheap.
        folder = f"{self.path}/{UNDER_WAY}"
        oldest = time.time() - STALE
        try:
            for name, status in self.files.scan(folder):
                if status.st_mtime < oldest:
                    self.files.unlink(f"{folder}/{name}")
        except FileNotFoundError:
            pass

    def _make_room(self, size: int, bound: int) -> None:
        """See that `size` bytes fit, and set how many more may follow before the next look.

        A look costs time for every entry. After it, a twentieth of the bound is left in any case, and an eighth of
        what is free when there is more: processes that fill an empty cache together look often enough.
        """
        if size > bound:
            raise Refused(f"it takes {size} bytes, and max_bytes is {bound}")
        with self._clearing:
            if size <= self._room:
                return  # another thread has just looked
            least = bound // 20
            entries = list(self.kept())
            total = sum(entry.size for entry in entries)
            if total + size + least > bound:
                entries.sort(key=lambda entry: entry.used)
                target = max(0, bound - bound * 3 // 20 - size)
                for entry in entries:
                    if total <= target:
                        break
                    self.delete(entry.key)
                    total -= entry.size
            self._room = size + max(least, (bound - total - size) // 8)

    def _off(self) -> bool:
        if self.trouble:
            self.warn("off", f"nothing is read from it or kept in it: {self.trouble}")
        return bool(self.trouble)

    def _settings(self) -> tuple[Any, ...]:
        return self.path, self.max_bytes, self.signing_key, self.fsync

    def __eq__(self, other: object) -> bool:
        return self._settings() == other._settings() if isinstance(other, DiskCache) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._settings())

    def __repr__(self) -> str:
        settings = [repr(self.path)]
        settings += [f"max_bytes={self.max_bytes}"] if self.max_bytes is not None else []
        settings += ["signing_key=***"] if self.signing_key is not None else []
        settings += ["fsync=True"] if self.fsync else []
        return f"DiskCache({', '.join(settings)})"

    def __reduce__(self) -> tuple[Callable[..., DiskCache], tuple[Any, ...]]:
        # The variable's name travels, the key never.
        variable = self.signing_key and self.signing_key.variable
        return _elsewhere, (self.path, self.max_bytes, variable, self.fsync)


def _path_of(given: object) -> str:
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise CacheError(f"DiskCache takes the path of a folder as text, not {given!r}")
    return path


def _elsewhere(path: str, max_bytes: int | None, variable: str | None, fsync: bool) -> DiskCache:
    """A cache that came from another process. What is wrong with it here is told when it is used, not by unpickling."""
    made = DiskCache.__new__(DiskCache)
    made._set(path, max_bytes, fsync)
    made.trouble = _unsafe(path)
    if variable:
        try:
            made.signing_key = signing_key_of(f"env:{variable}", "it came from another process")
        except CacheError as error:
            made.trouble = str(error)
    return made


def _unsafe(path: str) -> str:
    """Why entries in this folder must not be believed, or what else is there; empty when all is well."""
    try:
        status = os.stat(path)
    except OSError:
        return ""  # whether it can be made is told at the first save
    if not stat.S_ISDIR(status.st_mode):
        return "there is a file of that name; give the path of a folder"
    if status.st_uid != os.geteuid():
        return (
            f"the folder belongs to another user ({status.st_uid}), who could put a program into your results; "
            "give a folder of your own"
        )
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return (
            "every user may write to the folder, and could put a program into your results; "
            f"`chmod o-w '{path}'` ends that"
        )
    return ""
