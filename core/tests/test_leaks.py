"""Every detector of the leak watch catches a planted leak, and is silent once the leak is mended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from hypernodes.testing._leaks import TAG, LeakWatch

pytest_plugins = "pytester"


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeakWatch]:
    watch = LeakWatch(tmp_path)
    monkeypatch.setenv(TAG, watch.tag)
    yield watch
    assert watch.leaks() == [], "the test of a leak did not mend it"


def left(watch: LeakWatch) -> list[str]:
    """What is left but shared memory, which on a shared machine neighbours make and drop all the time."""
    return [one for one in watch.leaks(grace=0.05) if not one.startswith("shared memory:")]


def kinds(watch: LeakWatch) -> set[str]:
    return {one.partition(":")[0] for one in left(watch)}


def test_nothing_left_is_nothing_reported(watch: LeakWatch) -> None:
    assert left(watch) == []


def test_thread_is_caught_by_name(watch: LeakWatch) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="forgotten")
    thread.start()
    found = left(watch)
    stop.set()
    thread.join()
    assert found == ["thread: forgotten"]


def test_thread_that_ends_within_the_grace_is_no_leak(watch: LeakWatch) -> None:
    stop = threading.Event()
    threading.Thread(target=stop.wait).start()
    stop.set()
    assert not [one for one in watch.leaks(grace=5) if one.startswith("thread:")]


def test_child_process_is_caught_with_its_command(watch: LeakWatch) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # just after exec() a process has no command line yet
    found = [one for one in watch.leaks(grace=0.05) if one.startswith("process:")]
    child.communicate(b"\n")
    assert len(found) == 1
    assert "input()" in found[0]


def test_orphan_is_caught_by_its_tag(watch: LeakWatch) -> None:
    # The parent ends at once, so that the child belongs to another process; it says that it runs, and then waits for
    # our pipe's end. Just after exec() a process has no environment yet.
    (read, write), (reply, say) = os.pipe(), os.pipe()
    child = f"import os; os.write({say}, b'x'); os.read({read}, 1)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], pass_fds=[{read}, {say}])"
    subprocess.run([sys.executable, "-c", script], pass_fds=[read, say], check=True)
    os.close(read)
    os.close(say)
    assert os.read(reply, 1) == b"x"
    os.close(reply)
    found = kinds(watch)
    os.close(write)
    assert "process" in found


def test_descriptor_is_caught(watch: LeakWatch) -> None:
    read, write = os.pipe()
    found = kinds(watch)
    os.close(read)
    os.close(write)
    assert found == {"descriptor"}


def test_shared_memory_is_caught(watch: LeakWatch) -> None:
    segment = shared_memory.SharedMemory(create=True, size=16)
    found = watch.leaks(grace=0.05)
    segment.unlink()  # first: what no process has mapped any more would be blamed on a test that runs beside this one
    segment.close()
    assert f"shared memory: {segment.name}" in found


@pytest.mark.parametrize("linked", [False, True], ids=["by its name", "linked like a semaphore"])
def test_shared_memory_of_a_neighbour_is_not_blamed_on_the_test(watch: LeakWatch, linked: bool) -> None:
    # A grandchild without the tag whose parent has ended: no relation of ours any more.
    name = f"/dev/shm/neighbour-{watch.tag}"
    neighbour = f"""
import mmap, os
first = "/dev/shm/passing-{watch.tag}" if {linked} else {name!r}
with open(first, "w+b") as file:
    file.truncate(16)
    memory = mmap.mmap(file.fileno(), 16)
if {linked}:
    os.link(first, {name!r})
    os.unlink(first)
os.write(1, b"ready")
os.read(0, 1)
os.unlink({name!r})
os.write(1, b"gone")
"""
    start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
    (stdin, hold), (reply, stdout) = os.pipe(), os.pipe()
    clean = {key: value for key, value in os.environ.items() if key != TAG}
    subprocess.run([sys.executable, "-c", start, neighbour], stdin=stdin, stdout=stdout, env=clean, check=True)
    os.close(stdin)
    os.close(stdout)
    assert os.read(reply, 5) == b"ready"
    found = watch.leaks(grace=0)
    os.close(hold)
    assert os.read(reply, 5) == b"gone"
    os.close(reply)
    assert not any(os.path.basename(name) in one for one in found)


def test_directory_beside_shared_memory_is_not_blamed_on_the_test(watch: LeakWatch) -> None:
    name = f"directory-{watch.tag}"
    os.mkdir(f"/dev/shm/{name}")
    found = watch.leaks(grace=0)
    os.rmdir(f"/dev/shm/{name}")
    assert f"shared memory: {name}" not in found


def test_temporary_file_is_caught(watch: LeakWatch, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "spill.bin").write_bytes(b"x")
    found = left(watch)
    (tmp_path / "folder" / "spill.bin").unlink()
    (tmp_path / "folder").rmdir()
    assert found == ["file: folder", "file: folder/spill.bin"]


def test_open_event_loop_is_caught(watch: LeakWatch) -> None:
    loop = asyncio.new_event_loop()
    found = kinds(watch)
    loop.close()
    assert found >= {"loop", "descriptor"}


def test_loop_that_still_counts_as_running_is_caught(watch: LeakWatch) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    asyncio._set_running_loop(loop)
    found = kinds(watch)
    asyncio._set_running_loop(None)
    assert found == {"loop"}


def test_what_is_allowed_is_not_reported(watch: LeakWatch) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="warm-1")
    thread.start()
    watch.allow("thread", "warm-*")
    found = left(watch)
    stop.set()
    thread.join()
    assert found == []


def test_unknown_kind_is_refused_with_the_kinds(watch: LeakWatch) -> None:
    with pytest.raises(ValueError, match="unknown kind of leak 'threads'; the kinds are thread, process"):
        watch.allow("threads", "*")


@pytest.mark.slow
def test_fixture_fails_the_test_that_leaks_and_only_that(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, tempfile, pytest
        from hypernodes.testing import no_leaks

        @pytest.fixture(autouse=True)
        def clean(no_leaks):
            no_leaks.allow("shared memory", "*")  # neighbours come and go on a shared machine

        def test_clean(tmp_path):
            (tmp_path / "kept").write_text("a test's own directory is its own business")

        def test_file():
            tempfile.mkstemp()

        def test_after():
            with tempfile.TemporaryFile():
                pass
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_file*", "*the test left behind:", "*descriptor: *", "*file: *"]
    )


@pytest.mark.slow
def test_contract_allows_what_it_names_and_no_more(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import threading
        from hypernodes.testing._promises import Promises

        RELEASE = threading.Event()

        class TestKept(Promises):
            allowed_leaks = (("shared memory", "*"), ("thread", "*kept*"))

            def test_kept(self, no_leaks):
                threading.Thread(target=RELEASE.wait, name="kept", daemon=True).start()

            def test_lost(self, no_leaks):
                threading.Thread(target=RELEASE.wait, name="lost", daemon=True).start()
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=3, errors=1)  # the promise that none is dropped is inherited
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of TestKept.test_lost*", "*the test left behind:", "*thread: *lost*"]
    )
