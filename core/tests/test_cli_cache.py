"""The command line tells what is in a cache, drops what one names, and finds what is damaged, without unpickling."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from hypernodes import DiskCache
from hypernodes._cli import main
from hypernodes._entry import raw_key, sealed
from hypernodes._signing import VARIABLE

SECRET = "correct horse battery staple"
KEYS = [f"{number:064x}" for number in range(10)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    monkeypatch.delenv(VARIABLE, raising=False)
    cache = DiskCache(tmp_path / "cache")
    for number, key in enumerate(KEYS):
        assert cache.save(key, bytes(1_000 * number), {"node": "encode" if number < 7 else "clean"})
    return cache


def file_of(cache: DiskCache, key: str) -> Path:
    return Path(cache.path) / key[:2] / key


def age(cache: DiskCache, key: str, seconds: float) -> None:
    os.utime(file_of(cache, key), (time.time() - seconds,) * 2)


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["cache", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def facts(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, _ = command(capsys, *arguments, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def left(cache: DiskCache) -> list[int]:
    return [number for number, key in enumerate(KEYS) if file_of(cache, key).exists()]


def test_stats_tell_the_size_and_the_nodes(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "stats", cache.path)
    assert code == 0
    first, second, _, heading, *rows = out.splitlines()
    assert first == f"{cache.path}: 10 entries, 46.7 kB"
    assert second.startswith("last used between 20")
    assert heading.split() == ["node", "entries", "size"]
    assert sorted(row.split()[:2] for row in rows) == [["clean", "3"], ["encode", "7"]]
    told = facts(capsys, "stats", cache.path)
    assert told["entries"] == 10
    assert told["bytes"] == sum(entry.size for entry in cache.kept())
    assert {node: found["entries"] for node, found in told["nodes"].items()} == {"clean": 3, "encode": 7}
    assert told["not_read"] == {}


def test_stats_count_what_they_cannot_read(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    file_of(cache, KEYS[0]).write_bytes(b"")
    DiskCache(cache.path, signing_key=SECRET).save(KEYS[1], 1, {"node": "encode"})
    out = command(capsys, "stats", cache.path)[1]
    assert "1 entry not read: it is empty\n" in out
    assert "1 entry not read: it is signed, and this cache has no signing key\n" in out


def test_clear_drops_everything_once_one_says_yes(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = command(capsys, "clear", cache.path)
    assert code == 2
    assert "drop 10 entries (46.7 kB)" in errors
    assert "say --yes" in errors
    assert len(left(cache)) == 10
    assert command(capsys, "clear", cache.path, "--yes")[:2] == (0, "dropped 10 entries, 46.7 kB\n")
    assert left(cache) == []
    assert command(capsys, "clear", cache.path)[:2] == (0, "dropped 0 entries, 0 bytes\n")


def test_clear_drops_what_was_not_used_for_a_time(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    age(cache, KEYS[1], 8 * 86_400)
    age(cache, KEYS[2], 6 * 86_400)
    assert facts(capsys, "clear", cache.path, "--older-than", "7d", "--yes")["dropped"] == 1
    assert left(cache) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert facts(capsys, "clear", cache.path, "--older-than", "30m", "--yes")["dropped"] == 1


def test_clear_drops_the_results_of_a_node(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    age(cache, KEYS[8], 100)
    options = ("--node", "clean", "--older-than", "45s", "--yes")
    assert facts(capsys, "clear", cache.path, *options)["dropped"] == 1
    assert facts(capsys, "clear", cache.path, "--node", "clean", "--yes")["dropped"] == 2
    assert left(cache) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("text", ["7", "d", "", "-1d", "1.5h", "7w", "٣d"])
def test_what_is_no_age_is_refused(cache: DiskCache, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit):
        main(["cache", "clear", cache.path, "--older-than", text])
    assert "is not an age such as 45s, 30m, 12h or 7d" in capsys.readouterr().err or text == "-1d"


class Planted:
    def __reduce__(self) -> Any:
        return os._exit, (99,)  # the test run itself would end


def test_verify_finds_damage_and_drops_it_where_asked(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "verify", cache.path)[:2] == (0, "10 entries good, 0 not\n")
    data = bytearray(file_of(cache, KEYS[3]).read_bytes())
    data[-1] ^= 1
    file_of(cache, KEYS[3]).write_bytes(data)
    file_of(cache, KEYS[4]).write_bytes(file_of(cache, KEYS[5]).read_bytes())
    file_of(cache, KEYS[6]).write_bytes(pickle.dumps(Planted()) + bytes(200))
    parts = sealed(raw_key(KEYS[7]), pickle.dumps(Planted()), [], {"node": "planted"}, None, 0)
    file_of(cache, KEYS[7]).write_bytes(b"".join(parts))
    code, out, _ = command(capsys, "verify", cache.path)
    assert code == 1
    assert sorted(out.splitlines()) == [
        f"{KEYS[3]}: its checksum does not match",
        f"{KEYS[4]}: it belongs to another key",
        f"{KEYS[6]}: it is not an entry of a hypernodes cache",
        "7 entries good, 3 not",
    ]
    assert {"planted"} < facts(capsys, "stats", cache.path)["nodes"].keys()
    assert facts(capsys, "verify", cache.path, "--delete")["dropped"] == 3
    assert left(cache) == [0, 1, 2, 5, 7, 8, 9]
    assert facts(capsys, "verify", cache.path) == {"cache": cache.path, "good": 7, "dropped": 0, "defects": []}


def test_verify_spares_entries_for_which_it_has_no_key_or_the_wrong_one(
    cache: DiskCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = DiskCache(cache.path, signing_key=SECRET)
    for key in KEYS:
        signed.save(key, 1, {"node": "encode"})
    code, out, _ = command(capsys, "verify", cache.path, "--delete")
    assert code == 1
    assert f"10 entries left alone: signed, and the environment variable '{VARIABLE}' holds no key" in out
    monkeypatch.setenv(VARIABLE, "another key of some length")
    code, _, errors = command(capsys, "verify", cache.path, "--delete")
    assert code == 1
    assert "it is probably another key, so nothing is dropped" in errors
    assert len(left(cache)) == 10
    monkeypatch.setenv(VARIABLE, SECRET)
    assert facts(capsys, "verify", cache.path)["good"] == 10
    assert SECRET not in str(command(capsys, "stats", cache.path))


def test_a_cache_that_is_not_there_is_a_mistake_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for what in ("stats", "clear", "verify"):
        code, out, errors = command(capsys, what, tmp_path / "none")
        assert (code, out) == (2, "")
        assert errors == f"hypernodes: there is no cache at '{tmp_path / 'none'}': no such folder\n"
    assert command(capsys, "stats", "memory:")[2] == (
        "hypernodes: 'memory:' is a MemoryCache, which the command line cannot look into\n"
    )
    (tmp_path / "file").write_text("hello")
    code, _, errors = command(capsys, "stats", tmp_path / "file")
    assert code == 1
    assert "there is a file of that name" in errors


def test_names_of_nodes_cannot_steer_the_terminal(cache: DiskCache, capsys: pytest.CaptureFixture[str]) -> None:
    cache.save(KEYS[0], 1, {"node": "\x1b[31mred"})
    assert "\x1b" not in command(capsys, "stats", cache.path)[1]
