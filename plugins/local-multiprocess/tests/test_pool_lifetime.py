"""How a pool ends: on request, by neglect, and with its program."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import CancelledError

import pytest
from pool_support import call, check_no_new_fds, eventually, open_fds, tagged, value

from hypernodes_local_multiprocess._pool import ProcessPool


def test_shutdown_finishes_what_was_asked(make_pool, tag):
    pool = make_pool()
    futures = [call(pool, "double", n) for n in range(300)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert [value(future) for future in futures] == [2 * n for n in range(300)]
    assert tagged(tag) == [] and pool.pids == ()


def test_shutdown_before_anything_has_started_leaves_nothing(make_pool, tag):
    pool = make_pool()
    pool.shutdown()
    assert tagged(tag) == []


def test_shutdown_may_be_repeated_and_refuses_new_calls(make_pool):
    pool = make_pool()
    pool.shutdown()
    pool.shutdown(kill=True)
    with pytest.raises(RuntimeError, match="was shut down"):
        pool.submit([b""])


def test_shutdown_without_waiting_finishes_in_the_background(make_pool, tmp_path, tag):
    pool = make_pool()
    future = call(pool, "wait_for", str(tmp_path / "go"))
    pool.shutdown(wait=False)
    assert not future.done()
    (tmp_path / "go").touch()
    assert value(future)
    eventually(lambda: tagged(tag) == [])
    pool.shutdown()


def test_shutdown_can_cancel_what_was_not_sent(make_pool, tmp_path):
    pool = make_pool(1)
    begun = tmp_path / "begun"
    running = call(pool, "touch_then", str(begun), "pid")
    blocked = call(pool, "wait_for", str(tmp_path / "go"))
    rest = [call(pool, "double", n) for n in range(20)]
    value(running)
    pool.shutdown(wait=False, cancel_futures=True)
    eventually(lambda: sum(future.cancelled() for future in rest) >= 19)
    (tmp_path / "go").touch()
    pool.shutdown()
    assert value(blocked) and all(future.done() for future in rest)


@pytest.mark.parametrize("stuck", ["sleep", "spin", "stuck_in_c"])
def test_shutdown_by_killing_ends_whatever_workers_do(make_pool, tmp_path, tag, stuck):
    pool = make_pool()
    running = [call(pool, "touch_then", str(tmp_path / f"{n}"), stuck) for n in range(2)]
    eventually(lambda: all((tmp_path / f"{n}").exists() for n in range(2)))
    rest = [call(pool, "double", n) for n in range(50)]
    closing = threading.Thread(target=pool.shutdown, kwargs={"kill": True}, daemon=True)
    closing.start()
    eventually(lambda: not closing.is_alive())
    assert tagged(tag) == []
    for future in running:
        with pytest.raises(CancelledError, match="as its pool was shut down"):
            future.result(0)
    assert all(isinstance(_ending(future), CancelledError) for future in rest)


def _ending(future):
    try:
        return future.exception(0)
    except CancelledError as error:
        return error


def test_a_callback_may_shut_the_pool_down(make_pool, tag):
    pool = make_pool()
    called = threading.Event()
    call(pool, "double", 1).add_done_callback(lambda _: (pool.shutdown(), called.set()))
    assert called.wait(20)
    pool.shutdown()
    assert tagged(tag) == []


def test_a_forgotten_pool_finishes_and_goes(tag):
    before = set(threading.enumerate())
    pool = ProcessPool(2, "pool_targets:command")
    futures = [call(pool, "double", n) for n in range(100)]
    del pool
    gc.collect()
    assert [value(future) for future in futures] == [2 * n for n in range(100)]
    eventually(lambda: tagged(tag) == [])
    eventually(lambda: not any(thread.name == "hypernodes-pool" for thread in set(threading.enumerate()) - before))


def test_pools_that_come_and_go_leave_nothing(tag):
    fds = open_fds()
    for n in range(10):
        pool = ProcessPool(2, "pool_targets:command")
        assert value(call(pool, "double", n)) == 2 * n
        pool.shutdown()
        assert tagged(tag) == []
        check_no_new_fds(fds)


def test_workers_run_their_exit_functions(make_pool, tmp_path):
    pool = make_pool(1)
    value(call(pool, "remember_to_write", str(tmp_path / "goodbye")))
    pool.shutdown()
    assert (tmp_path / "goodbye").read_text() == "goodbye"


SCRIPT = """
import pickle, sys
from hypernodes_local_multiprocess._pool import ProcessPool
def ask(name, *args): return pool.submit([pickle.dumps((name, *args))])
pool = ProcessPool(2, "pool_targets:command")
"""


def test_a_script_needs_no_main_guard(run_script, tag):
    script = run_script(SCRIPT + "print(pickle.loads(ask('double', 21).result(20)[0])); pool.shutdown()")
    assert script.communicate(timeout=20) == ("42\n", "")
    assert script.returncode == 0 and tagged(tag) == []


@pytest.mark.parametrize("busy", ["", "ask('sleep'); ask('spin'); ask('double', 1)"])
def test_a_program_that_forgets_its_pool_ends_and_leaves_nothing(run_script, tag, busy):
    script = run_script(SCRIPT + "ask('double', 21).result(20)\n" + busy)
    eventually(lambda: script.poll() is not None)
    assert script.communicate(timeout=20) == ("", "")
    assert script.returncode == 0
    assert tagged(tag) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_are_gone_when_their_program_is_killed(run_script, tmp_path, tag, how):
    begun = [tmp_path / name for name in ("sleep", "spin", "stuck_in_c")]
    asks = "\n".join(f"ask('touch_then', {str(path)!r}, {path.name!r})" for path in begun)
    script = run_script(SCRIPT.replace("(2,", "(3,") + asks + "\nprint('ready', flush=True)\npool._manager.wait()")
    assert script.stdout.readline() == "ready\n"
    eventually(lambda: all(path.exists() for path in begun))
    assert len(tagged(tag)) == 5
    script.send_signal(how)
    script.wait(20)
    eventually(lambda: tagged(tag) == [])


def test_workers_are_gone_even_when_a_forked_copy_of_the_program_lives(run_script, tmp_path, tag):
    begun, source = tmp_path / "begun", SCRIPT + "import os, time\nprint(os.getpid())\n"
    source += f"ask('double', 1).result(20); ask('touch_then', {str(begun)!r}, 'spin')\n"
    source += "child = os.fork()\nif not child: time.sleep(300)\nprint(child, flush=True)\ntime.sleep(300)"
    script = run_script(source)
    _, child = int(script.stdout.readline()), int(script.stdout.readline())
    eventually(begun.exists)
    script.kill()
    script.wait(20)
    try:
        eventually(lambda: tagged(tag) == [child])
    finally:
        os.kill(child, signal.SIGKILL)
        eventually(lambda: tagged(tag) == [])


def test_ctrl_c_reaches_the_program_and_not_its_workers(run_script, tmp_path, tag):
    begun, meeting = tmp_path / "begun", tmp_path / "meeting"
    meeting.mkdir()
    script = run_script(
        SCRIPT
        + f"""
for met in [ask('meet', {str(meeting)!r}, 2) for _ in range(2)]: met.result(20)
pids = pool.pids
try:
    ask('touch_then', {str(begun)!r}, 'sleep').result(60)
except KeyboardInterrupt:
    print(len(pids), pool.pids == pids)
    pool.shutdown(kill=True)
"""
    )
    eventually(begun.exists)
    for pid in {*tagged(tag)} - {script.pid}:  # to all of them, as a terminal does, to the program last
        os.kill(pid, signal.SIGINT)
    script.send_signal(signal.SIGINT)
    eventually(lambda: script.poll() is not None)
    out, errors = script.communicate(timeout=20)
    assert (out, errors, script.returncode) == ("2 True\n", "", 0)
    assert tagged(tag) == []


def test_a_pool_within_a_worker_goes_with_it(run_script, tmp_path, tag):
    begun = tmp_path / "begun"
    script = run_script(SCRIPT + f"ask('nest', {str(begun)!r}).result(60)")
    eventually(begun.exists)
    eventually(lambda: len(tagged(tag)) == 7)
    script.kill()
    script.wait(20)
    eventually(lambda: tagged(tag) == [])
