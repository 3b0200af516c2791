"""Ctrl-C, the death of the caller, and scripts: what was started ends, soon and quietly, and leaves no process."""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

pytestmark = pytest.mark.slow

TAG = "HYPERNODES_STOPPING_TAG"
PAUSE = 0.01
PATIENCE = 30.0
"""Seconds after which what should happen soon is taken for never happening."""
SOON = 5.0
"""Two seconds are what users are promised, on a machine that is not busy with other tests."""

SEED = int(os.environ.get("HYPERNODES_SEED", "1"))
INSTANTS = int(os.environ.get("HYPERNODES_SIGINTS", "20"))


@pytest.fixture(autouse=True)
def clean(no_leaks: LeakWatch) -> None:
    return


class Script:
    """A program in a session of its own, known by a tag that all of its processes inherit."""

    def __init__(self, folder: Path, source: str, *arguments: str) -> None:
        self.tag = secrets.token_hex(8)
        file = folder / "script.py"
        file.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(file), *arguments],
            cwd=folder,
            env={**os.environ, TAG: self.tag},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def has_news(self) -> bool:
        """Whether it has printed, or ended, since its last line was taken."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def end(self) -> tuple[int, list[str], list[str]]:
        """Its exit code, what else it printed, and what it wrote to stderr."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.splitlines(), err.splitlines()

    def family(self) -> set[int]:
        """Processes of this program that are alive, wherever they ended up."""
        return {pid for pid in pids() if self.tag.encode() in read(f"/proc/{pid}/environ") and is_alive(pid)}

    def close(self) -> None:
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    state = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return bool(state) and state[0] != b"Z"


def wait_until(over: Callable[[], object], seconds: float, told: str = "") -> None:
    """Fails when it is not `over` after `seconds`.

    They are counted in looks: while a machine stands still, or is short of processors, what is waited for does too.
    """
    for _ in range(round(seconds / PAUSE)):
        if over():
            return
        time.sleep(PAUSE)
    raise AssertionError(f"not over after {seconds} s {told}")


Start = Callable[..., Script]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    scripts: list[Script] = []

    def begin(source: str, *arguments: str) -> Script:
        scripts.append(Script(tmp_path, source, *arguments))
        return scripts[-1]

    yield begin
    for script in scripts:
        script.close()


# Ctrl-C

LONG = """
    import sys, time
    from hypernodes import LocalBackend, Pipeline, node

    engine, kind = sys.argv[1:]

    @node(output_name="y")
    def sleep(x):
        time.sleep(30)

    @node(output_name="y")
    async def awaited(x):
        import asyncio
        await asyncio.sleep(30)

    pipeline = Pipeline(
        nodes=[awaited if kind == "awaited" else sleep],
        backend=LocalBackend(engine=engine, max_workers=None if engine == "sequential" else 2),
    )
    try:
        print("begun", flush=True)
        pipeline.map([{"x": x} for x in range(20)], on_error="return")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""

ENGINES = ["sequential", "async", "threaded", "multiprocess"]


def says_so_briefly(err: list[str]) -> bool:
    """Whether this is no more than the caller's own traceback; each frame takes two lines or three, as Python likes."""
    frames = [line for line in err if line.startswith("  File ")]
    return len(frames) <= 20 and not any(file in line for line in frames for file in ("_worker.py", "_zygote.py"))


@pytest.mark.parametrize("group", [False, True], ids=["caller only", "whole group"])
@pytest.mark.parametrize("engine", ENGINES)
def test_interrupt_at_any_instant_reaches_the_caller_soon(engine: str, group: bool, start: Start) -> None:
    pick = random.Random(f"{SEED} {engine} {group}")
    first = ENGINES.index(engine) * 2 + group
    for number in range(first, INSTANTS, 8):
        script = start(LONG, engine, pick.choice(["plain", "awaited"]))
        assert script.line() == "begun"
        time.sleep(pick.choice([0.0, pick.uniform(0, 0.05), pick.uniform(0, 0.8)]))
        if group:
            os.killpg(script.process.pid, signal.SIGINT)
        else:
            os.kill(script.process.pid, signal.SIGINT)
        wait_until(script.has_news, SOON, f"HYPERNODES_SEED={SEED}, instant {number}")
        wait_until(lambda script=script: script.process.poll() is not None, SOON)  # type: ignore[misc]
        code, out, err = script.end()
        told = f"HYPERNODES_SEED={SEED}, instant {number}: exit code {code}, {out}, {err}"
        assert out == ["interrupted"], told
        assert says_so_briefly(err), told
        # Python 3.11 ends by the signal all the same where it struck in an exec(), of a dataclass being made, say.
        assert code in (0, -signal.SIGINT), told
        wait_until(lambda script=script: not script.family(), SOON)  # type: ignore[misc]


def test_interrupted_program_without_a_handler_dies_of_it_and_says_so_briefly(start: Start) -> None:
    for engine in ("threaded", "multiprocess"):
        source = LONG.replace("except KeyboardInterrupt:", "except ZeroDivisionError:")
        script = start(source, engine, "plain")
        assert script.line() == "begun"
        wait_until(lambda script=script, engine=engine: len(script.family()) > 2 * (engine == "multiprocess"), PATIENCE)  # type: ignore[misc]
        os.killpg(script.process.pid, signal.SIGINT)
        code, _, err = script.end()
        assert code in (-signal.SIGINT, 130, 1)
        assert says_so_briefly(err), err
        assert "KeyboardInterrupt" in err[-1]
        wait_until(lambda script=script: not script.family(), SOON)  # type: ignore[misc]


