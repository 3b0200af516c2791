"""What a pool promises while nothing goes wrong."""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from pool_support import call, check_no_new_fds, eventually, open_fds, tagged, value

from hypernodes._errors import PlaceError, RemoteError
from hypernodes_local_multiprocess._shelf import LIMIT, Shelf


def test_frames_come_back_as_they_went(make_pool):
    pool = make_pool(1, "pool_targets:echo")
    frames = [b"head", b"", bytearray(b"abc"), memoryview(b"x" * 100_000), b"y" * 65_536, b"z" * 65_535, b"1234567"]
    back = pool.submit(frames).result(20)
    assert [bytes(frame) for frame in back] == [bytes(frame) for frame in frames]


def test_a_call_without_frames_is_a_call(make_pool):
    assert make_pool(1, "pool_targets:echo").submit([]).result(20) == []


def test_many_frames_of_any_size_travel_together(make_pool):
    frames = [bytes([n % 256]) * (n * 37 % 3000) for n in range(2000)]
    back = make_pool(1, "pool_targets:echo").submit(frames).result(20)
    assert [bytes(frame) for frame in back] == frames


def test_frames_that_come_back_are_writable_and_nobody_elses(make_pool):
    sent = bytearray(b"a" * 200_000)
    (big, small) = make_pool(1, "pool_targets:echo").submit([sent, bytearray(b"abc")]).result(20)
    big[0] = small[0] = ord("Z")
    assert sent[0] == ord("a") and bytes(small) == b"Zbc" and big[0] == ord("Z")


def test_arrays_are_writable_on_both_sides(pool):
    array = np.arange(2_500_000, dtype="f8")  # 20 MB
    back = value(call(pool, "fill_in_place", array))
    assert (back == 7).all() and array[5] == 5
    back[0] = 1
    assert back.sum() == 7 * 2_499_999 + 1
    small = value(call(pool, "fill_in_place", np.zeros(10)))
    small[0] = 2
    assert small.sum() == 65


def test_arrays_that_somebody_keeps_are_never_overwritten(make_pool):
    pool = make_pool(2)
    sent = [np.full(2_500_000, float(n)) for n in range(12)]  # 20 MB each, many times what is used again
    for _ in range(2):
        back = [value(future) for future in [call(pool, "keep_and_double", array) for array in sent]]
        assert all((array == 2 * n).all() for n, array in enumerate(back))
        back[0][:] = -1  # and what is changed here is changed here alone
        assert all((array == 2 * n).all() for n, array in enumerate(back) if n)
    assert all((array == n).all() for n, array in enumerate(sent))
    assert all(value(call(pool, "kept_are_whole")) for _ in range(4))


