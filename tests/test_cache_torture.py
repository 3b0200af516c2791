"""A cache under fire: writers killed at random instants, and many threads and processes on the same keys.

`HYPERNODES_CACHE_KILLS=1000` runs the long form.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hypernodes import DiskCache
from hypernodes._entry import Defect

KILLS = int(os.environ.get("HYPERNODES_CACHE_KILLS", "60"))
WRITERS = 3
HOT = 10

# What every process knows: which value belongs to a key. Every third one has a buffer of its own beside the stream.
COMMON = """
import os, pickle, random, sys
from hashlib import sha256
from hypernodes import DiskCache

NOTE = {"node": "torture", "code": {}, "inputs": {}, "outputs": ["value"]}

def hot(number):
    return sha256(f"hot {number}".encode()).hexdigest()

def content_of(key):
    size = (100, 3_000, 70_000, 300_000)[int(key[0], 16) % 4]
    return (key.encode() * (size // 64 + 1))[:size]

def value_of(key):
    content = content_of(key)
    if int(key[1], 16) % 3:
        return [key, content]
    return [key, pickle.PickleBuffer(bytearray(content))]

def is_right(key, value):
    return value[0] == key and bytes(value[1]) == content_of(key)
"""

WRITER = (
    COMMON
    + """
folder, seed = sys.argv[1:]
chance = random.Random(seed)
cache = DiskCache(folder)
os.write(1, b"ready\\n")
number = 0
while True:
    number += 1
    key = hot(chance.randrange(10)) if number % 4 == 0 else sha256(f"{seed} {number}".encode()).hexdigest()
    if not cache.save(key, value_of(key), NOTE):
        os.write(1, b"FAILED\\n")
        break
    os.write(1, key.encode() + b"\\n")
"""
)

RACER = (
    COMMON
    + """
import threading
folder, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
import time
cache = DiskCache(folder)
counts = {"hits": 0, "misses": 0, "wrong": 0, "unsaved": 0}
lock = threading.Lock()

def work(seed):
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        key = hot(chance.randrange(20))
        what = chance.randrange(10)
        if what < 6:
            found = cache.load(key)
            result = "misses" if found is None else "hits" if is_right(key, found.value) else "wrong"
        elif what < 9:
            result = "saved" if cache.save(key, value_of(key), NOTE) else "unsaved"
        else:
            result = "looked"
            list(cache.notes("torture"))
        with lock:
            counts[result] = counts.get(result, 0) + 1

threads = [threading.Thread(target=work, args=(seed * 10 + number,)) for number in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(counts["hits"], counts["misses"], counts["wrong"], counts["unsaved"], sorted(vars(cache).get("_said", ())))
"""
)

known: dict[str, Any] = {}
exec(COMMON, known)  # the same lines as in the other processes


class Writer:
    """A process that saves entries one after another and tells of each that was kept."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(seed)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> list[str]:
        """Kill it with SIGKILL; the keys that it was told are kept."""
        self.process.kill()
        told, _ = self.process.communicate()
        lines = told.decode().split("\n")[:-1]  # what follows the last line end was cut off
        assert "FAILED" not in lines
        return lines


@pytest.mark.slow
def test_writers_killed_at_random_instants_leave_nothing_torn_and_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    chance = random.Random(7)
    cache = DiskCache(folder)
    done = threading.Event()
    wrong: list[object] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not done.is_set():
            for number in range(HOT):
                key = known["hot"](number)
                found = cache.load(key)
                if found is not None and not known["is_right"](key, found.value):
                    wrong.append(found)
                reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    writers: list[Writer] = []
    saves, lost, defects = 0, [], []
    began = time.monotonic()
    try:
        writers += [Writer(folder, seed) for seed in range(WRITERS)]
        for kill in range(KILLS):
            writer = writers.pop(0)
            writer.ready()
            time.sleep(chance.uniform(0, 0.02))
            kept = writer.kill()
            writers.append(Writer(folder, WRITERS + kill))
            saves += len(kept)
            hot = {known["hot"](number) for number in range(HOT)}
            for key in kept:
                found = cache.load(key)
                if found is None:
                    lost.append(key)
                elif not known["is_right"](key, found.value):
                    wrong.append(found)
                elif key not in hot:
                    cache.delete(key)  # so that the disk does not fill up
            if kill % 100 == 99:
                defects += torn_entries(cache)
    finally:
        for writer in writers:
            writer.kill()
        done.set()
        reader.join()
    defects += torn_entries(cache)
    left = list((folder / "tmp").iterdir())
    for path in left:
        os.utime(path, (0, 0))
    assert DiskCache(folder).save(sha256(b"one more").hexdigest(), 1, {"node": "torture"})
    print(
        f"{KILLS} kills in {time.monotonic() - began:.0f} s, {saves} entries kept, {reads} reads meanwhile, "
        f"{len(left)} files under way were left and swept; torn: {len(defects)}, wrong: {len(wrong)}, lost: {len(lost)}"
    )
    assert (defects, wrong, lost) == ([], [], [])
    assert list((folder / "tmp").iterdir()) == []
    assert saves >= KILLS
    assert reads > 0
    assert vars(cache).get("_said") is None, "no reader had anything to warn of"
    if KILLS >= 1_000:
        assert left, "some writers were killed in the middle of an entry"


def torn_entries(cache: DiskCache) -> list[str]:
    found = []
    for entry in cache.kept():
        try:
            cache.check(entry.key)
        except Defect as defect:
            found.append(f"{entry.key}: {defect}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [False, True], ids=["cleared", "bounded"])
def test_threads_and_processes_share_keys_while_entries_are_dropped(tmp_path: Path, bounded: bool) -> None:
    folder = tmp_path / "cache"
    code = (
        RACER.replace("cache = DiskCache(folder)", "cache = DiskCache(folder, max_bytes=900_000)") if bounded else RACER
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    racers = [
        subprocess.Popen([*command, str(seed), "1.5"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(2)
    ]
    cache = DiskCache(folder)
    cleared = 0
    while any(racer.poll() is None for racer in racers):
        for entry in list(cache.kept()):
            if not bounded:
                cache.delete(entry.key)
                cleared += 1
    told = [racer.communicate() for racer in racers]
    for out, errors in told:
        hits, misses, wrong, unsaved, warned = out.split(maxsplit=4)
        assert (wrong, unsaved, warned, errors) == ("0", "0", "[]\n", "")
        assert int(hits) + int(misses) > 50
    assert bounded or cleared > 0
    assert torn_entries(cache) == []
