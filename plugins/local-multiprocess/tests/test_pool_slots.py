"""What large inputs promise: calls look into memory that is used again, and nobody can tell."""

from __future__ import annotations

import os
import signal
import socket

import numpy as np
import pytest
from pool_support import call, eventually, holders, open_fds, tagged, value

from hypernodes._errors import WorkerLostError
from hypernodes_local_multiprocess import _frames
from hypernodes_local_multiprocess._arena import KEPT, Arena
from hypernodes_local_multiprocess._views import Views


def large(number: float) -> np.ndarray:
    return np.full(262_144, float(number))  # 2 MB


@pytest.fixture
def one(make_pool):
    return make_pool(1)


@pytest.fixture
def ends():
    """Sends frames through the slots of an arena, and takes them in as a worker does."""
    here, there = socket.socketpair()
    arena, views = Arena(), Views()
    outbox, reader = _frames.Outbox(here), _frames.Reader(there, views)

    def send(ticket: int, *frames: bytes) -> _frames.Message:
        outbox.push(_frames.encode(_frames.CALL, ticket, frames, arena))
        assert outbox.flush()
        while (message := reader.take()) is None:
            assert reader.fill()
        return message

    yield send, arena, views
    arena.close()
    reader.close()
    here.close()
    there.close()


def test_inputs_are_looked_at_where_they_lie(one):
    lines = [value(call(one, "mapping", large(n))) for n in range(5)]
    assert all("memfd:hypernodes" in line and "rw-s" in line for line in lines)
    assert len({line.split()[0] for line in lines}) == 1, "one slot, used again"


def test_a_few_bytes_do_not_keep_a_large_slot(one):
    value(call(one, "mapping", np.zeros(2_500_000)))
    assert "memfd" not in value(call(one, "mapping", np.zeros(50_000)))


def test_arrays_kept_over_calls_keep_their_content(one):
    for n in range(100):
        value(call(one, "keep" if n % 20 == 0 else "fill_in_place", large(n)))
        assert value(call(one, "kept_are_whole"))


def test_a_slice_that_is_kept_keeps_its_content(one):
    value(call(one, "keep_slice", large(3)))
    for n in range(10):
        value(call(one, "fill_in_place", large(n)))
    assert value(call(one, "kept_are_whole"))


def test_a_worker_lets_kept_arrays_go_with_the_last_look(one):
    value(call(one, "keep_in_a_cycle", large(1)))
    assert value(call(one, "segments")) == 1
    value(call(one, "collect"))
    assert value(call(one, "segments")) == 0
    assert "memfd" not in value(call(one, "mapping", large(1))), "it is copied out for a while"
    for n in range(15):
        value(call(one, "same", large(n)))
    assert "memfd" in value(call(one, "mapping", large(1)))


def test_what_a_node_writes_into_its_input_is_seen_by_nobody_else(make_pool):
    pool = make_pool(2)
    arrays = [large(n) for n in range(40)]
    back = [value(future) for future in [call(pool, "fill_in_place", array) for array in arrays]]
    assert all((array == 7).all() for array in back)
    assert all((array == n).all() for n, array in enumerate(arrays))
    assert all((value(call(pool, "same", array)) == n).all() for n, array in enumerate(arrays))


def test_an_input_may_be_returned_as_it_is(one):
    back = [value(future) for future in [call(one, "same", large(n)) for n in range(30)]]
    assert all((array == n).all() for n, array in enumerate(back))
    back[0][:] = -1
    assert all((array == n).all() for n, array in enumerate(back) if n)


def test_a_forked_copy_writes_into_memory_of_its_own(one):
    for n in range(3):
        line, array = value(call(one, "write_in_a_copy", large(n)))
        assert "rw-p" in line and (array == n).all()


def test_a_forked_copy_never_sees_its_memory_change(one, tmp_path):
    child = value(call(one, "keep_in_a_copy", large(5), str(tmp_path / "go")))
    for n in range(30):
        value(call(one, "fill_in_place", large(n)))
    (tmp_path / "go").touch()
    assert value(call(one, "exit_code", child)) == 0


def test_a_blob_that_came_with_an_array_does_not_keep_its_slot(one):
    for n in range(3):
        assert value(call(one, "blob_sizes", blobs={f"{n}": [b"x" * 700_000, b"y" * 600_000]})) == {f"{n}": 1_300_000}
    assert value(call(one, "segments")) == 1


def test_nothing_is_left_of_a_worker_killed_while_it_looks(one, tmp_path):
    value(call(one, "pid"))
    fds, pid = open_fds(), one.pids[0]
    future = call(one, "look_for_ever", large(1), str(tmp_path / "looking"))
    eventually((tmp_path / "looking").exists)
    line = (tmp_path / "looking").read_text()
    assert holders(line) == sorted([os.getpid(), pid])
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        future.result(20)
    array = large(1)
    assert (value(call(one, "same", array)) == 1).all() and (array == 1).all()
    assert holders(line) == []
    eventually(lambda: len(open_fds()) <= len(fds))  # those of another worker, as many as before


def test_nothing_is_left_of_a_program_killed_while_its_worker_looks(run_script, tmp_path, tag):
    run = run_script(
        f"import numpy, pool_support\n"
        f"from hypernodes_local_multiprocess._pool import ProcessPool\n"
        f"pool = ProcessPool(1, 'pool_targets:command')\n"
        f"pool_support.call(pool, 'look_for_ever', numpy.ones(262_144), {str(tmp_path / 'looking')!r}).result()\n"
    )
    eventually((tmp_path / "looking").exists)
    line = (tmp_path / "looking").read_text()
    assert run.pid in holders(line)
    run.kill()
    run.wait()
    eventually(lambda: not tagged(tag))
    assert holders(line) == []
    assert [name for name in os.listdir("/dev/shm") if "hypernodes" in name] == [], "no segment has a name"


def test_a_worker_with_too_many_open_files_costs_no_call(one):
    pid = value(call(one, "take_no_more_files"))
    assert (value(call(one, "same", large(4))) == 4).all()
    assert value(call(one, "pid")) != pid


def test_only_slots_that_are_looked_into_are_given_up(ends):
    send, arena, views = ends
    first, second = send(1, b"a" * 700_000), send(2, b"b" * 700_000)
    third = arena.put(3, [b"c" * 700_000])
    os.close(third.fd)
    view = first.frames[0]
    del first, second
    assert views.given_up() == 0b001
    assert views.given_up() == 0, "told once"
    arena.freed(3, 0b001)
    assert arena.put(4, [b"d" * 700_000]).fd is None, "the second is used again"
    assert bytes(view) == b"a" * 700_000


def test_a_slot_given_up_is_replaced_within_the_bound(ends):
    send, arena, views = ends
    kept = []
    for ticket in range(1, 60):
        message = send(ticket, bytes([ticket]) * 700_000)
        kept += message.frames
        del message
        arena.freed(ticket, views.given_up())
        assert sum(slot.size for slot in arena._slots) <= KEPT
    assert all(bytes(view) == bytes([ticket]) * 700_000 for ticket, view in enumerate(kept, 1))


def test_a_reply_tells_what_was_given_up():
    packet = _frames.encode(_frames.RESULT, 5, [b"text"])
    here, there = socket.socketpair()
    with here, there:
        here.sendall(_frames.telling(packet, 0b101).data)
        reader = _frames.Reader(there)
        assert reader.fill()
        message = reader.take()
        assert message is not None
        assert (message.ticket, message.given_up, bytes(message.frames[0])) == (5, 0b101, b"text")
        reader.close()
