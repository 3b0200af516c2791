"""A control plane comes and goes whole: no process, thread, file or link stays, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes_modal.testing import LocalModal

PROGRAM = """
import os, sys, threading
import modal
from hypernodes_modal.testing import LocalModal

def wait():
    import os, time
    print("pid", os.getpid(), flush=True)
    time.sleep(600)

with LocalModal() as local, local.use():
    app = modal.App("abandoned")
    function = app.function(serialized=True, name="wait")(wait)
    with app.run():
        function.spawn()
        local.wait(lambda: any(one.running for one in local.containers))
        print(*(one.pid for one in local.containers), flush=True)
        threading.Event().wait()
"""


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_starting_and_stopping_leaves_nothing(no_leaks: Any) -> None:
    with LocalModal() as local:
        assert local.url.startswith("http://127.0.0.1:")
        assert local.containers == []


@pytest.mark.slow
def test_containers_end_with_the_plane(no_leaks: Any) -> None:
    no_leaks.allow("thread", "*thread_inner*")  # the client keeps its thread and loop until the program ends
    no_leaks.allow("loop", "*")
    no_leaks.allow("descriptor", "*")

    def inside() -> int:
        import os

        return os.getpid()

    with LocalModal() as local, local.use():
        app = modal.App("ending")
        function = app.function(serialized=True, name="pid")(inside)
        with app.run():
            pid = function.remote()
            assert alive(pid)
    assert not alive(pid)
    assert all(container.state == "gone" for container in local.containers)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_containers_end_when_the_program_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            pid = int(program.stdout.readline())
            assert alive(pid)
        finally:
            program.kill()
    until(lambda: not alive(pid), "the container outlived what started it")


@pytest.mark.slow
def test_an_app_whose_client_is_gone_stops() -> None:
    with LocalModal(client_timeout=5.0) as local:
        program = "import modal, os\nwith modal.App('orphan').run(): os._exit(0)"
        subprocess.run([sys.executable, "-c", program], env=os.environ | local.environ, check=True, timeout=120)
        [app] = local.apps
        until(lambda: app.state == "stopped", "the app outlived its client")


def test_it_can_be_started_once() -> None:
    with LocalModal() as local, pytest.raises(RuntimeError, match="started already"):
        local.start()


def test_it_must_be_started() -> None:
    with pytest.raises(RuntimeError, match="with LocalModal"):
        LocalModal().containers  # noqa: B018


def test_it_needs_room_for_a_container() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        LocalModal(capacity=0)


def test_waiting_in_vain_says_so() -> None:
    with LocalModal() as local, pytest.raises(TimeoutError, match=r"0\.01 s in vain"):
        local.wait(lambda: False, timeout=0.01)


def test_what_it_does_not_serve_is_counted() -> None:
    with LocalModal() as local, local.use():
        with pytest.raises(modal.exception.Error, match="LocalModal does not serve SecretList"):
            modal.Secret.objects.list()
        assert local.unimplemented == {"SecretList": 1}


def test_its_variables_are_set_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODAL_TOKEN_ID", raising=False)
    monkeypatch.setenv("MODAL_SERVER_URL", "http://127.0.0.1:9")
    with LocalModal() as local, local.use():
        assert os.environ["MODAL_SERVER_URL"] == local.url
        assert os.environ["MODAL_TOKEN_ID"] == local.token[0]
    assert os.environ["MODAL_SERVER_URL"] == "http://127.0.0.1:9"
    assert "MODAL_TOKEN_ID" not in os.environ


@pytest.mark.slow
def test_it_runs_from_the_command_line_and_says_what_to_export(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hypernodes_modal.testing"]
    client = "import modal; modal.App.lookup('mine', create_if_missing=True); print('found')"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout is not None
            lines = [served.stdout.readline() for _ in range(6)]
            exported = "".join(lines) + f"{sys.executable} -c {client!r}\n"
            done = subprocess.run(["sh", "-c", exported], capture_output=True, text=True, timeout=120)
            assert done.stdout == "found\n", done.stderr
        finally:
            served.send_signal(signal.SIGINT)
        assert served.wait(timeout=60) == 0


def test_the_path_of_a_volume_is_free_again(tmp_path: Path) -> None:
    from hypernodes_modal.testing._links import Links

    links, source = Links(), tmp_path / "source"
    source.mkdir()
    links.place(tmp_path / "deep" / "mounted", source, "ta-1")
    assert (tmp_path / "deep" / "mounted").resolve() == source
    with pytest.raises(ValueError, match="two things"):
        links.place(tmp_path / "deep" / "mounted", tmp_path, "ta-2")
    links.release("ta-1")
    links.place(tmp_path / "deep" / "mounted", tmp_path, "ta-2")
    links.shut()
    assert not (tmp_path / "deep").exists()
