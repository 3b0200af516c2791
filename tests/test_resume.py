"""Programs that are killed while they run with a cache, and run again: nothing that was kept is computed twice.

`HYPERNODES_CACHE_KILLS=1000` with `--timeout=0` runs the long form, `HYPERNODES_SEED` chooses other instants.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from hypernodes_local_multiprocess import MultiprocessEngine

SEED = int(os.environ.get("HYPERNODES_SEED", "1"))
KILLS = max(3, int(os.environ.get("HYPERNODES_CACHE_KILLS", "3")))
KILLS_IN_A_ROW = 3
"""How often one map is killed before it may run to its end."""

PAUSE = 0.002
PATIENCE = 60.0
"""Seconds after which what should happen soon is taken for never happening."""

WORKERS_ARE_GONE = 5.0

ITEMS = 60
MAPPED = ("square", "spell", "seal")
SECONDS = 0.005
"""What each of them takes at the least."""
CHAIN = ("one", "two", "three", "four", "five")

# What the nodes read from the environment is no part of their keys, so a driver that is mended finds what was kept.
DRIVER = """
import os, sys, time
from hypernodes import DiskCache, Failure, LocalBackend, Pipeline, node

def begin(name, item):
    line = f"{os.getpid()} {name} {item}\\n".encode()
    log = os.open(os.environ["RESUME_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)
    if os.environ.get("RESUME_BLOCK") == name:
        time.sleep(600)
    if os.environ.get("RESUME_FAIL") == f"{name} {item}":
        raise RuntimeError(f"{name} is broken for {item}")
    time.sleep(float(os.environ["RESUME_SECONDS"]))

@node(output_name="squared")
def square(item):
    begin("square", item)
    return [item, item * item]

@node(output_name="spelled")
def spell(item, squared):
    begin("spell", item)
    return {"text": "-".join(map(str, squared)) * 200, "none": None}

@node(output_name="sealed")
def seal(item, spelled):
    begin("seal", item)
    return (len(spelled["text"]), spelled["text"][:20], spelled["none"])

@node(output_name="v1")
def one(item):
    begin("one", item)
    return item + 1

@node(output_name="v2")
def two(item, v1):
    begin("two", item)
    return v1 * 2

@node(output_name="v3")
def three(item, v2):
    begin("three", item)
    return v2 + 3

@node(output_name="v4")
def four(item, v3):
    begin("four", item)
    return v3 * 4

@node(output_name="v5")
def five(item, v4):
    begin("five", item)
    return v4 + 5

what, folder, engine, workers, count, on_error = sys.argv[1:]
backend = LocalBackend(engine=engine, max_workers=int(workers) or None)
cache = DiskCache(folder) if folder else None
if what == "run":
    chain = Pipeline(nodes=[one, two, three, four, five], name="chain", backend=backend, cache=cache)
    print(chain.run(item=10, output_name="v5"), flush=True)
else:
    pipeline = Pipeline(nodes=[square, spell, seal], name="items", backend=backend, cache=cache)
    items = ({"item": number} for number in range(int(count)))
    for number, result in enumerate(pipeline.map_iter(items, output_name="sealed", on_error=on_error)):
        print(number, "failed" if isinstance(result, Failure) else repr(result), flush=True)
"""


class Way(NamedTuple):
    """An engine, how many workers it has, and how many calls of nodes may be lost with a kill."""

    engine: str
    workers: int
    in_flight: int


# One after another: each result is kept before the next node is called. The others keep the results of an item when
# all of it has come home. The event loop has one item under way for each of its workers; pools have as many more that
# wait for a worker, all of which may have run when the kill comes. A chunk for a thread holds one of so slow an item,
# one for a process as many as fit into its time.
IN_CHUNK = int(MultiprocessEngine.chunk_seconds / (SECONDS * len(MAPPED)))
WAYS = {
    way.engine: way
    for way in (
        Way("sequential", 0, 1),
        Way("async", 4, 4 * len(MAPPED)),
        Way("threaded", 2, 2 * 2 * len(MAPPED)),
        Way("multiprocess", 2, 2 * 2 * IN_CHUNK * len(MAPPED)),
    )
}


class Call(NamedTuple):
    """A call of a node, as the node itself wrote it down when it began."""

    pid: int
    node: str
    item: int


class Work:
    """One piece of work: a cache, and the log in which its nodes write, whatever process they are in."""

    def __init__(self, folder: Path, *arguments: str, seconds: float = SECONDS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self.log.touch()
        self.script = folder / "driver.py"
        self.script.write_text(DRIVER)
        what, *rest = arguments
        self.arguments = [what, str(folder / "cache"), *rest]
        self.environment = {**os.environ, "RESUME_LOG": str(self.log), "RESUME_SECONDS": str(seconds)}
        self.driver: subprocess.Popen[str] | None = None

    def start(self, settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        self.driver = subprocess.Popen(
            [sys.executable, "-W", "error", str(self.script), *self.arguments],
            env={**self.environment, **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self.driver

    def end(self, settings: Mapping[str, str] | None = None) -> list[str]:
        """Run to the end; the lines that it printed."""
        out, errors = self.start(settings).communicate(timeout=PATIENCE)
        assert (self.driver and self.driver.returncode, errors) == (0, "")
        return out.splitlines()

    def calls(self) -> list[Call]:
        lines = self.log.read_text().splitlines()
        return [Call(int(pid), node, int(item)) for pid, node, item in map(str.split, lines)]

    def begun(self) -> int:
        """How many calls of nodes have begun."""
        return self.log.read_bytes().count(b"\n")

    def stop_at(self, begun: int, by: signal.Signals, settings: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Start it and stop it when that many calls have begun; its exit code and what it had printed."""
        driver = self.start(settings)
        wait_until(lambda: self.begun() >= begun or driver.poll() is not None, PATIENCE)
        driver.send_signal(by)
        out, errors = driver.communicate(timeout=PATIENCE)
        pids = {call.pid for call in self.calls()}
        wait_until(lambda: not any(map(is_alive, pids)), WORKERS_ARE_GONE)
        if driver.returncode not in (0, -by, 130):
            raise AssertionError(f"the driver ended with {driver.returncode}:\n{errors}")
        return driver.returncode, out

    def close(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.communicate()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return bool(state) and state[0] != b"Z"


def wait_until(over: Callable[[], object], seconds: float) -> None:
    """Fails when it is not `over` after `seconds`, counted in looks, so that a machine that stands still does not."""
    for _ in range(round(seconds / PAUSE)):
        if over():
            return
        time.sleep(PAUSE)
    raise AssertionError(f"not over after {seconds} s")


Begin = Callable[..., Work]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    works: list[Work] = []

    def make(*arguments: str, seconds: float = SECONDS) -> Work:
        works.append(Work(tmp_path / str(len(works)), *arguments, seconds=seconds))
        return works[-1]

    yield make
    for work in works:
        work.close()


def right_line(item: int) -> str:
    """What a plain run of the three functions gives for an item."""
    text = f"{item}-{item * item}" * 200
    return f"{item} {(len(text), text[:20], None)!r}"


def reported(out: str) -> set[int]:
    """The items that it had reported as done; what follows the last line end was cut off."""
    lines = out.split("\n")[:-1]
    assert lines == [right_line(item) for item in range(len(lines))]
    return set(range(len(lines)))


def stop_and_resume(begin: Begin, way: Way, by: signal.Signals, kills: int, seed: int) -> str:
    """Stop maps again and again and let them run to their end; a line on what it cost."""
    chance = random.Random(seed)
    stopped = again = most = told = 0
    for _ in range(-(-kills // KILLS_IN_A_ROW)):
        work = begin("map", way.engine, str(way.workers), str(ITEMS), "raise")
        done: set[int] = set()
        known: set[tuple[str, int]] = set()
        lost = 0
        for at in sorted(chance.sample(range(1, ITEMS * len(MAPPED) - 30), KILLS_IN_A_ROW)):
            before = work.begun()
            code, out = work.stop_at(max(at, before + 1), by)
            lost += bool(code)
            known = seen_again(work.calls()[before:], done, known)
            done |= reported(out)
        before = work.begun()
        assert work.end() == [right_line(item) for item in range(ITEMS)]
        known = seen_again(work.calls()[before:], done, known)
        assert known == {(name, item) for name in MAPPED for item in range(ITEMS)}
        twice = work.begun() - len(known)
        assert twice <= way.in_flight * lost, f"{twice} calls were made again after {lost} stops"
        before = work.begun()
        assert work.end() == [right_line(item) for item in range(ITEMS)]
        assert work.begun() == before, "all of it is kept by now"
        stopped, again, most, told = stopped + lost, again + twice, max(most, twice), told + len(done)
    assert stopped >= kills // 2, "most runs were stopped before their end"
    return f"{way.engine}: {stopped} stops, {again} calls made again, at most {most} a map, {told} items reported"


def seen_again(calls: list[Call], done: set[int], known: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """All calls known by now. None of these is for an item that was `done`, and none came twice in one run."""
    made = Counter((call.node, call.item) for call in calls)
    assert not [call for call in made if call[1] in done], "an item that was reported done was computed again"
    assert not [call for call, times in made.items() if times > 1]
    return known | made.keys()


@pytest.mark.slow
@pytest.mark.parametrize("engine", WAYS)
def test_killed_map_goes_on_where_it_was(begin: Begin, engine: str) -> None:
    print(stop_and_resume(begin, WAYS[engine], signal.SIGKILL, KILLS, SEED))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", "multiprocess"])
def test_interrupted_map_goes_on_where_it_was(begin: Begin, engine: str) -> None:
    print(stop_and_resume(begin, WAYS[engine], signal.SIGINT, KILLS, SEED + 1))


@pytest.mark.slow
@pytest.mark.parametrize("position", range(len(CHAIN)))
def test_killed_run_goes_on_at_the_node_that_was_running(begin: Begin, position: int) -> None:
    work = begin("run", "sequential", "0", "1", "raise", seconds=0)
    code, out = work.stop_at(position + 1, signal.SIGKILL, {"RESUME_BLOCK": CHAIN[position]})
    assert (code, out) == (-signal.SIGKILL, "")
    assert [call.node for call in work.calls()] == list(CHAIN[: position + 1])
    assert work.end() == [str(((10 + 1) * 2 + 3) * 4 + 5)]
    assert [call.node for call in work.calls()[position + 1 :]] == list(CHAIN[position:])


@pytest.mark.slow
@pytest.mark.parametrize("engine", WAYS)
def test_mended_item_alone_runs_again_and_only_from_the_node_that_failed(begin: Begin, engine: str) -> None:
    work = begin("map", engine, str(WAYS[engine].workers), "20", "return", seconds=0)
    right = [right_line(item) for item in range(20)]
    assert work.end({"RESUME_FAIL": "spell 7"}) == [*right[:7], "7 failed", *right[8:]]
    before = work.begun()
    assert before == 20 * len(MAPPED) - 1
    assert work.end() == right
    assert [(call.node, call.item) for call in work.calls()[before:]] == [("spell", 7), ("seal", 7)]


@pytest.mark.slow
def test_map_that_a_failure_stopped_goes_on_at_the_node_that_failed(begin: Begin) -> None:
    work = begin("map", "sequential", "0", "20", "raise", seconds=0)
    driver = work.start({"RESUME_FAIL": "spell 7"})
    out, errors = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1
    assert "spell is broken for 7" in errors
    assert reported(out) == set(range(7))
    before = work.begun()
    assert work.end() == [right_line(item) for item in range(20)]
    rest = [(name, item) for item in range(8, 20) for name in MAPPED]
    assert [(call.node, call.item) for call in work.calls()[before:]] == [("spell", 7), ("seal", 7), *rest]
