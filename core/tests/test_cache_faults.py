"""A cache is right or silent: after a crash at any instant, a failing call of the system, any damage to a file."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypernodes import CacheWarning, DiskCache
from hypernodes._cache import Found
from hypernodes._entry import VERSION, raw_key, sealed
from hypernodes._files import Files
from hypernodes._signing import SigningKey

NOTE = {"node": "encode", "code": {"body": "ab" * 32}, "inputs": {"x": "cd" * 32}, "outputs": ["encoded"]}
KEY, NEIGHBOUR = sha256(b"one").hexdigest(), sha256(b"one").hexdigest()[:2] + sha256(b"two").hexdigest()[2:]
SECRET = b"a key of more than sixteen bytes"


def equal(found: Found | None, value: Any) -> bool:
    return found is not None and pickle.dumps(found.value, 5) == pickle.dumps(value, 5)


# ------------------------------------------------------------------------------------------------- crashes

Call = tuple[Any, ...]


class Recording(Files):
    """The file system, and a journal of what was changed: names for descriptors, contents for writes."""

    def __init__(self) -> None:
        self.journal: list[Call] = []
        self.names: dict[int, str] = {}

    def create(self, path: str) -> int:
        descriptor = super().create(path)
        self.names[descriptor] = path
        self.journal.append(("create", path))
        return descriptor

    def write(self, descriptor: int, part: bytes | memoryview) -> int:
        written = super().write(descriptor, part)
        self.journal.append(("write", self.names[descriptor], bytes(part[:written])))
        return written

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        if descriptor in self.names:
            self.journal.append(("sync", self.names[descriptor]))

    def shut(self, descriptor: int) -> None:
        os.close(descriptor)
        self.names.pop(descriptor, None)

    def rename(self, path: str, to: str) -> None:
        os.replace(path, to)
        self.journal.append(("rename", path, to))

    def remove(self, path: str) -> None:
        os.unlink(path)
        self.journal.append(("remove", path))

    fsync = sync  # type: ignore[assignment]
    close = shut  # type: ignore[assignment]
    replace = rename  # type: ignore[assignment]
    unlink = remove  # type: ignore[assignment]


class Disk:
    """Files as a crash may leave them: name to content, and which contents had reached the disk."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.unsynced: set[str] = set()

    def apply(self, call: Call) -> None:
        what, path, *more = call
        if what == "create":
            self.files[path] = b""
            self.unsynced.add(path)
        elif what == "write":
            self.files[path] += more[0]
        elif what == "sync":
            self.unsynced.discard(path)
        elif what == "rename":
            self.files[more[0]] = self.files.pop(path)
            if path in self.unsynced:
                self.unsynced.remove(path)
                self.unsynced.add(more[0])
        else:
            self.files.pop(path, None)

    def losses(self) -> Iterator[dict[str, bytes]]:
        """The files as they are, and with each content that had not reached the disk lost, cut off or zeroed."""
        yield self.files
        for path in self.unsynced & self.files.keys():
            content = self.files[path]
            for left in (b"", content[:4096], content[: len(content) // 2], bytes(len(content))):
                yield {**self.files, path: left}
            yield {name: kept for name, kept in self.files.items() if name != path}


def torn(content: bytes) -> list[bytes]:
    head = 112 + len(b'{"node"')  # within the head, and at its fixed part's end
    cuts = {0, 1, 111, 112, head, len(content) // 2, len(content) - 1}
    return [content[:cut] for cut in sorted(cuts) if 0 <= cut < len(content)]


def crashes(before: dict[str, bytes], journal: list[Call]) -> Iterator[dict[str, bytes]]:
    """Every state that a crash may leave while these calls are made."""
    for made in range(len(journal) + 1):
        disk = Disk(before)
        for call in journal[:made]:
            disk.apply(call)
        yield from disk.losses()
        if made < len(journal) and journal[made][0] == "write":
            for part in torn(journal[made][2]):
                cut = Disk(disk.files)
                cut.unsynced = set(disk.unsynced)
                cut.apply(("write", journal[made][1], part))
                yield from cut.losses()
    for left_out in range(len(journal)):  # a later rename or removal on the disk before an earlier call
        disk = Disk(before)
        for number, call in enumerate(journal):
            if number != left_out and (call[0] in ("create", "remove") or call[1] in disk.files):
                disk.apply(call)
        yield from disk.losses()


SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "small": ("text", {}),
    "none": (None, {}),
    "buffers": ({"a": np.arange(20_000), "b": np.ones(9_001)}, {}),
    "long stream": (bytes(range(256)) * 1000, {}),
    "synced": ([1, 2, 3], {"fsync": True}),
    "signed": ((1, "a"), {"signing_key": SECRET}),
    "bounded": ("text", {"max_bytes": 2_000}),
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and str(path) not in files:
            path.unlink()
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("over", [False, True], ids=["new", "over an older one"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_crash_at_any_instant_leaves_an_old_a_new_or_no_entry(tmp_path: Path, shape: str, over: bool) -> None:
    value, settings = SHAPES[shape]
    folder = tmp_path / "cache"
    cache = DiskCache(folder, **settings)
    assert cache.save(NEIGHBOUR, "neighbour", NOTE)
    if over:
        assert cache.save(KEY, "older", NOTE)
    before = files_in(folder)
    recording = Recording()
    cache.files = recording
    if shape == "bounded":
        cache._room = 0
    assert cache.save(KEY, value, NOTE)
    states = 0
    for files in crashes(before, recording.journal):
        states += 1
        lay_out(folder, files)
        after = DiskCache(folder, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            found = after.load(KEY)
            assert found is None or equal(found, value) or (over and equal(found, "older"))
            assert equal(after.load(NEIGHBOUR), "neighbour")
            list(after.notes("encode"))
    lay_out(folder, before)
    assert states >= 20
    assert DiskCache(folder, **settings).save(KEY, value, NOTE)
    assert equal(DiskCache(folder, **settings).load(KEY), value)


def test_the_recorder_notices_a_cache_that_writes_in_place(tmp_path: Path) -> None:
    """The injector can catch a fault: without the checks, torn contents would be taken for entries."""
    journal: list[Call] = [("create", "e"), ("write", "e", b"0123456789"), ("rename", "e", "f")]
    states = list(crashes({"f": b"old"}, journal))
    assert {"f": b""} in states
    assert {"f": bytes(10)} in states
    assert {"f": b"old", "e": b"0"} in states
    assert {"f": b"old", "e": b"012345678"} in states
    assert {"f": b"old"} in states
    assert {"f": b"0123456789"} in states


# ------------------------------------------------------------------------------------------------- failing calls

CALLS = (
    *("open", "create", "open_folder", "mkdir", "read", "read_into", "write", "touch", "scan", "folders"),
    *("close", "fstat", "fsync", "replace", "stat", "unlink"),
)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EROFS, errno.EINTR)


class Failing(Files):
    """The file system, of which the `at`-th call fails."""

    def __init__(self, at: int, code: int) -> None:
        self.left = at
        self.code = code
        for name in CALLS:
            setattr(self, name, self._failing(name, getattr(Files, name)))

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        takes_self = not isinstance(Files.__dict__[name], staticmethod)

        def guarded(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if name == "close":
                    os.close(arguments[0])  # the descriptor is gone, whatever close says
                raise OSError(self.code, os.strerror(self.code))
            return call(self, *arguments) if takes_self else call(*arguments)

        return guarded

    @property
    def failed(self) -> bool:
        return self.left <= 0


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("shape", ["small", "buffers", "synced", "bounded"])
def test_any_call_may_fail_at_the_cost_of_one_warning(tmp_path: Path, shape: str, code: int) -> None:
    value, settings = SHAPES[shape]
    base = tmp_path / "base"
    prepared = DiskCache(base, **settings)
    prepared.save(NEIGHBOUR, "neighbour", NOTE)
    (base / "tmp" / "left behind").write_bytes(b"half")
    os.utime(base / "tmp" / "left behind", (0, 0))
    tried = 0
    for start in ("empty", "filled", "over"):
        for at in range(1, 60):
            folder = tmp_path / "cache"
            shutil.rmtree(folder, ignore_errors=True)
            if start != "empty":
                shutil.copytree(base, folder)
            if start == "over":
                assert DiskCache(folder, **settings).save(KEY, "older", NOTE)
                os.utime(folder / KEY[:2] / KEY, (time.time() - 7_000,) * 2)
            descriptors = open_descriptors()
            cache = DiskCache(folder, **settings)
            cache.files = failing = Failing(at, code)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                earlier = cache.load(KEY)
                kept = cache.save(KEY, value, NOTE)
                found = cache.load(KEY)
                neighbour = cache.load(NEIGHBOUR)
                list(cache.notes("encode"))
            assert len(caught) <= 1, [str(one.message) for one in caught]
            assert earlier is None or (start == "over" and equal(earlier, "older"))
            assert found is None or equal(found, value) or (start == "over" and equal(found, "older"))
            assert neighbour is None or equal(neighbour, "neighbour")
            assert open_descriptors() == descriptors
            sound = DiskCache(folder, **settings)
            if kept:
                assert equal(sound.load(KEY), value), "what was said to be kept is there"
            if start != "empty":
                assert equal(sound.load(NEIGHBOUR), "neighbour")
            assert [path for path in (folder / "tmp").glob("*") if path.name != "left behind"] == [] or at > 1
            tried += 1
            if not failing.failed:
                break
        else:
            pytest.fail("the save makes more calls than this test looks at")
    assert tried > 20


def test_a_hit_is_a_hit_when_its_use_cannot_be_noted(tmp_path: Path) -> None:
    class ReadOnly(Files):
        def touch(self, descriptor: int) -> None:
            raise OSError(errno.EROFS, "read-only file system")

    cache = DiskCache(tmp_path / "cache")
    cache.save(KEY, 1, NOTE)
    os.utime(tmp_path / "cache" / KEY[:2] / KEY, (0, 0))
    cache.files = ReadOnly()
    assert cache.load(KEY) == Found(1)


def test_short_writes_and_reads_are_continued(tmp_path: Path) -> None:
    class Short(Files):
        def write(self, descriptor: int, part: bytes | memoryview) -> int:
            return os.write(descriptor, memoryview(part)[:1_000])

        def read_into(self, descriptor: int, view: memoryview) -> int:
            return os.readv(descriptor, [view[:1_001]])

    cache = DiskCache(tmp_path / "cache")
    cache.files = Short()
    value = {"a": np.arange(30_000), "b": bytes(5_000)}
    assert cache.save(KEY, value, NOTE)
    assert equal(cache.load(KEY), value)


def test_ctrl_c_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    class Interrupting(Files):
        def write(self, descriptor: int, part: bytes | memoryview) -> int:
            os.write(descriptor, part[:10])
            raise KeyboardInterrupt

    cache = DiskCache(tmp_path / "cache")
    cache.files = Interrupting()
    descriptors = open_descriptors()
    with pytest.raises(KeyboardInterrupt):
        cache.save(KEY, 1, NOTE)
    assert files_in(tmp_path) == {}
    assert open_descriptors() == descriptors


# ------------------------------------------------------------------------------------------------- damage

RAN: list[str] = []


def run_me(what: str) -> str:
    RAN.append(what)
    return what


class Planted:
    def __reduce__(self) -> Any:
        return run_me, ("planted",)


def kept_values() -> dict[str, Any]:
    values: list[Any] = [None, 3.5, "text", [1, 2], {"a": (1, "b")}, np.arange(3), np.arange(20_000), b"x" * 200_000]
    values.append({"a": np.ones(9_000), "b": np.zeros((100, 100))})
    return {sha256(str(number).encode()).hexdigest(): value for number, value in enumerate(values)}


def flip(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    for _ in range(chance.choice((1, 1, 3))):
        at = min(chance.randrange(len(data)), chance.randrange(2 * len(data)), chance.randrange(2_000))
        data[at % len(data)] ^= 1 << chance.randrange(8)


def truncate(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    del data[chance.choice((0, 1, 111, 112, len(data) - 1, chance.randrange(len(data)))) :]


def extend(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    data += chance.choice((b"\0", chance.randbytes(64), bytes(data)))


def zero(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    size = chance.choice((1, 8, 64, 4096))
    at = chance.randrange(len(data))
    data[at : at + size] = bytes(len(data[at : at + size]))


def replace(data: bytearray, chance: random.Random, others: list[bytes]) -> None:
    data[:] = chance.choice(others)


def splice(data: bytearray, chance: random.Random, others: list[bytes]) -> None:
    other, at = chance.choice(others), chance.randrange(min(len(data), 600))
    data[at:] = other[at:]


def version(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    data[6] = chance.choice([other for other in range(256) if other != VERSION])


def codec(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    data[chance.choice((7, 8))] = chance.randrange(2, 256)


def plant(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    data[:] = pickle.dumps(Planted())


def plant_behind_the_head(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    planted = pickle.dumps(Planted())
    data[len(data) - len(planted) :] = planted


DAMAGES = (flip, flip, truncate, extend, zero, replace, splice, version, codec, plant, plant_behind_the_head)


@pytest.mark.parametrize("secret", [None, SECRET], ids=["unsigned", "signed"])
def test_2_000_damaged_entries_are_misses_or_right_and_run_nothing(tmp_path: Path, secret: bytes | None) -> None:
    values = kept_values()
    cache = DiskCache(tmp_path / "cache", signing_key=secret)
    for key, value in values.items():
        assert cache.save(key, value, NOTE)
    files = {key: Path(cache.path) / key[:2] / key for key in values}
    sound = {key: file.read_bytes() for key, file in files.items()}
    chance = random.Random(20)
    keys = list(values)
    misses = 0
    RAN.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for _ in range(1_000):
            key = chance.choice(keys)
            data = bytearray(sound[key])
            chance.choice(DAMAGES)(data, chance, [sound[other] for other in keys if other != key])
            files[key].write_bytes(data)
            fresh = DiskCache(cache.path, signing_key=secret)
            found = fresh.load(key)
            if found is None:
                misses += 1
            else:
                assert bytes(data) == sound[key], "a changed entry was believed"
            list(fresh.notes("encode")) if chance.random() < 0.05 else None
            files[key].write_bytes(sound[key])
    assert misses > 950
    assert RAN == []
    assert all(equal(cache.load(key), value) for key, value in values.items())


@pytest.mark.parametrize(
    "forge", [None, SigningKey(b"somebody else's key")], ids=["not signed", "signed with another key"]
)
def test_a_planted_entry_is_not_unpickled_by_a_cache_with_a_signing_key(
    tmp_path: Path, forge: SigningKey | None
) -> None:
    cache = DiskCache(tmp_path / "cache", signing_key=SECRET)
    cache.save(KEY, 1, NOTE)
    parts = sealed(raw_key(KEY), pickle.dumps(Planted()), [], NOTE, forge, time.time_ns())
    (Path(cache.path) / KEY[:2] / KEY).write_bytes(b"".join(parts))
    RAN.clear()
    with pytest.warns(CacheWarning):
        assert cache.load(KEY) is None
    assert list(cache.notes("encode")) == []
    assert RAN == []


def test_entries_that_changed_places_are_misses(tmp_path: Path) -> None:
    for secret in (None, SECRET):
        cache = DiskCache(tmp_path / str(secret), signing_key=secret)
        cache.save(KEY, "one", NOTE)
        cache.save(NEIGHBOUR, "two", NOTE)
        one, two = (Path(cache.path) / key[:2] / key for key in (KEY, NEIGHBOUR))
        one.rename(tmp_path / "aside")
        two.rename(one)
        (tmp_path / "aside").rename(two)
        with pytest.warns(CacheWarning, match="it belongs to another key"):
            assert cache.load(KEY) is None
        assert cache.load(NEIGHBOUR) is None


def test_a_planted_pickle_would_run_where_it_was_believed() -> None:
    """The trap works: what no test above set off can be set off."""
    RAN.clear()
    pickle.loads(pickle.dumps(Planted()))
    assert RAN == ["planted"]
