"""What nobody waits for any more does not go on: after a failure, a closed stream, Ctrl-C, the end of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask_clusters import until, workers_of

from hypernodes import DaskBackend, Pipeline, node
from hypernodes_coiled._local import LocalCluster

pytestmark = [pytest.mark.slow, pytest.mark.long]


def marking(folder: Path, body: str, head: str = "import os, time\ndef work(x):") -> Any:
    """A node that leaves a file `began-<x>`, does what `body` says, and leaves `ended-<x>`."""
    space: dict[str, Any] = {"folder": str(folder)}
    lines = [
        head,
        "    try:",
        "        open(os.path.join(folder, f'began-{x}'), 'w').close()",
        f"        {body}",
        "    finally:",
        "        open(os.path.join(folder, f'left-{x}'), 'w').close()",
        "    open(os.path.join(folder, f'ended-{x}'), 'w').close()",
        "    return x",
    ]
    exec("\n".join(lines), space)
    return node(space["work"], output_name="y")


def seen(folder: Path, what: str) -> set[str]:
    return {file.name for file in folder.glob(f"{what}-*")}


def all_left(folder: Path) -> bool:
    """Whether every item that began was left. One may be stopped before it leaves a file to say that it began."""
    began, left = ({name.partition("-")[2] for name in seen(folder, what)} for what in ("began", "left"))
    return began <= left


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


LOOP = "deadline = time.monotonic() + 300\n        while time.monotonic() < deadline: time.sleep(0.01)"


def break_off(pipeline: Pipeline, folder: Path, count: int = 2) -> None:
    """Start a map, and interrupt it from another thread when `count` items have begun."""
    stream = pipeline.map_iter(rows(50))

    def interrupt() -> None:
        until(lambda: len(seen(folder, "began")) >= count, "items to begin")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    thread.join()


def test_interrupt_stops_python_code_on_workers_in_order(backend: DaskBackend, tmp_path: Path) -> None:
    pipeline = Pipeline(nodes=[marking(tmp_path, LOOP)], backend=backend)
    break_off(pipeline, tmp_path)
    began = seen(tmp_path, "began")
    until(lambda: all_left(tmp_path), "the nodes to leave")
    assert not seen(tmp_path, "ended")
    assert seen(tmp_path, "began") == began
    quick = Pipeline(nodes=[node(lambda x: x + 1, output_name="y")], backend=backend)
    assert quick.map(rows(5), output_name="y") == [1, 2, 3, 4, 5]


def test_interrupt_cancels_coroutines_on_workers_in_order(backend: DaskBackend, tmp_path: Path) -> None:
    process = Pipeline(nodes=[node(lambda x: os.getpid(), output_name="y")], backend=backend)
    workers = workers_of(backend)
    waiting = marking(tmp_path, "await asyncio.sleep(300)", head="import asyncio, os, time\nasync def work(x):")
    break_off(Pipeline(nodes=[waiting], backend=backend), tmp_path)
    until(lambda: all_left(tmp_path), "the nodes to leave")
    assert not seen(tmp_path, "ended")
    assert set(process.map(rows(20), output_name="y")) <= workers  # none had to be ended


def test_interrupt_ends_workers_of_its_own_that_do_not_come_back(
    backend: DaskBackend, tmp_path: Path, cluster: LocalCluster
) -> None:
    pipeline = Pipeline(nodes=[marking(tmp_path, "time.sleep(300)")], backend=backend)
    break_off(pipeline, tmp_path)
    process = Pipeline(nodes=[node(lambda x: os.getpid(), output_name="y")], backend=backend)
    assert len(process.map(rows(5), output_name="y")) == 5  # the workers that slept are others now
    assert not seen(tmp_path, "ended")


def test_closed_stream_leaves_nothing_running(backend: DaskBackend, tmp_path: Path) -> None:
    @node(output_name="z")
    def first_is_quick(x: int) -> int:
        return x

    slow = marking(tmp_path, f"if x:\n            {LOOP.replace(chr(10), chr(10) + '    ')}\n        pass")
    stream = Pipeline(nodes=[first_is_quick, slow], backend=backend).map_iter(rows(50), output_name="y")
    assert next(stream) == 0
    until(lambda: len(seen(tmp_path, "began")) > 1, "another item to begin")
    stream.close()
    until(lambda: all_left(tmp_path), "it to leave")
    assert seen(tmp_path, "ended") == {"ended-0"}


def test_failure_takes_back_what_comes_after_it(backend: DaskBackend, tmp_path: Path) -> None:
    slow = marking(tmp_path, f"if x == 0: raise ValueError('no 0')\n        {LOOP}")
    with pytest.raises(ValueError, match="no 0"):
        Pipeline(nodes=[slow], backend=backend).map(rows(50))
    until(lambda: all_left(tmp_path), "the others to leave")
    assert not seen(tmp_path, "ended")


# programs ------------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, time
from hypernodes import DaskBackend, Pipeline, node

@node(output_name="y")
def wait(x):
    open(os.path.join({folder!r}, f"began-{{os.getpid()}}"), "w").close()
    {body}
    return x

found = Pipeline(nodes=[wait], backend=DaskBackend(workers=2)).map([{{"x": x}} for x in range(20)], output_name="y")
print(found)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a script without a main guard, whose nodes do what is given."""
    started: list[subprocess.Popen[str]] = []

    def start(body: str) -> subprocess.Popen[str]:
        script = tmp_path / "script.py"
        script.write_text(PROGRAM.format(folder=str(tmp_path), body=body))
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        started.append(subprocess.Popen([sys.executable, "-W", "error", str(script)], env=environment, **pipes))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def workers_began(folder: Path) -> list[int]:
    return [int(name.partition("-")[2]) for name in seen(folder, "began")]


def gone(pids: list[int]) -> bool:
    """Whether these processes have ended, but perhaps for being waited for."""
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True


def test_script_needs_no_main_guard_and_ends_in_silence(program: Callable[[str], Any], tmp_path: Path) -> None:
    out, err = program("pass").communicate(timeout=120)
    assert out.splitlines() == [str(list(range(20)))]
    assert err == ""
    until(lambda: gone(workers_began(tmp_path)), "the workers to end")


def test_ctrl_c_ends_the_program_and_its_cluster(program: Callable[[str], Any], tmp_path: Path) -> None:
    running = program("time.sleep(300)")
    until(lambda: len(seen(tmp_path, "began")) == 2, "both workers to begin")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "KeyboardInterrupt" in err.splitlines()[-1]
    until(lambda: gone(workers_began(tmp_path)), "the workers to end")


def test_killed_program_takes_its_cluster_along(program: Callable[[str], Any], tmp_path: Path) -> None:
    running = program("time.sleep(300)")
    until(lambda: len(seen(tmp_path, "began")) == 2, "both workers to begin")
    running.kill()
    until(lambda: gone(workers_began(tmp_path)), "the workers to end")
    until(lambda: not list(tmp_path.glob("hypernodes-dask-*")), "its folder to go")


def test_nothing_of_a_local_cluster_listens_beyond_this_machine(tmp_path: Path) -> None:
    with DaskBackend(workers=1) as backend:
        Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=backend).run(x=1)
        listening = [
            connection.laddr.ip
            for process in (psutil.Process(), *psutil.Process().children(recursive=True))
            for connection in _connections(process)
            if connection.status == psutil.CONN_LISTEN
        ]
    assert listening
    assert {ip for ip in listening if not ip.startswith("127.")} == set()


def _connections(process: psutil.Process) -> list[Any]:
    try:
        found: list[Any] = process.net_connections("inet")
    except psutil.Error:
        return []
    return found
