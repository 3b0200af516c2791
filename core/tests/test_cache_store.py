"""What is saved in a cache is loaded again, or missed; nothing that goes wrong with it reaches a run."""

from __future__ import annotations

import enum
import json
import math
import os
import pickle
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypernodes import Cache, CacheError, CacheWarning, DiskCache, MemoryCache
from hypernodes._cache import Found, Note
from hypernodes._cache_address import open_cache
from hypernodes._entry import Defect
from hypernodes._signing import VARIABLE

NOTE = {"node": "encode", "code": {"body": "ab" * 32}, "inputs": {"x": "cd" * 32}, "outputs": ["encoded"]}
SECRET = "correct horse battery staple"


def key_of(name: object) -> str:
    return sha256(repr(name).encode()).hexdigest()


KEY = key_of("one")


@dataclass
class Point:
    x: int
    tags: list[str]


class Colour(enum.Enum):
    RED = 1


VALUES: dict[str, Any] = {
    "none": None,
    "false": False,
    "zero": 0,
    "text": "grün\udc80",
    "empty": [],
    "bytes": bytes(300_000),
    "nested": {"a": [1, (2, {3: {4}})], "b": OrderedDict(x=1)},
    "dataclass": Point(1, ["a"]),
    "enum": Colour.RED,
    "error": ValueError("kept, not raised"),
    "class": Point,
    "function": key_of,
    "array": np.arange(10),
    "large array": np.arange(100_000, dtype=np.float32).reshape(100, 1000),
    "two large arrays": [np.ones(20_000), {"b": np.zeros((9_001, 3), dtype=np.int16)}],
    "fortran": np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
    "strided": np.arange(400_000)[::2],
    "objects": np.array([None, "a", 3], dtype=object),
    "no elements": np.empty((0, 4)),
}


