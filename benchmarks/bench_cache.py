"""What a hit, a miss and a save cost, for small values and for 100 MB, over reading and writing the bare file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from _measure import QUICK, Table, chosen, compare

from hypernodes import DiskCache, MemoryCache, Pipeline, node

NOTE = {
    "node": "encode",
    "code": {"body": "ab" * 32, "helper": "cd" * 32},
    "inputs": {"text": "12" * 32, "model": "34" * 32},
    "outputs": ["encoded"],
}
KEYS = [sha256(str(number).encode()).hexdigest() for number in range(2_000)]
ABSENT = [sha256(f"absent {number}".encode()).hexdigest() for number in range(50)]
VALUES: dict[str, Any] = {"None": None, "text": "hello", "dict": {"a": 1, "b": [1, 2, 3]}}


def best(calls: Callable[[], None], turns: int) -> float:
    """Seconds of the quickest turn: what other programs take from the machine is left out."""
    found = []
    for _ in range(3 if QUICK else turns):
        started = time.perf_counter()
        calls()
        found.append(time.perf_counter() - started)
    return min(found)


def small(folder: Path) -> None:
    table = Table("A small value", "what", "hit", "miss", "save", "goal")
    block = KEYS[:50]
    for kind, cache in (
        ("DiskCache", DiskCache(folder / "plain")),
        ("signed", DiskCache(folder / "signed", signing_key=bytes(32))),
        ("bounded", DiskCache(folder / "bounded", max_bytes=10**9)),
        ("MemoryCache", MemoryCache()),
    ):
        for key in KEYS:  # makes the folders
            cache.save(key, 0, NOTE)
        for what, value in VALUES.items():
            fresh = iter(range(10**6))

            def save(cache: Any = cache, what: str = what, value: Any = value, fresh: Any = fresh) -> None:
                for _ in block:  # new keys: writing over an entry makes some file systems wait for the disk
                    cache.save(sha256(f"{what}{next(fresh)}".encode()).hexdigest(), value, NOTE)

            saved = best(save, 20) / len(block)
            for key in block:
                cache.save(key, value, NOTE)
            hit = best(lambda cache=cache: [cache.load(key) for key in block], 100) / len(block)  # type: ignore[misc]
            miss = best(lambda cache=cache: [cache.load(key) for key in ABSENT], 50) / len(block)  # type: ignore[misc]
            table.row(f"{kind}, {what}", chosen(hit), chosen(miss), chosen(saved), "hit <= 10 µs, save <= 100 µs")
    path = folder / "plain" / block[0][:2] / block[0]

    def bare() -> None:
        for _ in block:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, os.fstat(descriptor).st_size)
            os.close(descriptor)

    table.row("open, fstat, read, close", chosen(best(bare, 100) / len(block)), "", "", "")


@node(output_name="made")
def make(x: int) -> int:
    return x + 1


def pipelines(folder: Path) -> None:
    """A pipeline of one node whose results are all there: one `run`, and an item of a map of 10,000."""
    table = Table("A pipeline of one node, all hits", "cache", "run", "an item of map", "10,000 items", "goal")
    rows = [{"x": number} for number in range(500 if QUICK else 10_000)]
    for kind, cache in (("DiskCache", DiskCache(folder / "pipeline")), ("MemoryCache", MemoryCache())):
        pipeline = Pipeline([make], name="one", cache=cache)
        pipeline.map(rows)

        def runs(pipeline: Pipeline = pipeline) -> None:
            for _ in range(50):
                pipeline.run(x=1, output_name="made")

        def maps(pipeline: Pipeline = pipeline) -> None:
            pipeline.map(rows, output_name="made")

        one, all_rows = best(runs, 20) / 50, best(maps, 5) / len(rows)
        goal = "run <= 15 µs, 10,000 <= 0.25 s" if kind == "DiskCache" else ""
        table.row(kind, chosen(one), chosen(all_rows), f"{all_rows * 1e4:.2f} s", goal)


def large(folder: Path) -> None:
    import numpy as np

    table = Table("100 MB", "what", "hypernodes", "plain file", "ratio", "SHA-256 alone")
    array = np.arange(12_500_000, dtype=np.int64)
    cache, path = DiskCache(folder / "large"), folder / "bare"

    def save() -> None:
        cache.delete(KEYS[0])  # writing over a file makes some file systems wait for the disk
        assert cache.save(KEYS[0], array, NOTE)

    def write() -> None:
        path.unlink(missing_ok=True)
        with path.open("wb", buffering=0) as file:
            file.write(array.data)  # type: ignore[arg-type]

    def read() -> Any:
        data = bytearray(array.nbytes)
        with path.open("rb", buffering=0) as file:
            file.readinto(data)
        return np.frombuffer(data)

    digest = best(lambda: sha256(array.data).digest() and None, 5)  # type: ignore[arg-type, func-returns-value]
    for what, ours, theirs in (
        ("save", save, write),
        ("load", lambda: cache.load(KEYS[0]), read),
    ):
        pair = compare(ours, theirs, turns=7, warmups=1)
        table.row(what, chosen(pair.ours), chosen(pair.theirs), f"{pair.ratio:.2f}", chosen(digest))


PEAK = """
import sys, tracemalloc
import numpy as np
from hypernodes import DiskCache
what, folder = sys.argv[1:]
cache = DiskCache(folder)
array = np.arange(25_000_000, dtype=np.int64) if what == "save" else None
cache.save("cd" * 32, 1, {}), cache.load("cd" * 32)

def peak():
    # the most that this process has held since it began, in bytes
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
if what == "save":
    tracemalloc.start()
    assert cache.save("ab" * 32, array, {"node": "n"})
    traced = tracemalloc.get_traced_memory()[1]
else:
    tracemalloc.start()
    found = cache.load("ab" * 32)
    traced = tracemalloc.get_traced_memory()[1]
    assert found.value[-1] == 24_999_999 and found.value.flags.writeable
print(traced / 1e6, (peak() - before) / 1e6)
"""


def memory(folder: Path) -> None:
    table = Table("Memory for an array of 200 MB", "what", "allocated by Python", "growth of the process", "goal")
    for what, goal in (("save", "no copy"), ("load", "200 MB")):
        command = [sys.executable, "-c", PEAK, what, str(folder / "memory")]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        table.row(what, *(f"{float(figure):.1f} MB" for figure in told), goal)


if __name__ == "__main__":
    scratch = Path(tempfile.mkdtemp(prefix="bench-cache-"))
    try:
        small(scratch)
        pipelines(scratch)
        large(scratch)
        memory(scratch)
    finally:
        shutil.rmtree(scratch)