def test_backend_goes_on_after_an_interrupt(start: Start) -> None:
    source = """
        import sys, time
        from hypernodes import LocalBackend, Pipeline, node

        @node(output_name="y")
        def work(x):
            if x == -1:
                print("begun", flush=True)
            if x < 0:
                time.sleep(30)
            return x

        for engine in ("sequential", "async", "threaded", "multiprocess"):
            pipeline = Pipeline(nodes=[work], backend=LocalBackend(engine=engine))
            try:
                pipeline.map([{"x": x} for x in (-1, -2, -2, -2)])
            except KeyboardInterrupt:
                print(sum(pipeline.map([{"x": x} for x in range(100)], output_name="y")), flush=True)
    """
    script = start(source)
    for _ in ENGINES:
        assert script.line() == "begun"
        os.kill(script.process.pid, signal.SIGINT)
        assert script.line() == "4950"
    assert script.end() == (0, [], [])


# the caller dies

ORPHANS = """
    import os, sys, time
    from pathlib import Path
    from hypernodes import LocalBackend, Pipeline, node

    @node(output_name="y")
    def work(x):
        Path(f"begun-{os.getpid()}").touch()
        kind = sys.argv[1]
        if kind == "sleeps":
            time.sleep(60)
        while kind == "spins":
            pass
        import re
        # holds the interpreter's lock for longer than anyone waits
        re.match("(a+)+$", "a" * 60 + "b")

    Pipeline(nodes=[work], backend=LocalBackend(engine="multiprocess", max_workers=2)).map([{"x": x} for x in range(9)])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["sleeps", "spins", "holds the lock"])
def test_workers_end_soon_of_their_callers_death(kind: str, how: signal.Signals, start: Start, tmp_path: Path) -> None:
    script = start(ORPHANS.replace("sys.argv[1]", repr(kind)))
    wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 2, PATIENCE)
    assert len(script.family()) >= 3
    os.kill(script.process.pid, how)
    script.process.wait(PATIENCE)
    wait_until(lambda: not script.family(), SOON)


def test_orphan_is_found_by_its_tag(start: Start) -> None:
    # The search above must be able to fail: this child survives its parent.
    source = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(60)"],
                         stderr=subprocess.DEVNULL, start_new_session=True)
    """
    script = start(source)
    assert script.line() == "runs"  # just after exec() a process has no environment to be known by
    script.process.wait(PATIENCE)
    with pytest.raises(AssertionError, match="not over"):
        wait_until(lambda: not script.family(), 0.3)


# scripts


def test_script_without_a_main_guard_runs_on_processes(start: Start) -> None:
    source = """
        from hypernodes import LocalBackend, Pipeline, node

        print("top level", flush=True)

        class Word:
            def __init__(self, text):
                self.text = text

        @node(output_name="word")
        def make(text):
            return Word(text + LATER)

        LATER = "!"
        pipeline = Pipeline(nodes=[make], backend=LocalBackend(engine="multiprocess", max_workers=2))
        found = pipeline.map([{"text": text} for text in "abc"], output_name="word")
        print([type(word) is Word for word in found], [word.text for word in found])
    """
    assert start(source).end() == (0, ["top level", "[True, True, True] ['a!', 'b!', 'c!']"], [])


def test_script_leaves_no_process_whatever_way_it_ends(start: Start) -> None:
    source = """
        import os, sys
        from hypernodes import LocalBackend, Pipeline, node

        pipeline = Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=LocalBackend(engine="multiprocess"))
        stream = pipeline.map_iter(({"x": x} for x in iter(int, 1)), output_name="y")
        print(next(stream), flush=True)
        {"returns": lambda: None, "exits": lambda: sys.exit(0), "vanishes": lambda: os._exit(0)}[sys.argv[1]]()
    """
    for way in ("returns", "exits", "vanishes"):
        script = start(source, way)
        assert script.end() == (0, ["0"], []), way
        wait_until(lambda script=script: not script.family(), SOON)  # type: ignore[misc]


def test_threads_that_hold_locks_do_not_stop_a_pool_from_starting(start: Start) -> None:
    source = """
        import logging, threading
        from hypernodes import LocalBackend, Pipeline, node

        handler = logging.StreamHandler()
        held, release = threading.Event(), threading.Event()

        def hold():
            with handler.lock:
                held.set()
                release.wait()

        logging.getLogger().addHandler(handler)
        threading.Thread(target=hold).start()
        held.wait()

        def log(x):
            logging.getLogger("worker").debug("x")
            return x

        backend = LocalBackend(engine="multiprocess", max_workers=2)
        pipeline = Pipeline(nodes=[node(log, output_name="y")], backend=backend)
        print(pipeline.map([{"x": x} for x in range(3)], output_name="y"), flush=True)
        release.set()
    """
    assert start(source).end() == (0, ["[0, 1, 2]"], [])
