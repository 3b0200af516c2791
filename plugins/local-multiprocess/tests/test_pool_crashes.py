"""What a pool promises when workers die."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from pool_support import call, eventually, open_fds, tagged, value

from hypernodes._errors import PlaceError, WorkerLostError

STORM = int(os.environ.get("HYPERNODES_STORM", "200"))
"""How many workers the storm kills."""


@pytest.mark.parametrize(
    ("command", "exitcode", "fate"),
    [
        (("leave", 3), 3, "exited with code 3"),
        (("leave", 0), 0, "exited with code 0"),
        (("kill_self", signal.SIGKILL), -9, r"was killed by signal 9 \(SIGKILL\)"),
        (("kill_self", signal.SIGTERM), -15, r"was killed by signal 15 \(SIGTERM\)"),
        (("kill_self", signal.SIGRTMIN + 3), -(signal.SIGRTMIN + 3), "was killed by signal 37 while"),
        (("segfault",), -11, r"was killed by signal 11 \(SIGSEGV\)"),
    ],
)
def test_a_worker_that_dies_fails_its_own_call_alone(pool, command, exitcode, fate):
    before = [call(pool, "double", n) for n in range(50)]
    fatal = call(pool, *command)
    after = [call(pool, "double", n) for n in range(100)]
    with pytest.raises(WorkerLostError, match=rf"the worker process \d+ {fate}.* it ran this call") as caught:
        fatal.result(20)
    assert caught.value.exitcode == exitcode and str(caught.value.pid) in str(caught.value)
    assert [value(future) for future in before] == [2 * n for n in range(50)]
    assert [value(future) for future in after] == [2 * n for n in range(100)]


def test_two_hundred_fatal_calls_fail_and_no_other_does(pool):
    futures = [call(pool, "leave", 3) if n % 3 == 0 else call(pool, "double", n) for n in range(300)]
    for n, future in enumerate(futures):
        if n % 3 == 0:
            assert isinstance(future.exception(20), WorkerLostError)
        else:
            assert value(future) == 2 * n


def test_a_reply_that_was_sent_before_the_death_counts(make_pool, tmp_path):
    pool = make_pool(1)
    for _ in range(50):
        answered, fatal = call(pool, "double", 1), call(pool, "leave", 1)
        assert value(answered) == 2
        with pytest.raises(WorkerLostError):
            fatal.result(20)


def test_idle_workers_that_are_killed_are_replaced(pool):
    for _ in range(10):
        pids = eventually(lambda: len(pool.pids) == 2 and pool.pids)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda old=pids: len(pool.pids) == 2 and not set(old) & set(pool.pids))
    assert value(call(pool, "double", 1)) == 2


def test_a_call_that_waits_behind_a_fatal_one_is_run_elsewhere(make_pool, tmp_path):
    pool = make_pool(1)
    begun = tmp_path / "begun"
    blocked = call(pool, "touch_then", str(begun), "sleep")
    behind = call(pool, "double", 21)  # lies in the socket of the only worker
    os.kill(int(eventually(lambda: begun.exists() and begun.read_text())), signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        blocked.result(20)
    assert value(behind) == 42


def test_calls_outlive_the_process_that_starts_workers(pool, tag, tmp_path):
    value(call(pool, "pid"))
    eventually(lambda: len(pool.pids) == 2)
    (zygote,) = set(tagged(tag)) - set(pool.pids)
    running = call(pool, "touch_then", str(tmp_path / "begun"), "sleep")
    eventually((tmp_path / "begun").exists)
    os.kill(zygote, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match=r"the process that starts workers was killed by signal 9"):
        running.result(20)
    assert [value(call(pool, "double", n)) for n in range(10)] == [2 * n for n in range(10)]


def test_a_target_that_cannot_be_imported_fails_every_call(make_pool, tag):
    pool = make_pool(2, "no_such_module_at_all:function")
    futures = [pool.submit([b""]) for _ in range(5)]
    for future in futures:
        with pytest.raises(
            PlaceError, match=r"cannot import 'no_such_module_at_all:function'(.|\n)*ModuleNotFoundError"
        ):
            future.result(20)
    with pytest.raises(PlaceError, match="ModuleNotFoundError"):
        pool.submit([b""]).result(20)
    assert tagged(tag) == []


def test_a_target_that_does_not_exist_fails_every_call(make_pool):
    with pytest.raises(PlaceError, match=r"AttributeError.*no_such_function"):
        make_pool(2, "pool_targets:no_such_function").submit([b""]).result(20)


def test_an_interpreter_that_cannot_be_started_fails_every_call(make_pool, monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(PlaceError, match=r"cannot be started with '/no/such/python'.*No such file"):
        make_pool().submit([b""]).result(20)


def test_workers_that_never_get_ready_are_not_started_for_ever(make_pool, monkeypatch, tag):
    monkeypatch.setattr("hypernodes_local_multiprocess._starter._cwd", lambda: "/no/such/directory")
    with pytest.raises(
        PlaceError,
        match=r"no worker process could be started in 10 attempts(.|\n)*exited with code 1(.|\n)*No such file",
    ):
        make_pool().submit([b""]).result(20)
    assert tagged(tag) == []


def test_a_storm_of_kills_loses_nothing(make_pool, tag):
    """Calls stream while workers are killed at random; what fails is asked again, and all answers are right."""
    pool = make_pool(2)
    value(call(pool, "double", 1))
    fds = open_fds()
    seed = random.randrange(2**32)
    pick = random.Random(seed)
    stop = threading.Event()
    kills = 0

    def kill() -> None:
        nonlocal kills
        while kills < STORM and not stop.is_set():
            pids = pool.pids
            if pids:
                try:
                    os.kill(pick.choice(pids), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass  # it was faster
            time.sleep(pick.random() * 0.01)

    killer = threading.Thread(target=kill)
    started = time.monotonic()
    killer.start()
    lost = done = number = 0
    signals: set[object] = set()
    waiting: dict[object, int] = {}
    try:
        while killer.is_alive() or waiting or number < 2000:
            while len(waiting) < 16 and (killer.is_alive() or number < 2000):
                waiting[call(pool, "double_slowly", number)] = number
                number += 1
            future, n = next(iter(waiting.items()))
            del waiting[future]
            try:
                assert value(future) == 2 * n, f"seed {seed}"
                done += 1
            except WorkerLostError as error:
                signals.add(error.exitcode)
                lost += 1
                waiting[call(pool, "double_slowly", n)] = n
    finally:
        stop.set()
        killer.join()
    seconds = time.monotonic() - started
    print(f"{kills} kills in {seconds:.1f} s, {lost} calls lost and asked again, {done} answers, seed {seed}")
    assert signals <= {-9}, f"seed {seed}"
    assert done == number and kills == STORM
    eventually(lambda: len(pool.pids) == 2)
    eventually(lambda: len(tagged(tag)) == 3)
    eventually(lambda: len(open_fds()) <= len(fds))  # those of other workers, as many as before