@pytest.fixture(params=["disk", "disk signed", "disk synced", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    made: dict[str, Any] = {
        "disk": lambda: DiskCache(tmp_path / "cache"),
        "disk signed": lambda: DiskCache(tmp_path / "cache", signing_key=SECRET),
        "disk synced": lambda: DiskCache(tmp_path / "cache", fsync=True),
        "memory": lambda: MemoryCache(),
    }
    found: Cache = made[request.param]()
    return found


@pytest.fixture
def disk(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache")


def file_of(cache: DiskCache, key: str = KEY) -> Path:
    return Path(cache.path) / key[:2] / key


def same(one: Any, other: Any) -> bool:
    """Equal in type and content, arrays and exceptions too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, BaseException):
        return one.args == other.args
    return bool(one == other)


# ------------------------------------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("name", VALUES)
def test_every_value_comes_back_as_it_was(cache: Cache, name: str) -> None:
    assert cache.load(KEY) is None
    assert cache.save(KEY, VALUES[name], NOTE) is True
    found = cache.load(KEY)
    assert isinstance(found, Found)
    assert same(found.value, VALUES[name])


def test_nan_and_the_sign_of_zero_come_back(cache: Cache) -> None:
    cache.save(KEY, [math.nan, -0.0], NOTE)
    found = cache.load(KEY)
    assert found is not None
    assert math.isnan(found.value[0])
    assert math.copysign(1, found.value[1]) == -1


def test_a_later_value_replaces_an_earlier_one(cache: Cache) -> None:
    cache.save(KEY, np.ones(50_000), NOTE)
    cache.save(KEY, "new", NOTE)
    assert cache.load(KEY) == Found("new")


@pytest.mark.parametrize("size", [10, 100_000])
def test_arrays_arrive_writable_and_apart_from_each_other(cache: Cache, size: int) -> None:
    value = {"a": np.zeros(size)}
    cache.save(KEY, value, NOTE)
    value["a"][0] = 1
    first, second = cache.load(KEY), cache.load(KEY)
    assert first is not None
    assert second is not None
    first.value["a"][:] = 7
    first.value["b"] = "added"
    assert second.value.keys() == {"a"}
    assert not second.value["a"].any()
    again = cache.load(KEY)
    assert again is not None
    assert same(again.value, {"a": np.zeros(size)})


def test_notes_tell_what_is_known_of_a_node_newest_first(cache: Cache) -> None:
    for number in range(3):
        cache.save(key_of(number), np.ones(number * 20_000), {**NOTE, "inputs": {"x": str(number)}})
    cache.save(key_of("other"), 1, {**NOTE, "node": "other"})
    found = list(cache.notes("encode"))
    assert [note.inputs["x"] for note in found] == ["2", "1", "0"]
    assert [note.key for note in found] == [key_of(number) for number in (2, 1, 0)]
    assert found[0].code == NOTE["code"]
    assert found[0].outputs == ("encoded",)
    assert found[0].node == "encode"
    assert time.time() - 60 < found[0].written <= time.time()
    assert found[0].size > found[2].size > 0
    assert list(cache.notes("nobody")) == []


def test_a_long_note_is_read_whole(disk: DiskCache) -> None:
    note = {**NOTE, "inputs": {f"parameter{number}": "ab" * 32 for number in range(2_000)}}
    disk.save(KEY, np.ones(50_000), note)
    assert [dict(found.facts) for found in disk.notes("encode")] == [note]
    assert disk.load(KEY) is not None


def test_a_note_of_another_shape_is_no_trouble() -> None:
    note = Note(KEY, 0.0, 1, {"node": 3, "code": [], "inputs": None, "outputs": "encoded"})
    assert (note.node, note.code, note.inputs, note.outputs) == ("", {}, {}, ())


@pytest.mark.parametrize("key", ["", "ab", "../../../etc/passwd" + "a" * 45, "G" * 64, "A" * 64, " " * 64, "é" * 64])
def test_what_is_no_key_is_a_miss_and_no_path(disk: DiskCache, key: str) -> None:
    with pytest.warns(CacheWarning, match="64 lower-case hexadecimal digits"):
        assert disk.load(key) is None
    with pytest.warns(CacheWarning):
        assert disk.save(key, 1, NOTE) is False
    assert not Path(disk.path).exists()


def test_what_cannot_be_pickled_is_not_kept_and_is_named(cache: Cache) -> None:
    with pytest.warns(CacheWarning, match=r"the result of node 'encode' is not kept, since it cannot be pickled"):
        assert cache.save(KEY, threading.Lock(), NOTE) is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.save(KEY, [threading.Lock()], NOTE) is False, "said once"
    assert cache.load(KEY) is None


class Unwilling:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class Spoiled:
    """Can be pickled, and not made again."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_whatever_pickling_raises_stays_within_the_cache(cache: Cache) -> None:
    with pytest.warns(CacheWarning, match="not me"):
        assert cache.save(KEY, Unwilling(), NOTE) is False
    assert cache.save(KEY, Spoiled(), NOTE) is True
    with pytest.warns(CacheWarning, match="cannot be made again"):
        assert cache.load(KEY) is None


class Interrupted:
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_ctrl_c_is_not_swallowed(cache: Cache) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.save(KEY, Interrupted(), NOTE)


def test_warnings_that_are_errors_are_logged_and_stop_nothing(
    disk: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    disk.save(KEY, 1, NOTE)
    file_of(disk).write_bytes(b"torn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert disk.load(KEY) is None
        assert disk.load(KEY) is None
    (record,) = caplog.records
    assert record.name == "hypernodes"
    assert "it is cut off; its value is computed again" in record.getMessage()


def test_trouble_is_told_once_for_each_kind(disk: DiskCache) -> None:
    for number in range(4):
        disk.save(key_of(number), number, NOTE)
        file_of(disk, key_of(number)).write_bytes(b"" if number < 2 else b"x" * 500)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [disk.load(key_of(number)) for number in range(4)] == [None] * 4
    after = "; its value is computed again. `hypernodes cache verify` finds such entries"
    assert [str(one.message).split(": ")[2].removesuffix(after) for one in caught] == [
        "it is empty",
        "it is not an entry of a hypernodes cache",
    ]


def test_a_damaged_entry_is_healed_by_saving_it_again(disk: DiskCache) -> None:
    disk.save(KEY, "value", NOTE)
    file_of(disk).write_bytes(file_of(disk).read_bytes()[:-1])
    with pytest.warns(CacheWarning, match="instead of"):
        assert disk.load(KEY) is None
    assert disk.save(KEY, "value", NOTE)
    assert disk.load(KEY) == Found("value")


def test_a_third_partys_cache_needs_load_and_save_alone() -> None:
    class Dictionary(Cache):
        def load(self, key: str) -> Found | None:
            return None

        def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
            self.warn("full", "there is no room")
            return False

    cache = Dictionary()
    with pytest.warns(CacheWarning, match="there is no room"):
        cache.save(KEY, 1, NOTE)
    cache.save(KEY, 1, NOTE)
    assert list(cache.notes("encode")) == []
    assert (cache.shared, cache.address) == (False, "")
    cache.close()


# ------------------------------------------------------------------------------------------------- classes of __main__

SCRIPT = """
import sys
from dataclasses import dataclass
from hypernodes import DiskCache
KEY = "ab" * 32

@dataclass
class Point:
    x: int
    {more}

class Outer:
    class Inner:
        def __init__(self, x): self.x = x

cache = DiskCache("cache")
if sys.argv[1] == "save":
    assert cache.save(KEY, [Point(1), Outer.Inner(2), lambda: 5], {{"node": "n"}})
else:
    point, inner, five = cache.load(KEY).value
    print(type(point) is Point, type(inner) is Outer.Inner, point.x, inner.x, five())
"""


def script(folder: Path, what: str, more: str = "") -> str:
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT.format(more=more)))
    command = [sys.executable, "-W", "error", "script.py", what]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_that_runs_again_gets_instances_of_its_own_classes(tmp_path: Path) -> None:
    script(tmp_path, "save")
    assert script(tmp_path, "load") == "True True 1 2 5\n"


def test_a_script_whose_class_has_changed_gets_the_class_that_was_kept(tmp_path: Path) -> None:
    script(tmp_path, "save")
    assert script(tmp_path, "load", "y: int = 3") == "False True 1 2 5\n"


def test_a_program_without_those_classes_gets_them_too(tmp_path: Path) -> None:
    script(tmp_path, "save")
    found = DiskCache(tmp_path / "cache").load("ab" * 32)
    assert found is not None
    assert (found.value[0].x, found.value[1].x, found.value[2]()) == (1, 2, 5)


# ------------------------------------------------------------------------------------------------- memory


def test_memory_is_bounded_by_entries_and_drops_what_was_not_used_for_longest() -> None:
    cache = MemoryCache(max_entries=3)
    for number in range(3):
        cache.save(key_of(number), number, NOTE)
    cache.load(key_of(0))
    cache.save(key_of(3), 3, NOTE)
    assert [cache.load(key_of(number)) for number in range(4)] == [Found(0), None, Found(2), Found(3)]
    assert len(cache) == 3


def test_memory_is_bounded_by_bytes() -> None:
    cache = MemoryCache(max_bytes=1_000_000)
    for number in range(10):
        assert cache.save(key_of(number), np.full(40_000, number), NOTE)  # 320 kB each
    assert [number for number in range(10) if cache.load(key_of(number))] == [7, 8, 9]
    with pytest.warns(CacheWarning, match="max_bytes is 1000000"):
        assert cache.save(KEY, bytes(1_000_001), NOTE) is False
    cache.save(key_of(9), "small", NOTE)
    assert cache.save(key_of(10), np.ones(40_000), NOTE)
    assert len(cache) == 4
    cache.clear()
    assert len(cache) == 0
    assert cache.save(key_of(1), np.ones(120_000), NOTE)


def test_an_empty_memory_is_still_a_cache() -> None:
    assert MemoryCache()


def test_a_pickled_memory_arrives_empty_with_its_bounds() -> None:
    cache = MemoryCache(max_entries=5, max_bytes=7_000)
    cache.save(KEY, 1, NOTE)
    arrived = pickle.loads(pickle.dumps(cache))
    assert repr(arrived) == repr(cache) == "MemoryCache(max_entries=5, max_bytes=7000)"
    assert arrived.load(KEY) is None


def test_threads_share_a_memory() -> None:
    cache = MemoryCache(max_entries=20, max_bytes=100_000)
    wrong: list[object] = []

    def work(seed: int) -> None:
        for step in range(2_000):
            number = (seed * 7 + step * 13) % 40
            if step % 3:
                found = cache.load(key_of(number))
                if found is not None and found.value != [number] * number:
                    wrong.append(found)
            else:
                cache.save(key_of(number), [number] * number, NOTE)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) <= 20


# ------------------------------------------------------------------------------------------------- folders


def test_files_and_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = DiskCache(tmp_path / "deep" / "cache")
        assert cache.save(KEY, 1, NOTE)
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in [cache_root(cache), *cache_root(cache).rglob("*")]
    }
    assert modes == {"cache": 0o700, "tmp": 0o700, KEY[:2]: 0o700, KEY: 0o600}


def cache_root(cache: DiskCache) -> Path:
    return Path(cache.path)


def test_nothing_is_made_before_something_is_saved(disk: DiskCache) -> None:
    assert disk.load(KEY) is None
    assert list(disk.notes("encode")) == []
    assert not Path(disk.path).exists()


def test_a_path_is_made_absolute_when_the_cache_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    cache = DiskCache(".cache")
    monkeypatch.chdir("/")
    assert cache.path == cache.address == str(tmp_path / ".cache")
    assert DiskCache("~/cache").path == "/home/ada/cache"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CacheError, match=r"notes.txt'\) cannot be used: there is a file of that name"):
        DiskCache(tmp_path / "notes.txt")


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(CacheError, match=r"every user may write to the folder.*chmod o-w"):
        DiskCache(tmp_path)
    tmp_path.chmod(0o1777)
    DiskCache(tmp_path)
    tmp_path.chmod(0o700)