def test_what_is_kept_for_large_frames_is_bounded(make_pool):
    from hypernodes_local_multiprocess._arena import KEPT, Arena

    arena = Arena()
    frames = [b"x" * (KEPT // 4)]
    places = [arena.put(ticket, frames) for ticket in (1, 2, 3, 4)]
    assert [place is not None and place.slot for place in places] == [1, 2, 3, False], "three slots, then none"
    arena.freed(2)
    assert arena.put(5, frames) == (1, None, KEPT // 4), "used again: no descriptor travels"
    assert arena.put(6, [b"x" * (KEPT + 1)]) is None
    arena.close()
    for place in places[:3]:
        os.close(place.fd)
    pool = make_pool(1, "pool_targets:echo")
    assert len(pool.submit([b"y" * (KEPT + 1)]).result(20)[0]) == KEPT + 1


def test_arrays_in_any_order_in_memory_survive(pool):
    array = np.asfortranarray(np.arange(60_000.0).reshape(200, 300))
    assert (value(call(pool, "double", array)) == array * 2).all()


def test_frames_that_are_not_contiguous_are_refused_by_submit(pool):
    with pytest.raises(BufferError):
        pool.submit([np.zeros((100, 100))[:, ::2]])


def test_results_that_a_caller_keeps_hold_no_descriptors(make_pool):
    pool = make_pool(1, "pool_targets:echo")
    pool.submit([b""]).result(20)
    before = open_fds()
    kept = [pool.submit([b"x" * 100_000]).result(20) for _ in range(300)]
    check_no_new_fds(before)
    assert all(bytes(frames[0][-3:]) == b"xxx" for frames in kept)


def test_a_thousand_tiny_calls_give_each_its_own_answer(pool):
    futures = [call(pool, "double", n) for n in range(1000)]
    assert [value(future) for future in futures] == [2 * n for n in range(1000)]


def test_all_workers_work_at_once(make_pool, tmp_path):
    pool = make_pool(3)
    met = [call(pool, "meet", str(tmp_path), 3) for _ in range(3)]
    pids = {value(future) for future in met}
    assert len(pids) == 3 and pids == set(pool.pids)


def test_a_long_call_does_not_hold_up_those_behind_it(pool, tmp_path):
    blocked = call(pool, "wait_for", str(tmp_path / "go"))
    assert [value(call(pool, "double", n)) for n in range(50)] == [2 * n for n in range(50)]
    batch = [call(pool, "double", n) for n in range(200)]
    assert [value(future) for future in batch] == [2 * n for n in range(200)]
    assert not blocked.done()
    (tmp_path / "go").touch()
    assert value(blocked) in pool.pids


def test_a_blob_travels_to_each_worker_once(make_pool, monkeypatch):
    from hypernodes_local_multiprocess import _handle

    pool = make_pool(1)
    packed = []
    encode = _handle._frames.encode
    monkeypatch.setattr(_handle._frames, "encode", lambda *args: packed.append(args[2]) or encode(*args))
    blob = {"d1": [b"code" * 100, b"more"]}
    for _ in range(20):
        assert value(call(pool, "blob_sizes", blobs=blob)) == {"d1": 404}
    assert sum(frame == b"code" * 100 for frames in packed for frame in frames) == 1


def test_pool_and_worker_agree_on_the_blobs_that_had_to_leave(make_pool):
    pool = make_pool(2)
    random = np.random.default_rng(7)
    futures = []
    for _ in range(1500):
        names = [f"d{n}" for n in random.choice(2 * LIMIT, size=random.integers(0, 6), replace=False)]
        blobs = {name: [b"x" * int(name[1:])] for name in names}
        futures.append((call(pool, "blob_sizes", blobs=blobs), {name: int(name[1:]) for name in names}))
    assert all(value(future) == expected for future, expected in futures)


def test_a_call_may_name_more_blobs_than_a_worker_keeps(make_pool):
    pool = make_pool(1)
    blobs = {f"d{n}": [b"x" * n] for n in range(3 * LIMIT)}
    for _ in range(2):
        assert value(call(pool, "blob_sizes", blobs=blobs)) == {f"d{n}": n for n in range(3 * LIMIT)}


def test_a_shelf_lets_the_longest_unused_go():
    shelf: Shelf[int] = Shelf()
    for n in range(LIMIT):
        shelf.place([str(n)], {str(n): (n, 1)})
    shelf.place(["0", "new"], {"new": (-1, 1)})
    assert shelf.missing(["0", "1", "2", "new"]) == ["1"]


def test_both_sides_can_send_much_at_once(make_pool):
    pool = make_pool(1, "pool_targets:echo")
    inline = [b"i" * 60_000] * 4  # stays in the socket, in both directions, many times its buffer
    futures = [pool.submit(inline) for _ in range(200)]
    assert all(bytes(frame) == b"i" * 60_000 for future in futures for frame in future.result(20))


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "ValueError"])
def test_whatever_the_target_raises_the_worker_lives(make_pool, name):
    pool = make_pool(1)
    before = value(call(pool, "pid"))
    with pytest.raises(RemoteError) as caught:
        call(pool, "raise_", name).result(20)
    assert (caught.value.type_name, caught.value.message) == (name, "3")
    assert "in raise_" in caught.value.traceback_text
    assert value(call(pool, "pid")) == before


def test_an_error_whose_text_cannot_be_made_is_still_reported(pool):
    with pytest.raises(RemoteError, match=r"pool_targets\.Unprintable: <its message could not be made: RuntimeError>"):
        call(pool, "raise_unprintable").result(20)


def test_a_call_that_is_not_sent_yet_can_be_cancelled(make_pool, tmp_path):
    pool = make_pool(1)
    blocked = call(pool, "wait_for", str(tmp_path / "go"))
    waiting = [call(pool, "double", n) for n in range(5)]
    assert waiting[-1].cancel()
    (tmp_path / "go").touch()
    done, _ = wait(waiting, timeout=20)
    assert len(done) == 5 and [value(future) for future in waiting[:-1]] == [0, 2, 4, 6]
    assert value(blocked)


def test_a_callback_may_submit_and_may_fail(pool, caplog):
    answers = []
    chained = threading.Event()

    def again(_: object) -> None:
        call(pool, "double", 4).add_done_callback(lambda future: (answers.append(value(future)), chained.set()))
        raise SystemExit

    with caplog.at_level(logging.CRITICAL):
        call(pool, "double", 3).add_done_callback(again)
        assert chained.wait(20)
    assert answers == [8] and value(call(pool, "double", 5)) == 10


def test_workers_find_themselves_in_the_surroundings_of_the_pool(make_pool, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = value(call(make_pool(1), "surroundings"))
    assert found["path"] == sys.path and found["cwd"] == str(tmp_path) and found["argv"] == sys.argv
    assert found["warnoptions"] == sys.warnoptions
    assert found["sigint"] and found["blocked"] == []
    assert found["tasks"] == 1 and found["stdin"] == ""


def test_a_new_worker_gets_the_path_of_its_own_time(make_pool, monkeypatch, tmp_path):
    pool = make_pool(1)
    value(call(pool, "pid"))
    monkeypatch.syspath_prepend(str(tmp_path))
    value(call(pool, "taint"))
    assert value(call(pool, "surroundings"))["path"] == sys.path


def test_a_worker_holds_its_own_descriptors_alone(make_pool):
    pool = make_pool(3)
    for _ in range(5):
        value(call(pool, "taint"))
        links = value(call(pool, "open_files"))
        assert sum("socket:" in link for link in links) - _inherited("socket:") == 1, links
        assert sum("pipe:" in link for link in links) - _inherited("pipe:") == 1, links


def _inherited(kind: str) -> int:
    """How many of our own standard output and error are of that kind; workers share them."""
    return sum(kind in os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2))


def test_prints_of_workers_appear_before_their_results(make_pool, capfd):
    value(call(make_pool(1), "say", "hello from a worker"))
    assert capfd.readouterr().out == "hello from a worker\n"


def test_a_tainted_worker_is_replaced_and_no_call_fails(make_pool, tag):
    pool = make_pool(2)
    futures = [call(pool, "taint" if n % 3 == 0 else "double", *([] if n % 3 == 0 else [n])) for n in range(60)]
    results = [value(future) for future in futures]
    assert [r for n, r in enumerate(results) if n % 3] == [2 * n for n in range(60) if n % 3]
    assert len({r for n, r in enumerate(results) if n % 3 == 0}) == 20, "each tainted worker answered once"
    eventually(lambda: len(tagged(tag)) == 3)


def test_a_lock_that_a_thread_holds_does_not_reach_the_workers(make_pool):
    handler, ready, done = logging.StreamHandler(), threading.Event(), threading.Event()

    def hold() -> None:
        handler.acquire()  # also what os.register_at_fork waits for
        ready.set()
        done.wait(20)
        handler.release()

    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait(20)
    try:
        assert value(call(make_pool(2), "double", 1)) == 2
    finally:
        done.set()
        holder.join()


def test_a_process_forked_by_user_code_does_not_answer_for_its_worker(make_pool):
    pool = make_pool(1)
    pid = value(call(pool, "pid"))
    assert [value(call(pool, "fork_and_return")) for _ in range(3)] == [pid] * 3


def test_a_forked_copy_of_the_program_is_told_to_make_its_own_pool(pool):
    value(call(pool, "pid"))
    child = os.fork()
    if not child:
        try:
            pool.submit([b""])
        except PlaceError as error:
            pool.shutdown(kill=True)
            os._exit(0 if "forked copy" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert value(call(pool, "double", 1)) == 2


def test_a_pool_needs_a_worker():
    with pytest.raises(ValueError, match="at least 1 worker, not 0"):
        from hypernodes_local_multiprocess._pool import ProcessPool

        ProcessPool(0, "pool_targets:echo")


def test_big_arrays_do_not_pass_through_the_socket(make_pool):
    from hypernodes_local_multiprocess import _frames

    array = np.zeros(2_500_000)
    packet = _frames.encode(_frames.CALL, 1, [b"head", _frames.flat(array)])
    assert len(packet.data) < 200 and len(packet.fds) == 1
    assert os.fstat(packet.fds[0]).st_size >= array.nbytes
    os.close(packet.fds[0])


def test_no_file_is_ever_named(make_pool, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    value(call(make_pool(1), "double", np.zeros(100_000)))
    assert list(Path(tmp_path).iterdir()) == []
