"""Clusters that are started, found, shared, refused and left: what users meet before anything runs."""

from __future__ import annotations

import os
import runpy
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray_support import PATIENCE, wait_for

from hypernodes import LocalBackend, Pipeline, PlaceError, RayBackend, node

Run = Callable[..., "subprocess.Popen[str]"]

without_agent = runpy.run_path(str(Path(__file__).with_name("head.py")))["without_agent"]


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """Something that listens on a port, is no cluster, and answers with this, or with nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            with server.accept()[0] as caller:
                caller.recv(100)
                caller.sendall(answer or b"")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def pipeline(backend: Any) -> Pipeline:
    return Pipeline(nodes=[node(lambda x: x + 1, output_name="y")], backend=backend)


# what is wrong at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "10.0.0.1", "http://10.0.0.1:8265", "ray://", "ray://host", "host:port", "host:70000", 6379]
)
def test_address_of_no_form_that_there_is_is_refused_when_the_backend_is_made(address: Any) -> None:
    with pytest.raises(ValueError, match="RayBackend: address=") as caught:
        RayBackend(address)
    assert repr(address) in str(caught.value)
    assert "'ray://host:port'" in str(caught.value)


def test_size_of_a_cluster_that_is_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_gpus=1 sizes a cluster that is started here, and address='auto'"):
        RayBackend("auto", num_gpus=1)
    with pytest.raises(ValueError, match=r"num_cpus=-1; give a whole number"):
        RayBackend(num_cpus=-1)
    with pytest.raises(ValueError, match=r"processes=0; give a whole number"):
        RayBackend(engine="threaded", processes=0)


def test_local_backend_refuses_the_engine_and_names_the_backend_that_can() -> None:
    with pytest.raises(ValueError, match=r"LocalBackend cannot run engine 'ray'.*backends that can: .*ray"):
        LocalBackend(engine="ray")


def test_dead_address_is_an_error_within_seconds() -> None:
    address = f"127.0.0.1:{free_port()}"
    for given in (address, f"ray://{address}"):
        started = time.monotonic()
        with pytest.raises(PlaceError) as caught:
            pipeline(RayBackend(given)).run(x=1)
        # Seconds of a busy machine's own, rather than the two minutes after which Ray ends the program.
        assert time.monotonic() - started < 60
        assert str(caught.value).startswith(
            f"RayBackend cannot reach a Ray cluster at '{given}': connection refused; start a cluster there"
        )


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None], ids=["another service", "nothing"])
def test_something_else_at_the_address_is_told_from_a_cluster(answer: bytes | None) -> None:
    with (
        listening(answer) as port,
        pytest.raises(PlaceError, match=f"found something at '127.0.0.1:{port}' that does not speak as Ray does"),
    ):
        pipeline(RayBackend(f"127.0.0.1:{port}")).run(x=1)


# connections --------------------------------------------------------------------------------------------------------


OWN = """
import os, subprocess, sys
from hypernodes import Pipeline, RayBackend, node

add = node(lambda x: x + 1, output_name="y")
with RayBackend(num_cpus=1, log_to_driver=False) as backend:
    print(Pipeline(nodes=[add], backend=backend).map([{"x": x} for x in range(100)], output_name="y")[-1])
    import ray
    print(ray.get_runtime_context().gcs_address, os.getpid())
    print(RayBackend(num_cpus=1, log_to_driver=False, max_workers=1) == backend)
    print("ready", flush=True)
    sys.stdin.readline()
print(ray.is_initialized())
print("over", flush=True)
sys.stdin.readline()
"""


def family(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have."""
    found, todo = set[int](), [pid]
    while todo:
        parent = todo.pop()
        for name in os.listdir("/proc"):
            if name.isdecimal() and parent_of(int(name)) == parent and int(name) not in found:
                found.add(int(name))
                todo.append(int(name))
    return found


def parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] == b"Z" else int(fields[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_of_ray(pid: int) -> bool:
    """Whether it is a living part of a cluster: the raylet, the head's server, a worker."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().partition(b"\0")[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return parent_of(pid) is not None and command.startswith(b"ray::") | command.endswith((b"raylet", b"gcs_server"))


def sockets_of(pids: set[int]) -> set[str]:
    """The addresses on which processes listen, as /proc/net has them."""
    inodes = set()
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    found.add(fields[1].partition(":")[0])
    return found


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] == word:
            return lines
    raise AssertionError(f"it ended without {word!r}: {lines} {process.stderr.read() if process.stderr else ''}")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("RAY_OWN_CLUSTER") != "1",
    reason="Ray gives up a cluster that takes too long to start on a busy machine; run it with RAY_OWN_CLUSTER=1",
)
def test_own_cluster_stays_on_the_loopback_interface_and_ends_with_the_block(run_script: Run) -> None:
    node = secrets.token_hex(28)
    folder = tempfile.mkdtemp(prefix="hnr", dir="/tmp")
    own = {"RAY_TMPDIR": folder, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node}
    with without_agent(node, folder):
        script = run_script(OWN, RAY_ADDRESS="", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="", **own)
        lines = read_until(script, "ready")
    assert lines[0] == "100"
    assert lines[1].startswith("127.0.0.1:")
    helpers = family(script.pid)
    assert helpers
    # 127.0.0.1, and the same as an address of the sixth version
    assert sockets_of(helpers | {script.pid}) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert script.stdin is not None
    script.stdin.write("\n")
    script.stdin.flush()
    assert read_until(script, "over") == ["False", "over"]
    wait_for(lambda: not any(is_of_ray(pid) for pid in helpers))
    script.stdin.write("\n")
    script.stdin.flush()
    assert script.wait(PATIENCE) == 0
    # Ray has a small process that watches over the program, to its end.
    wait_for(lambda: not any(parent_of(pid) for pid in helpers))
    shutil.rmtree(folder)


INTERRUPTED = """
import os, signal, sys, time
from hypernodes import Pipeline, RayBackend, node

folder = sys.argv[1] if len(sys.argv) > 1 else os.environ["MARKS"]

@node(output_name="y")
def work(x):
    open(f"{folder}/pid{x}.part", "w").write(str(os.getpid()))
    os.rename(f"{folder}/pid{x}.part", f"{folder}/pid{x}")
    time.sleep(600)

Pipeline(nodes=[work], backend=RayBackend(os.environ["ADDRESS"], log_to_driver=False, max_workers=2)).map(
    [{"x": x} for x in range(10)]
)
"""


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_leaves_no_work_running(run_script: Run, tmp_path: Any) -> None:
    script = run_script(INTERRUPTED, MARKS=str(tmp_path))
    wait_for(lambda: (tmp_path / "pid0").exists() or script.poll() is not None)
    pid = int((tmp_path / "pid0").read_text())
    script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=PATIENCE)
    assert script.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_for(lambda: parent_of(pid) is None)


WRONG_TOKEN = """
import os
from hypernodes import Pipeline, PlaceError, RayBackend, node
try:
    Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=RayBackend(os.environ["ADDRESS"])).run(x=1)
except PlaceError as error:
    print(error)
"""


@pytest.mark.long
@pytest.mark.slow
def test_wrong_token_is_told_with_what_to_set_and_never_shown(run_script: Run, head: Any) -> None:
    import ray

    if tuple(map(int, ray.__version__.split(".")[:2])) < (2, 52):
        pytest.skip("this release of Ray knows no tokens")
    script = run_script(WRONG_TOKEN, RAY_AUTH_TOKEN="0" * 64)
    said, errors = script.communicate(timeout=PATIENCE)
    assert f"the Ray cluster at '{head.address}' answers, but Ray could not connect: " in said
    assert "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" in said
    assert head.environment["RAY_AUTH_TOKEN"] not in said + errors
    assert "0" * 64 not in said + errors


MINE = """
def triple(x):
    return 3 * x

class Boxed:
    def __init__(self, value):
        self.value = value
"""
CLIENT = """
import os
import mine
from hypernodes import Pipeline, RayBackend, node, resource

@resource
def table():
    return {"by": 2}

@node(output_name="boxed")
def box(x, table):
    return mine.Boxed(mine.triple(x) * table["by"])

check = node(lambda boxed: 1 // (boxed.value - 6), output_name="checked", name="check")
@node(output_name="later")
async def later(x):
    return mine.triple(x)

pipeline = Pipeline(nodes=[box, check, table], name="main")
with RayBackend(os.environ["CLIENT"], log_to_driver=False) as backend:
    found = pipeline.with_backend(backend).map([{"x": x} for x in range(30)], on_error="return")
    print(sum(Pipeline(nodes=[later], backend=backend).map([{"x": x} for x in range(30)], output_name="later")))
print(found[2]["boxed"].value, isinstance(found[2]["boxed"], mine.Boxed), found[1].type_name, found[1].place)
"""


@pytest.mark.long
@pytest.mark.slow
def test_modules_of_the_user_are_found_behind_rays_client(run_script: Run, tmp_path: Any, head: Any) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    said, errors = run_script(CLIENT, CLIENT=head.client).communicate(timeout=PATIENCE)
    assert said.split() == ["1305", "12", "True", "ZeroDivisionError", "ray:ray"], errors


def test_what_stops_the_thread_stops_the_start_of_a_cluster_and_it_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stopped(BaseException):
        """As a container's library raises it in a thread whose work nobody wants any more."""

    tries: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        tries.append(options)
        raise Stopped

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(Stopped):
        Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=RayBackend()).run(x=1)
    assert len(tries) == 1


@pytest.mark.long
@pytest.mark.slow
def test_program_of_the_docs_runs(run_script: Run) -> None:
    page = (Path(__file__).parents[3] / "docs" / "ray.md").read_text(encoding="utf-8")
    program = page.partition('title="squares.py"\n')[2].partition("```")[0]
    said, errors = run_script(program, RAY_ADDRESS="auto").communicate(timeout=PATIENCE)
    assert said.splitlines()[-1:] == ["12² = 144"], errors


INSIDE = """
import os, threading
from hypernodes import Pipeline, RayBackend, node

where = node(lambda x: (os.getpid(), threading.current_thread().name.startswith("Main")), output_name="where")
for engine in ("threaded", "multiprocess"):
    with RayBackend(os.environ["ADDRESS"], engine=engine, processes=1, max_workers=2, log_to_driver=False) as backend:
        found = Pipeline(nodes=[where], backend=backend).map([{"x": x} for x in range(20)], output_name="where")
    print(engine, os.getpid() in {pid for pid, _ in found}, len(found), {main for _, main in found})
"""


@pytest.mark.long
@pytest.mark.slow
def test_other_engines_run_inside_the_workers(run_script: Run) -> None:
    said, errors = run_script(INSIDE).communicate(timeout=PATIENCE)
    lines = said.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        f"{engine} False 20" for engine in ("threaded", "multiprocess")
    ], errors
    assert lines[0].endswith("{False}")
