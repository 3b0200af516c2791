"""Who may pass a gate, in which order, and what is left of those who died: in one process and between several."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypernodes import HypernodesError
from hypernodes._clock import Deadline
from hypernodes._counts import Counts
from hypernodes._errors import PipelineTimeoutError
from hypernodes._gate import Gate
from hypernodes._gated import MOST_IDLE, room_of
from hypernodes._scope import Scope, opened
from hypernodes._shared_counts import AREA, PATIENCE, STATE, SharedCounts
from hypernodes._waiting import WaitingRoom
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]

ONE = (Gate("one", 1),)
LONG = 20.0


@pytest.fixture(autouse=True)
def _clean(no_leaks: LeakWatch) -> None:
    return


class Wall:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr("hypernodes._counts.time", wall)
    monkeypatch.setattr("hypernodes._shared_counts.time", wall)
    return wall


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Callable[[], SharedCounts]]:
    """Makes the holdings of one process after the other: each opens the files anew, so their locks are apart."""
    made: list[SharedCounts] = []

    def make() -> SharedCounts:
        made.append(SharedCounts(str(tmp_path)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def waiting(room: WaitingRoom) -> int:
    return sum(len(line) for line in room._lines.values())


def queue_up(room: WaitingRoom, gates: tuple[Gate, ...], then: Callable[[], object]) -> threading.Thread:
    """A thread that stands in line when this returns."""
    before = waiting(room)

    def run() -> None:
        room.enter(gates, "n", None)
        then()
        room.leave(gates)

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + LONG
    while waiting(room) == before:
        assert time.monotonic() < end
        time.sleep(0.001)
    return thread


# -- waiting


def test_first_come_first_served() -> None:
    room, order = WaitingRoom(Counts()), list[int]()
    room.enter(ONE, "n", None)
    threads = [queue_up(room, ONE, lambda at=at: order.append(at)) for at in range(5)]  # type: ignore[misc]
    room.leave(ONE)
    for thread in threads:
        thread.join(LONG)
    assert order == [0, 1, 2, 3, 4]
    assert room.is_idle


def test_small_call_does_not_starve_a_large_one() -> None:
    room, order = WaitingRoom(Counts()), list[str]()
    most, few = (Gate("cpus", 4, 4),), (Gate("cpus", 4, 1),)
    room.enter(few, "n", None)
    large = queue_up(room, most, lambda: order.append("large"))
    small = queue_up(room, few, lambda: order.append("small"))
    assert waiting(room) == 2
    room.leave(few)
    large.join(LONG)
    small.join(LONG)
    assert order == ["large", "small"]


def test_those_who_share_no_gate_do_not_wait_for_each_other() -> None:
    room = WaitingRoom(Counts())
    room.enter(ONE, "n", None)
    held = queue_up(room, ONE, lambda: None)
    other = (Gate("other", 1),)
    room.enter(other, "n", None)
    room.leave(other)
    room.leave(ONE)
    held.join(LONG)


def test_who_gives_up_stands_in_nobodys_way() -> None:
    room = WaitingRoom(Counts())
    wide, slim = (Gate("cpus", 2, 2, name="its 2 CPUs"),), (Gate("cpus", 2, 1),)
    room.enter(slim, "n", None)
    with pytest.raises(PipelineTimeoutError, match=r"node 'big' was waiting for its 2 CPUs$"):
        room.enter(wide, "big", Deadline(time.time() - 1, "main", 3))
    assert waiting(room) == 0
    room.enter(slim, "n", None)
    room.leave(slim)
    room.leave(slim)
    assert room.is_idle


def test_what_waits_for_a_call_that_is_over_ends() -> None:
    room, errors = WaitingRoom(Counts()), list[BaseException]()
    room.enter(ONE, "n", None)

    def run() -> None:
        try:
            room.enter(ONE, "n", None)
        except HypernodesError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not waiting(room):
        time.sleep(0.001)
    room.close()
    thread.join(LONG)
    assert [str(error) for error in errors] == ["the call that this node ran for is over"]
    room.leave(ONE)


def test_worker_keeps_only_a_few_runs_in_which_nobody_is() -> None:
    rooms = [room_of(Scope(f"elsewhere-{at}")) for at in range(3 * MOST_IDLE)]
    assert len({id(room) for room in rooms}) == len(rooms)
    again = [room_of(Scope(f"elsewhere-{at}")) for at in range(2 * MOST_IDLE, 3 * MOST_IDLE)]
    assert [id(room) for room in again] == [id(room) for room in rooms[2 * MOST_IDLE :]]


# -- counting


@pytest.mark.parametrize("kind", ["one process", "several processes"])
def test_no_window_holds_more_than_its_rate(kind: str, wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    rng = random.Random(7)
    counters: list[Any] = [Counts()] if kind == "one process" else [shared(), shared(), shared()]
    gate = (Gate("rate", 5, 1, 60.0),)
    begun: list[float] = []
    for _ in range(400):
        pause = rng.choice(counters).take(gate, wall.now)
        if pause is None:
            begun.append(wall.now)
        wall.now += rng.choice([0.0, 0.0, 0.5, 3.0, 7.0, 30.0])
    assert len(begun) > 50
    assert begun[:5] == [1000.0] * 5 or begun[4] < 1060
    assert all(later - earlier >= 60.0 for earlier, later in zip(begun, begun[5:], strict=False))


@pytest.mark.parametrize("kind", ["one process", "several processes"])
def test_pause_is_as_long_as_it_must_be(kind: str, wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    counts: Any = Counts() if kind == "one process" else shared()
    gate = (Gate("rate", 2, 1, 60.0),)
    assert counts.take(gate, wall.now) is None
    wall.now += 10
    assert counts.take(gate, wall.now) is None
    assert counts.take(gate, wall.now) == 50.0
    wall.now += 50
    assert counts.take(gate, wall.now) is None
    assert counts.take(gate, wall.now) == 10.0


@pytest.mark.parametrize("kind", ["one process", "several processes"])
def test_all_gates_or_none_are_taken(kind: str, wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    counts: Any = Counts() if kind == "one process" else shared()
    rate, slot = Gate("rate", 1, 1, 60.0), Gate("slot", 1)
    assert counts.take((slot,), wall.now) is None
    assert counts.take((rate, slot), wall.now) is not None
    counts.give((slot,))
    assert counts.take((rate, slot), wall.now) is None  # neither was spent by the attempt before
    counts.give((rate, slot))
    assert counts.take((rate, slot), wall.now) == 60.0


def test_processes_never_hold_more_than_there_is(wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    rng = random.Random(3)
    processes = [shared() for _ in range(3)]
    held: list[tuple[SharedCounts, tuple[Gate, ...]]] = []
    for _ in range(600):
        wall.now += 0.001
        if held and rng.random() < 0.5:
            one, gates = held.pop(rng.randrange(len(held)))
            one.give(gates)
        else:
            one = rng.choice(processes)
            gates = (Gate("cpus", 4, rng.choice([0.1, 1, 2.5])), Gate("memory", 64_000, rng.choice([1, 40_000])))
            if one.take(gates, wall.now) is None:
                held.append((one, gates))
        for at, most in ((0, 4), (1, 64_000)):
            assert sum(gates[at].takes for _, gates in held) <= most + 1e-9
    for one, gates in held:
        one.give(gates)
    assert processes[0].take((Gate("cpus", 4, 4), Gate("memory", 64_000, 64_000)), wall.now) is None


def test_what_a_dead_process_held_is_free(wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    dead, alive = shared(), shared()
    assert dead.take(ONE, wall.now) is None
    assert alive.take(ONE, wall.now) is not None
    dead.forget()  # as the kernel does when a process ends
    assert alive.take(ONE, wall.now) is None


def test_process_that_died_while_it_wrote_spoils_nothing(
    wall: Wall, shared: Callable[[], SharedCounts], tmp_path: Path
) -> None:
    one, other = shared(), shared()
    assert one.take(ONE, wall.now) is None  # the first writing, in the second area
    assert other.take((Gate("two", 1),), wall.now) is None
    with (tmp_path / STATE).open("r+b") as state:
        state.seek(20)
        state.write(b"torn")
    assert other.take(ONE, wall.now) is not None
    assert other.take((Gate("two", 1),), wall.now) is None
    assert AREA > 4096


def test_who_waited_long_goes_before_later_calls_of_other_processes(
    wall: Wall, shared: Callable[[], SharedCounts]
) -> None:
    large, small, third = shared(), shared(), shared()
    all_, one = (Gate("cpus", 4, 4),), (Gate("cpus", 4, 1),)
    began = wall.now
    assert small.take(one, wall.now) is None
    assert large.take(all_, began) is not None
    assert third.take(one, wall.now) is None  # nobody has waited for long
    wall.now += PATIENCE + 0.1
    assert large.take(all_, began) is not None
    assert third.take(one, wall.now) is not None
    small.give(one)
    third.give(one)
    assert third.take(one, wall.now) is not None
    assert large.take(all_, began) is None
    large.give(all_)
    assert third.take(one, wall.now) is None


def test_who_waited_long_and_is_gone_stands_in_nobodys_way(wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    gone, here = shared(), shared()
    began = wall.now
    assert here.take(ONE, wall.now) is None
    wall.now += PATIENCE + 0.1
    assert gone.take(ONE, began) is not None
    here.give(ONE)
    assert here.take(ONE, wall.now) is not None
    wall.now += PATIENCE + 0.1
    assert here.take(ONE, wall.now) is None


def test_pauses_between_two_looks_grow_to_a_bound(wall: Wall, shared: Callable[[], SharedCounts]) -> None:
    holder, waits = shared(), shared()
    assert holder.take(ONE, wall.now) is None
    began, pauses = wall.now, []
    while wall.now < began + 0.5:
        pause = waits.take(ONE, began)
        assert pause is not None
        pauses.append(pause)
        wall.now += pause
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 0.01


def test_process_on_another_machine_finds_no_folder_and_counts_for_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SharedCounts(str(tmp_path / "gone"))
    room = room_of(Scope("far-run", str(tmp_path / "gone")))
    assert isinstance(room.holdings, Counts)


def test_child_of_a_worker_does_not_keep_what_the_dead_worker_held(
    wall: Wall, shared: Callable[[], SharedCounts], tmp_path: Path
) -> None:
    script = textwrap.dedent(
        f"""
        import os, sys
        from hypernodes._gate import Gate
        from hypernodes._shared_counts import SharedCounts
        counts = SharedCounts({str(tmp_path)!r})
        assert counts.take((Gate("one", 1),), 0.0) is None
        if os.fork():
            os._exit(0)
        print("forked", flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "forked\n"
        program.wait(LONG)
        assert shared().take(ONE, wall.now) is None
        assert program.stdin is not None
        program.stdin.close()
        assert program.stdout.read() == ""


# -- where processes meet


def test_folder_is_this_users_and_goes_with_the_call() -> None:
    with opened(meets=True) as scope:
        assert stat.S_IMODE(os.stat(scope.folder).st_mode) == 0o700
        room = room_of(scope)
        assert isinstance(room.holdings, SharedCounts)
        room.enter(ONE, "n", None)
        assert os.listdir(scope.folder)
    assert not os.path.exists(scope.folder)
    room.leave(ONE)  # of a thread that was left behind


def test_folder_goes_when_the_call_fails() -> None:
    with pytest.raises(KeyboardInterrupt), opened(meets=True) as scope:
        room_of(scope).enter(ONE, "n", None)
        raise KeyboardInterrupt
    assert not [name for name in os.listdir(os.path.dirname(scope.folder)) if scope.run in name]


def test_call_that_does_not_need_a_folder_makes_none() -> None:
    with opened() as scope:
        assert scope.folder == ""
        assert isinstance(room_of(scope).holdings, Counts)
