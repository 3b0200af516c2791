"""A shared cache gives back what it was given, or misses, whatever its store does."""

from __future__ import annotations

import pickle
import random
import threading
import uuid
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import hypernodes
from hypernodes import CacheError, CacheWarning, DiskCache, Pipeline
from hypernodes.plugin import Cache, Found
from hypernodes_fsspec import FsspecCache
from hypernodes_fsspec import _cache as module

NOTE = {"node": "encode", "code": {"body": "ab" * 32}, "inputs": {"x": "cd" * 32}, "outputs": ["encoded"]}
SECRET = "correct horse battery staple"
KEY = sha256(b"one").hexdigest()


def key_of(name: object) -> str:
    return sha256(repr(name).encode()).hexdigest()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/cache"
        return
    name = uuid.uuid4().hex
    yield f"memory://{name}/cache"
    files = fsspec.filesystem("memory")
    if files.exists(f"/{name}"):
        files.rm(f"/{name}", recursive=True)


@pytest.fixture
def cache(url: str) -> FsspecCache:
    return FsspecCache(url, signing_key=SECRET)


@pytest.mark.parametrize(
    "value",
    [None, "text", {"a": [1, (2,)]}, bytes(200_000), np.arange(5), {"a": np.arange(50_000), "b": np.ones(9_000)}],
)
def test_every_value_comes_back_as_it_was(cache: FsspecCache, value: Any) -> None:
    assert cache.load(KEY) is None
    assert cache.save(KEY, value, NOTE) is True
    found = cache.load(KEY)
    assert isinstance(found, Found)
    assert pickle.dumps(found.value, 5) == pickle.dumps(value, 5)


def test_large_arrays_arrive_writable(cache: FsspecCache) -> None:
    cache.save(KEY, np.zeros(50_000), NOTE)
    found = cache.load(KEY)
    assert found is not None
    found.value[:] = 1
    again = cache.load(KEY)
    assert again is not None
    assert not again.value.any()


