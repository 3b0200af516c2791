"""What a worker's exit functions are promised: they run however the worker ends, unless it cannot get to them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from pool_support import call, eventually, tagged, value
from test_pool_lifetime import SCRIPT

from hypernodes import LocalBackend, Pipeline, node
from hypernodes_local_multiprocess import _ending

BUSY = [
    "sleep",
    "spin",
    "stuck_in_c",
    "wait_for_lock",
    "wait_for_thread",
    "wait_for_loop",
    "catch_exceptions",
    "swallow_and_return",
    "swallow_and_raise",
]
PATIENT_SCRIPT = "from hypernodes_local_multiprocess import _ending\n_ending.GRACE = 60.0\n" + SCRIPT
STUBBORN = ["swallow_everything", "wait_in_finally"]
"""Those that are not unwound: exit functions run on top of them when they are asked once more."""


@pytest.fixture
def patience(monkeypatch):
    """A grace that no machine is too slow for, for workers that do end when they are asked."""
    monkeypatch.setattr(_ending, "GRACE", 60.0)


@pytest.fixture
def some_patience(monkeypatch):
    """A grace that has to pass, for workers that do not end when asked, and is not missed by a slow machine."""
    monkeypatch.setattr(_ending, "GRACE", 5.0)


def begin(pool, tmp_path, what):
    """Let a worker register an exit function and begin what does not end; its future, and what the function writes."""
    farewell, begun = tmp_path / f"{what}-farewell", tmp_path / f"{what}-begun"
    future = call(pool, "remember_then", str(farewell), str(begun), what)
    eventually(begun.exists)
    return future, farewell


@pytest.mark.parametrize("busy", [*BUSY, *STUBBORN])
def test_stopped_workers_run_their_exit_functions(make_pool, tmp_path, tag, patience, busy):
    pool = make_pool()
    future, farewell = begin(pool, tmp_path, busy)
    pool.shutdown(kill=True)
    assert farewell.read_text() == "goodbye"
    assert future.done() and tagged(tag) == []


def test_all_workers_run_them_at_the_same_time(make_pool, tmp_path, tag, patience):
    pool = make_pool(4)
    farewells = [begin(pool, tmp_path, busy)[1] for busy in (*STUBBORN, "sleep", "spin")]
    pool.shutdown(kill=True)
    assert [farewell.read_text() for farewell in farewells] == ["goodbye"] * 4


def test_idle_workers_run_their_exit_functions_when_they_are_stopped(make_pool, tmp_path, patience):
    pool = make_pool(1)
    value(call(pool, "remember_to_write", str(tmp_path / "farewell")))
    pool.shutdown(kill=True)
    assert (tmp_path / "farewell").read_text() == "goodbye"


def test_a_worker_that_does_not_come_back_from_c_is_killed(make_pool, tmp_path, tag, some_patience):
    pool = make_pool(2)
    _, stuck = begin(pool, tmp_path, "never_back_from_c")
    _, other = begin(pool, tmp_path, "sleep")
    pool.shutdown(kill=True)
    assert not stuck.exists() and other.read_text() == "goodbye"
    assert tagged(tag) == []


def test_an_exit_function_that_takes_too_long_is_killed_with_its_worker(make_pool, tmp_path, tag, some_patience):
    pool = make_pool(1)
    value(call(pool, "remember_to_wait", str(tmp_path / "begun"), str(tmp_path / "farewell")))
    pool.shutdown(kill=True)
    assert (tmp_path / "begun").exists() and not (tmp_path / "farewell").exists()
    assert tagged(tag) == []


@pytest.mark.slow
def test_an_exit_function_that_takes_too_long_does_not_hold_up_an_ordinary_end(make_pool, tmp_path, tag):
    pool = make_pool(1)
    value(call(pool, "remember_to_wait", str(tmp_path / "begun"), str(tmp_path / "farewell")))
    pool.shutdown()
    assert (tmp_path / "begun").exists() and not (tmp_path / "farewell").exists()
    assert tagged(tag) == []


def test_a_tainted_worker_runs_its_exit_functions(make_pool, tmp_path):
    pool = make_pool(1)
    value(call(pool, "remember_to_write", str(tmp_path / "farewell")))
    value(call(pool, "taint"))
    eventually(lambda: (tmp_path / "farewell").exists() and (tmp_path / "farewell").read_text() == "goodbye")


def test_what_is_finalized_at_exit_is_finalized(make_pool):
    pool = make_pool(1)
    folder = Path(value(call(pool, "keep_a_folder")))
    assert folder.exists()
    pool.shutdown()
    assert not folder.exists()


def test_sigterm_from_elsewhere_lets_exit_functions_run_and_is_told_as_what_it_is(make_pool, tmp_path):
    from hypernodes import WorkerLostError

    pool = make_pool(1)
    future, farewell = begin(pool, tmp_path, "sleep")
    os.kill(pool.pids[0], signal.SIGTERM)
    with pytest.raises(WorkerLostError, match=r"was killed by signal 15 \(SIGTERM\) while it ran this call"):
        future.result(20)
    assert farewell.read_text() == "goodbye"
    assert value(call(pool, "double", 1)) == 2


def test_a_process_that_user_code_forks_ends_by_sigterm_as_any_other(make_pool):
    assert value(call(make_pool(1), "sigterm_in_a_copy")) == -signal.SIGTERM


def test_a_stream_that_is_closed_lets_exit_functions_run(tmp_path, patience):
    farewell = str(tmp_path / "farewell")

    @node(output_name="y")
    def build(x: int) -> int:
        import atexit
        import time
        from pathlib import Path

        atexit.register(Path(farewell).write_text, "goodbye")
        if x:
            time.sleep(300)
        return x

    with LocalBackend(engine="multiprocess", max_workers=1) as backend:
        results = Pipeline([build], backend=backend).map_iter([{"x": 0}, {"x": 1}], output_name="y")
        assert next(results) == 0
        results.close()
        assert Path(farewell).read_text() == "goodbye"


def script_with(tmp_path, busy, then):
    farewell, begun = tmp_path / "farewell", tmp_path / "begun"
    source = PATIENT_SCRIPT + f"ask('remember_then', {str(farewell)!r}, {str(begun)!r}, {busy!r})\n" + then
    return source, farewell, begun


@pytest.mark.parametrize("busy", ["pid", "sleep", "spin"])
def test_exit_functions_run_when_the_program_ends(run_script, tmp_path, tag, busy):
    waiting = "import os, time\nwhile not os.path.exists({!r}): time.sleep(0.002)\n"
    source, farewell, _ = script_with(tmp_path, busy, waiting.format(str(tmp_path / "begun")))
    script = run_script(source)
    assert script.communicate(timeout=20) == ("", "")
    assert farewell.read_text() == "goodbye" and tagged(tag) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", ["pid", "sleep"])
def test_exit_functions_run_when_the_program_is_killed(run_script, tmp_path, tag, how, busy):
    source, farewell, begun = script_with(tmp_path, busy, "pool._manager.wait()")
    script = run_script(source)
    eventually(begun.exists)
    script.send_signal(how)
    script.wait(20)
    eventually(lambda: tagged(tag) == [])
    assert farewell.read_text() == "goodbye"


def test_exit_functions_run_when_sigterm_reaches_all_processes(run_script, tmp_path, tag):
    source, farewell, begun = script_with(tmp_path, "sleep", "pool._manager.wait()")
    script = run_script(source)
    eventually(begun.exists)
    for pid in tagged(tag):
        with contextlib.suppress(ProcessLookupError):  # those told first may have ended others by now
            os.kill(pid, signal.SIGTERM)
    script.wait(20)
    eventually(lambda: tagged(tag) == [])
    assert farewell.read_text() == "goodbye"


def test_ctrl_c_lets_exit_functions_run(run_script, tmp_path, tag):
    source, farewell, begun = script_with(
        tmp_path,
        "sleep",
        "try: pool._manager.wait()\nexcept KeyboardInterrupt: pool.shutdown(kill=True); print('stopped')",
    )
    script = run_script(source)
    eventually(begun.exists)
    script.send_signal(signal.SIGINT)
    assert script.communicate(timeout=20) == ("stopped\n", "")
    assert farewell.read_text() == "goodbye" and tagged(tag) == []


def test_a_second_ctrl_c_kills_at_once(run_script, tmp_path, tag):
    begun, farewell = tmp_path / "begun", tmp_path / "farewell"
    script = run_script(
        PATIENT_SCRIPT
        + f"""
import signal
from pool_support import tagged
ask('remember_to_wait', {str(begun)!r}, {str(farewell)!r}).result(20)
try:
    print("ready", flush=True)
    signal.pause()
except KeyboardInterrupt:
    try:
        pool.shutdown(kill=True)
    except KeyboardInterrupt:
        print(pool._manager._closing.name, tagged({tag!r}))
"""
    )
    assert script.stdout.readline() == "ready\n"
    script.send_signal(signal.SIGINT)
    eventually(begun.exists)  # the exit function runs: this is the grace
    script.send_signal(signal.SIGINT)
    assert script.communicate(timeout=20) == ("AT_ONCE []\n", "")
    assert not farewell.exists() and tagged(tag) == []
