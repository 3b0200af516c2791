"""A control plane comes and goes whole: no process, thread, file or link stays, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
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
    volume = modal.Volume.from_name("kept", create_if_missing=True)
    function = app.function(serialized=True, name="wait", volumes={os.environ["MOUNTED"]: volume})(wait)
    with app.run():
        function.spawn()
        local.wait(lambda: any(one.running for one in local.containers))
        print(*(one.pid for one in local.containers), flush=True)
        threading.Event().wait()
"""

SCRIPT = """
import modal
from hypernodes_modal.testing import LocalModal

app = modal.App("script")

@app.function()
def add(a, b):
    return a + b

with LocalModal() as local, local.use():
    with app.run():
        print(add.remote(1, 2))
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
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
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
def test_what_a_killed_program_leaves_goes_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its containers at once, its files when the next control plane starts."""
    (temporary := tmp_path / "tmp").mkdir()
    mounted = tmp_path / "deep" / "mounted"
    environment = os.environ | {"TMPDIR": str(temporary), "MOUNTED": str(mounted)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        try:
            assert program.stdout is not None
            pid = int(program.stdout.readline())
            assert alive(pid)
        finally:
            program.kill()
    until(lambda: not alive(pid), "the container outlived what started it")
    assert mounted.is_symlink()
    assert len(list(temporary.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with LocalModal():
        assert len(list(temporary.iterdir())) == 1
        assert not (tmp_path / "deep").exists()
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_an_app_whose_client_is_gone_stops() -> None:
    with LocalModal(client_timeout=2.0) as local:
        program = "import modal, os\nwith modal.App('orphan').run(): os._exit(0)"
        subprocess.run([sys.executable, "-c", program], env=os.environ | local.environ, timeout=120)
        [app] = local.apps
        until(lambda: app.state == "stopped", "the app outlived its client")


def test_a_control_plane_that_lives_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LocalModal():
        [first] = tmp_path.iterdir()
        with LocalModal():
            assert first.exists()
        assert list(tmp_path.iterdir()) == [first]


def test_it_can_be_started_once() -> None:
    with LocalModal() as local, pytest.raises(RuntimeError, match="started already"):
        local.start()


@pytest.mark.slow
def test_a_script_that_starts_it_again_in_its_container_is_told_so(tmp_path: Path) -> None:
    """The container imports the script, to find the function in it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "start it under `if __name__ == '__main__':`" in done.stderr, done.stderr


def test_it_must_be_started() -> None:
    with pytest.raises(RuntimeError, match="with LocalModal"):
        LocalModal().containers  # noqa: B018


def test_it_needs_room_for_a_container() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        LocalModal(capacity=0)


def test_a_share_of_crashes_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"crashes is 30: give the share of the faults that are crashes, from 0 to 1"):
        LocalModal().harm(crashes=30)


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

    (home := tmp_path / "home").mkdir()
    links, source = Links(home), tmp_path / "source"
    source.mkdir()
    links.place(tmp_path / "deep" / "mounted", source, "ta-1")
    assert (tmp_path / "deep" / "mounted").resolve() == source
    with pytest.raises(ValueError, match="two things"):
        links.place(tmp_path / "deep" / "mounted", tmp_path, "ta-2")
    links.release("ta-1")
    links.place(tmp_path / "deep" / "mounted", tmp_path, "ta-2")
    links.shut()
    assert not (tmp_path / "deep").exists()