def test_another_machine_finds_the_entries_under_the_address(
    cache: FsspecCache, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.save(KEY, 1, NOTE)
    monkeypatch.setenv("HYPERNODES_CACHE_KEY", SECRET)
    there = pickle.loads(pickle.dumps(cache))
    assert there == cache
    assert there.load(KEY) == Found(1)
    assert (cache.shared, cache.address) == (True, url)


def test_notes_and_what_is_kept_are_listed(cache: FsspecCache) -> None:
    assert list(cache.kept()) == []
    assert list(cache.notes("encode")) == []
    for number in range(3):
        cache.save(key_of(number), np.ones(number * 20_000), {**NOTE, "inputs": {"x": str(number)}})
    cache.save(KEY, 1, {**NOTE, "node": "other"})
    assert [note.inputs["x"] for note in cache.notes("encode")] == ["2", "1", "0"]
    kept = {entry.key: entry for entry in cache.kept()}
    assert kept.keys() == {KEY, *(key_of(number) for number in range(3))}
    assert all(entry.size > 100 and entry.used > 1e9 for entry in kept.values())
    note = cache.check(KEY)
    assert note is not None
    assert note.node == "other"
    cache.delete(KEY)
    cache.delete(KEY)
    assert cache.load(KEY) is None


def test_damaged_entries_are_misses(cache: FsspecCache) -> None:
    values = {key_of(number): value for number, value in enumerate([None, "text", np.ones(20_000)])}
    for key, value in values.items():
        cache.save(key, value, NOTE)
    files, root = cache._store
    sound = {key: files.cat_file(f"{root}/{key[:2]}/{key}") for key in values}
    chance = random.Random(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for _ in range(200):
            key = chance.choice(list(values))
            data = bytearray(sound[key])
            if chance.random() < 0.5:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            else:
                del data[chance.randrange(len(data)) :]
            files.pipe_file(f"{root}/{key[:2]}/{key}", bytes(data))
            assert cache.load(key) is None
            files.pipe_file(f"{root}/{key[:2]}/{key}", sound[key])


def test_threads_share_a_store(cache: FsspecCache) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            number = chance.randrange(6)
            if chance.random() < 0.4:
                cache.save(key_of(number), [number] * number, NOTE)
            else:
                found = cache.load(key_of(number))
                if found is not None and found.value != [number] * number:
                    wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert vars(cache).get("_said") is None, "there was nothing to warn of"


def test_what_writers_that_died_left_behind_is_swept(tmp_path: Path) -> None:
    cache = FsspecCache(f"file://{tmp_path}", signing_key=SECRET)
    cache.save(KEY, 1, NOTE)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [KEY]
    left = tmp_path / KEY[:2] / f"{KEY}.0011.tmp"
    left.write_bytes(b"half")
    cache.sweep()
    assert left.exists()
    import os

    os.utime(left, (0, 0))
    cache.sweep()
    assert not left.exists()
    assert cache.load(KEY) == Found(1)


# ------------------------------------------------------------------------------------------------- stores that fail


class Flaky(MemoryFileSystem):
    """A real store in memory that can be switched off."""

    protocol = "flaky"
    cachable = False
    gone = False
    asked = 0

    def _ask(self) -> None:
        type(self).asked += 1
        if type(self).gone:
            raise TimeoutError("the store does not answer")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self._ask()
        found: bytes = super().cat_file(path, start, end, **options)
        return found

    def pipe_file(self, path: str, value: bytes, *more: Any, **options: Any) -> Any:
        self._ask()
        return super().pipe_file(path, value, *more, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._ask()
        super().makedirs(path, exist_ok)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FsspecCache:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.gone, Flaky.asked = False, 0
    return FsspecCache(f"flaky://{uuid.uuid4().hex}", unsigned=True)


def test_a_store_that_is_gone_costs_one_warning_and_one_wait(
    flaky: FsspecCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flaky.save(KEY, 1, NOTE)
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    Flaky.gone, Flaky.asked = True, 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [flaky.load(KEY) for _ in range(100)] == [None] * 100
        assert [flaky.save(key_of(number), 1, NOTE) for number in range(100)] == [False] * 100
    assert Flaky.asked == 1
    (told,) = caught
    assert "it cannot be read (TimeoutError: the store does not answer)" in str(told.message)
    Flaky.gone = False
    now[0] += module.REST + 1
    assert flaky.load(KEY) == Found(1)


def test_a_store_that_cannot_be_written_is_one_warning(flaky: FsspecCache) -> None:
    Flaky.gone = True
    with pytest.warns(CacheWarning, match=r"node 'encode' is not kept, since it cannot be written \(TimeoutError"):
        assert flaky.save(KEY, 1, NOTE) is False


def test_a_file_system_whose_package_is_absent_is_one_warning() -> None:
    fsspec.register_implementation("absent", "no_such_package.FileSystem", clobber=True)
    cache = FsspecCache("absent://bucket", unsigned=True)
    with pytest.warns(CacheWarning, match="no_such_package"):
        assert cache.load(KEY) is None
    assert cache.save(KEY, 1, NOTE) is False


# ------------------------------------------------------------------------------------------------- settings


def test_a_shared_cache_is_signed_unless_one_says_otherwise(url: str) -> None:
    with pytest.raises(CacheError, match=r"has no signing key.*unsigned=True if only you can write there"):
        FsspecCache(url)
    with pytest.raises(CacheError, match="not both"):
        FsspecCache(url, signing_key=SECRET, unsigned=True)
    signed, unsigned = FsspecCache(url, signing_key=SECRET), FsspecCache(url, unsigned=True)
    signed.save(KEY, 1, NOTE)
    with pytest.warns(CacheWarning, match="this cache has no signing key"):
        assert unsigned.load(KEY) is None
    unsigned.save(KEY, 2, NOTE)
    with pytest.warns(CacheWarning, match="it is not signed"):
        assert signed.load(KEY) is None


@pytest.mark.parametrize("given", ["folder", "s3:/bucket", None, 3])
def test_what_is_no_address_is_refused(given: Any) -> None:
    with pytest.raises(CacheError, match="takes an address such as 's3://bucket/prefix'"):
        FsspecCache(given, unsigned=True)


def test_secrets_are_in_no_text_and_no_pickle() -> None:
    cache = FsspecCache("s3://ada:hunter2@bucket/x", signing_key=SECRET, secret="swordfish")
    assert repr(cache) == "FsspecCache('s3://...@bucket/x', signing_key=***, secret=***)"
    pickled = pickle.dumps(cache)
    assert SECRET.encode() not in pickled
    assert b"swordfish" not in pickled
    assert "swordfish" not in cache.address


def test_a_cache_equals_one_with_the_same_settings(url: str) -> None:
    make = [
        lambda: FsspecCache(url, unsigned=True),
        lambda: FsspecCache(url + "/x", unsigned=True),
        lambda: FsspecCache(url, signing_key=SECRET),
        lambda: FsspecCache(url, signing_key=SECRET, option=1),
    ]
    for one, first in enumerate(make):
        for other, second in enumerate(make):
            assert (first() == second()) == (one == other)
    assert hash(make[0]()) == hash(make[0]())
    assert make[0]() != "text"


def test_a_cache_that_arrives_where_its_key_is_not_is_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERNODES_CACHE_KEY", raising=False)
    arrived = pickle.loads(pickle.dumps(FsspecCache(url, signing_key=SECRET)))
    with pytest.warns(CacheWarning, match="'HYPERNODES_CACHE_KEY', which is not set"):
        assert arrived.load(KEY) is None
    assert arrived.save(KEY, 1, NOTE) is False


def opened(url: str) -> Cache:
    from hypernodes._cache_address import open_cache

    return open_cache(url)


def test_an_address_opens_the_cache_with_the_key_of_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERNODES_CACHE_KEY", SECRET)
    assert opened(url) == FsspecCache(url, signing_key=SECRET)
    monkeypatch.delenv("HYPERNODES_CACHE_KEY")
    with pytest.raises(CacheError, match="in the environment variable 'HYPERNODES_CACHE_KEY'; or add '#unsigned'"):
        opened(url)
    unsigned = FsspecCache(url, unsigned=True)
    assert unsigned.address == f"{url}#unsigned"
    assert opened(unsigned.address) == unsigned


def test_an_address_of_an_unknown_scheme_is_left_to_others() -> None:
    with pytest.raises(CacheError, match="no installed plugin opens the cache 'quux://x'"):
        opened("quux://x")


def test_the_class_is_a_name_of_hypernodes() -> None:
    assert hypernodes.FsspecCache is FsspecCache
    assert issubclass(FsspecCache, Cache)
    assert not issubclass(FsspecCache, DiskCache | Pipeline)