def folder_of_another_user(tmp_path: Path) -> Path:
    if os.geteuid():
        return Path("/usr")
    os.chown(tmp_path, 12345, -1)
    return tmp_path


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="the folder belongs to another user"):
        DiskCache(folder_of_another_user(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_entry_of_another_user_is_a_miss(disk: DiskCache) -> None:
    disk.save(KEY, 1, NOTE)
    os.chown(file_of(disk), 12345, -1)
    with pytest.warns(CacheWarning, match="belongs to another user"):
        assert disk.load(KEY) is None


@pytest.mark.parametrize("given", [None, 3, b"bytes", "", "a\0b", MemoryCache()])
def test_what_is_no_path_is_refused(given: Any) -> None:
    with pytest.raises(CacheError, match="DiskCache takes the path of a folder as text"):
        DiskCache(given)


@pytest.mark.parametrize("bound", [0, -1, 1.5, "1GB", True])
def test_what_is_no_bound_is_refused(bound: Any) -> None:
    with pytest.raises(CacheError, match=r"max_bytes is .*give a whole number from 1 up"):
        DiskCache("cache", max_bytes=bound)
    with pytest.raises(CacheError, match=r"max_entries is .*give a whole number from 1 up"):
        MemoryCache(bound)


@pytest.mark.parametrize("path", ["/proc/hypernodes-cache", "/dev/null/cache"])
def test_a_folder_that_cannot_be_made_is_one_warning(path: str) -> None:
    cache = DiskCache(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(5):
            assert cache.load(key_of(number)) is None
            assert cache.save(key_of(number), 1, NOTE) is False
    told = [str(one.message) for one in caught if "is not kept, since it cannot be written" in str(one.message)]
    assert len(told) == 1
    assert path in told[0]
    assert len(caught) <= 2  # where the path leads through a file, reading it fails too


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_still_gives_hits(disk: DiskCache) -> None:
    disk.save(KEY, 1, NOTE)
    folders = [Path(disk.path), *(path for path in Path(disk.path).iterdir() if path.is_dir())]
    os.utime(file_of(disk), (0, 0))
    for folder in folders:
        folder.chmod(0o500)
    assert disk.load(KEY) == Found(1)
    with pytest.warns(CacheWarning, match="Permission denied"):
        assert disk.save(key_of("two"), 2, NOTE) is False
    for folder in folders:
        folder.chmod(0o700)


def test_a_folder_that_is_removed_meanwhile_is_made_again(disk: DiskCache) -> None:
    import shutil

    for number in range(5):
        assert disk.save(KEY, number, NOTE)
        shutil.rmtree(disk.path if number % 2 else Path(disk.path) / "tmp")
        assert disk.save(KEY, number, NOTE)
        assert disk.load(KEY) == Found(number)
        shutil.rmtree(disk.path)
        assert disk.load(KEY) is None


def test_a_link_in_place_of_an_entry_is_not_followed(disk: DiskCache, tmp_path: Path) -> None:
    disk.save(KEY, 1, NOTE)
    file_of(disk).rename(tmp_path / "elsewhere")
    file_of(disk).symlink_to(tmp_path / "elsewhere")
    with pytest.warns(CacheWarning):
        assert disk.load(KEY) is None


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_other_things_in_place_of_an_entry_are_misses(disk: DiskCache, make: Any) -> None:
    disk.save(KEY, 1, NOTE)
    file_of(disk).unlink()
    make(file_of(disk))
    with pytest.warns(CacheWarning, match="something other than a file is in its place"):
        assert disk.load(KEY) is None


def test_a_folder_full_of_other_things_opens(disk: DiskCache) -> None:
    disk.save(KEY, 1, NOTE)
    root = Path(disk.path)
    (root / "ab").mkdir(exist_ok=True)
    (root / "ab" / "notes.txt").write_text("mine")
    (root / "ab" / ("ab" * 32)).write_bytes(b"\x80")
    (root / "cd").write_text("a file where a folder might be")
    (root / "long name").mkdir()
    assert {entry.key for entry in disk.kept()} == {KEY, "ab" * 32}
    assert [note.key for note in disk.notes("encode")] == [KEY]
    with pytest.warns(CacheWarning):
        assert disk.save("cd" * 32, 1, NOTE) is False
    assert disk.load(KEY) == Found(1)


def test_files_of_writers_that_died_are_swept_after_an_hour(disk: DiskCache) -> None:
    disk.save(KEY, 1, NOTE)
    under_way = Path(disk.path) / "tmp"
    assert list(under_way.iterdir()) == []
    for name, age in (("old", 3_700), ("young", 60)):
        (under_way / name).write_bytes(b"half")
        os.utime(under_way / name, (time.time() - age,) * 2)
    assert disk.save(KEY, 2, NOTE)
    assert len(list(under_way.iterdir())) == 2, "looked at once, when the cache is first written"
    assert DiskCache(disk.path).save(KEY, 3, NOTE)
    assert [path.name for path in under_way.iterdir()] == ["young"]


# ------------------------------------------------------------------------------------------------- settings


def test_a_cache_equals_one_with_the_same_settings(tmp_path: Path) -> None:
    make = [
        lambda: DiskCache(tmp_path),
        lambda: DiskCache(tmp_path / "other"),
        lambda: DiskCache(tmp_path, max_bytes=5),
        lambda: DiskCache(tmp_path, fsync=True),
        lambda: DiskCache(tmp_path, signing_key=SECRET),
        lambda: DiskCache(tmp_path, signing_key=SECRET + "!"),
    ]
    for one, first in enumerate(make):
        for other, second in enumerate(make):
            assert (first() == second()) == (one == other)
            assert (hash(first()) == hash(second())) == (one == other)
    assert DiskCache(tmp_path) != "text"


def test_a_pickled_cache_arrives_with_its_settings(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", max_bytes=10**6, fsync=True)
    cache.save(KEY, 1, NOTE)
    arrived = pickle.loads(pickle.dumps(cache))
    assert arrived == cache
    assert repr(arrived) == f"DiskCache('{tmp_path / 'cache'}', max_bytes=1000000, fsync=True)"
    assert arrived.load(KEY) == Found(1)


def test_a_signing_key_is_in_no_text_no_pickle_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    for given in (SECRET, SECRET.encode(), "env:MY_KEY"):
        cache = DiskCache(tmp_path / "cache", signing_key=given)
        cache.save(KEY, 1, NOTE)
        shown = [repr(cache), str(vars(cache)), repr(cache.signing_key)]
        assert all("***" in text and SECRET not in text for text in shown)
        assert SECRET.encode() not in pickle.dumps(cache)
        with pytest.warns(CacheWarning) as caught:
            cache.save(KEY, threading.Lock(), NOTE)
        assert SECRET not in str(caught[0].message)
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_pickled_signed_cache_takes_its_key_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    named = DiskCache(tmp_path, signing_key="env:MY_KEY")
    given = DiskCache(tmp_path, signing_key=SECRET)
    assert pickle.loads(pickle.dumps(named)) == named
    monkeypatch.setenv(VARIABLE, SECRET)
    assert pickle.loads(pickle.dumps(given)) == given
    monkeypatch.delenv(VARIABLE)
    arrived = pickle.loads(pickle.dumps(given))
    given.save(KEY, 1, NOTE)
    with pytest.warns(CacheWarning, match=f"'{VARIABLE}', which is not set"):
        assert arrived.load(KEY) is None
    assert arrived.save(KEY, 2, NOTE) is False
    assert given.load(KEY) == Found(1)


def test_a_cache_that_arrives_where_its_folder_is_unsafe_is_off(tmp_path: Path) -> None:
    pickled = pickle.dumps(DiskCache(tmp_path / "cache"))
    (tmp_path / "cache").write_text("a file")
    arrived = pickle.loads(pickled)
    with pytest.warns(CacheWarning, match="nothing is read from it or kept in it: there is a file of that name"):
        assert arrived.save(KEY, 1, NOTE) is False
    assert arrived.load(KEY) is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("short", "has 5 bytes, and a signing key needs 16"),
        (b"fifteen bytes..", "has 15 bytes"),
        ("env:NO_SUCH_KEY", "environment variable 'NO_SUCH_KEY', which is not set"),
        (17, "signing_key is an int"),
        ("", "has 0 bytes"),
    ],
)
def test_a_signing_key_that_cannot_be_used_is_refused_without_showing_it(tmp_path: Path, key: Any, said: str) -> None:
    with pytest.raises(CacheError, match=said) as caught:
        DiskCache(tmp_path, signing_key=key)
    assert not key or str(key) not in str(caught.value).replace(said, "").replace("'NO_SUCH_KEY'", "") or key == 17


def test_signed_and_unsigned_caches_do_not_read_each_others_entries(tmp_path: Path) -> None:
    plain = DiskCache(tmp_path)
    signed = DiskCache(tmp_path, signing_key=SECRET)
    other = DiskCache(tmp_path, signing_key=SECRET + "!")
    plain.save(KEY, 1, NOTE)
    with pytest.warns(CacheWarning, match="it is not signed, and this cache has a signing key"):
        assert signed.load(KEY) is None
    signed.save(KEY, 2, NOTE)
    with pytest.warns(CacheWarning, match="it is signed, and this cache has no signing key"):
        assert plain.load(KEY) is None
    with pytest.warns(CacheWarning, match="was signed with another key"):
        assert other.load(KEY) is None
    assert list(plain.notes("encode")) == list(other.notes("encode")) == []
    assert signed.load(KEY) == Found(2)


# ------------------------------------------------------------------------------------------------- bounds


def total(cache: DiskCache) -> int:
    return sum(entry.size for entry in cache.kept())


@pytest.mark.parametrize("size", [10, 5_000, 120_000])
def test_the_bound_of_a_folder_holds_at_every_moment(tmp_path: Path, size: int) -> None:
    cache = DiskCache(tmp_path / "cache", max_bytes=400_000)
    for number in range(min(2_500, 2_000_000 // size)):
        assert cache.save(key_of(number), bytes(size), NOTE)
        if number % 10 == 0 or size > 10_000:
            assert total(cache) <= 400_000
        assert cache.load(key_of(number)) == Found(bytes(size)), "what was just saved is there"
    assert total(cache) > 150_000


def test_a_value_larger_than_the_bound_is_not_kept_and_drops_nothing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", max_bytes=10_000)
    cache.save(KEY, "small", NOTE)
    with pytest.warns(CacheWarning, match=r"takes \d+ bytes, and max_bytes is 10000"):
        assert cache.save(key_of("large"), bytes(20_000), NOTE) is False
    assert cache.load(KEY) == Found("small")


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", max_bytes=100_000)
    now = time.time()
    for number in range(8):
        cache.save(key_of(number), bytes(9_000), NOTE)
        os.utime(file_of(cache, key_of(number)), (now - 9_000 + number,) * 2)
    assert cache.load(key_of(0)) is not None  # used again
    for number in range(8, 14):
        cache.save(key_of(number), bytes(9_000), NOTE)
    left = {number for number in range(14) if file_of(cache, key_of(number)).exists()}
    assert 0 in left
    assert 1 not in left
    assert left >= {11, 12, 13}


def test_reading_marks_an_entry_as_used_at_most_once_in_a_while(disk: DiskCache) -> None:
    disk.save(KEY, 1, NOTE)
    recent = time.time() - 300
    os.utime(file_of(disk), (recent, recent))
    disk.load(KEY)
    assert file_of(disk).stat().st_mtime == pytest.approx(recent)
    os.utime(file_of(disk), (0, 0))
    disk.load(KEY)
    assert file_of(disk).stat().st_mtime == pytest.approx(time.time(), abs=60)


def test_several_processes_that_fill_a_bounded_cache_pass_the_bound_by_little(tmp_path: Path) -> None:
    caches = [DiskCache(tmp_path / "cache", max_bytes=500_000) for _ in range(4)]  # each with a count of its own
    most = 0
    for number in range(800):
        assert caches[number % 4].save(key_of(number), bytes(3_000), NOTE)
        if number % 20 == 0:
            most = max(most, total(caches[0]))
    assert most <= 500_000 * 1.2


# ------------------------------------------------------------------------------------------------- addresses


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    return


@pytest.mark.usefixtures("no_key")
def test_an_address_opens_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = DiskCache("x")
    assert open_cache(cache) is cache
    assert open_cache("x") == open_cache(tmp_path / "x") == cache
    assert open_cache(cache.address) == cache
    assert open_cache("memory:") is open_cache("memory:")
    assert open_cache("memory:a") is not open_cache("memory:b")
    assert isinstance(open_cache("memory:a"), MemoryCache)
    assert open_cache("C:/x").address.endswith("C:/x"), "one colon is no scheme"


def test_a_cache_opened_by_a_path_is_signed_with_the_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    assert open_cache(tmp_path) == DiskCache(tmp_path, signing_key=SECRET)
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(CacheError, match=f"the environment variable '{VARIABLE}' has 5 bytes"):
        open_cache(tmp_path)


@pytest.mark.parametrize("given", [3, None, True, ["x"], b"x"])
def test_what_is_no_address_is_refused(given: Any) -> None:
    with pytest.raises(CacheError, match=r"give a cache such as DiskCache\('.cache'\), or the path of a folder"):
        open_cache(given)


def test_an_address_that_nobody_opens_names_the_plugin_that_would() -> None:
    with pytest.raises(CacheError) as caught:
        open_cache("quux://ada:secret@host/path?token=secret")
    assert str(caught.value) == (
        "no installed plugin opens the cache 'quux://...@host/path?...'; the one for 'quux://' and other stores comes "
        'with: pip install "hypernodes[fsspec]"'
    )


# ------------------------------------------------------------------------------------------------- looking after it


def test_looking_at_an_entry_reads_its_head_and_checking_reads_all(disk: DiskCache) -> None:
    disk.save(KEY, np.ones(50_000), NOTE)
    with file_of(disk).open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff")
    peeked = disk.peek(KEY)
    assert peeked is not None
    assert peeked.node == "encode"
    with pytest.raises(Defect, match="its checksum does not match"):
        disk.check(KEY)
    assert disk.peek(key_of("absent")) is None
    assert disk.check(key_of("absent")) is None
    disk.delete(KEY)
    disk.delete(KEY)
    assert list(disk.kept()) == []


def test_a_note_is_kept_as_plain_json(disk: DiskCache) -> None:
    disk.save(KEY, "the value", NOTE)
    data = file_of(disk).read_bytes()
    assert json.dumps(NOTE, separators=(",", ":")).encode() in data
    with pytest.warns(CacheWarning, match="not JSON serializable"):
        assert disk.save(KEY, 1, {"node": object()}) is False
