"""The unmodified `modal` client calls functions on the local control plane."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes_modal.testing import LocalModal

pytestmark = pytest.mark.slow


def made_act() -> Callable[..., Any]:
    """A function that does what it is told: tests share its warm containers. Made here, it is pickled by value."""

    def act(what: str, *args: Any) -> Any:
        import os
        import time
        from pathlib import Path

        if what == "double":
            return 2 * args[0]
        if what == "echo":
            return args[0]
        if what == "pid":
            return os.getpid()
        if what == "print":
            print(args[0])
            return None
        if what == "fail":
            raise ValueError(*args)
        if what == "wait":
            started, gate = map(Path, args)
            with started.open("a") as file:
                file.write("x")
            while not gate.exists():
                time.sleep(0.01)
            return "waited"
        if what == "die":  # so many times
            times, count = Path(args[0]), args[1]
            with times.open("a") as file:
                file.write("x")
            if times.stat().st_size <= count:
                os._exit(3)
            return "lived"
        raise NotImplementedError(what)

    return act


@pytest.fixture(scope="module")
def act(modal_anywhere_session: LocalModal | None) -> Iterator[modal.Function[Any, Any, Any]]:
    app = modal.App("calls")
    function = app.function(serialized=True, name="act", max_containers=2)(made_act())
    with app.run():
        yield function


def test_a_call_runs_in_a_process_of_its_own(act: Any, local_modal: LocalModal) -> None:
    pid = act.remote("pid")
    assert pid != os.getpid()
    assert pid in [container.pid for container in local_modal.containers]


def test_calls_of_a_coroutine_function_can_be_awaited(act: Any, modal_anywhere: object) -> None:
    assert asyncio.run(act.remote.aio("double", 4)) == 8


def test_a_map_gives_every_value_in_order(act: Any, modal_anywhere: object) -> None:
    arguments = [("double", number) for number in range(120)]
    assert list(act.starmap(arguments)) == [2 * number for number in range(120)]


def test_a_map_can_give_values_as_they_come(act: Any, modal_anywhere: object) -> None:
    arguments = [("double", number) for number in range(20)]
    assert sorted(act.starmap(arguments, order_outputs=False)) == [2 * number for number in range(20)]


def test_the_error_of_a_function_comes_back_as_it_is(act: Any, modal_anywhere: object) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        act.remote("fail", "no such thing")


def test_a_map_can_give_errors_in_place(act: Any, modal_anywhere: object) -> None:
    first, error, last = act.starmap([("double", 1), ("fail", "two"), ("double", 3)], return_exceptions=True)
    assert (first, last) == (2, 6)
    assert isinstance(error, ValueError)
    assert error.args == ("two",)


def test_a_spawned_call_is_fetched_later_and_found_by_its_id(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    call = act.spawn("wait", str(started), str(gate))
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    gate.touch()
    assert call.get(timeout=60) == "waited"
    assert modal.FunctionCall.from_id(call.object_id).get(timeout=60) == "waited"


@pytest.mark.parametrize("size", [20_000, 3_000_000])
def test_large_values_go_there_and_come_back(act: Any, modal_anywhere: LocalModal | None, size: int) -> None:
    value = os.urandom(size)
    blobs = modal_anywhere.rpcs["BlobCreate"] if modal_anywhere else -1
    assert act.spawn("echo", value).get(timeout=60) == value
    assert act.remote("echo", value) == value
    assert modal_anywhere is None or modal_anywhere.rpcs["BlobCreate"] > blobs


def test_what_a_function_prints_is_kept(act: Any, local_modal: LocalModal) -> None:
    act.remote("print", "hello from inside")
    local_modal.wait(lambda: any("hello from inside\n" in one.output for one in local_modal.containers))


def test_a_cancelled_call_stops_and_its_container_lives_on(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    started = tmp_path / "started"
    call = act.spawn("wait", str(started), str(tmp_path / "never"))
    waiting(started)
    inside = [one for one in local_modal.containers if one.running]
    call.cancel()
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=60)
    assert [one.state for one in inside] == ["ready"] * len(inside)
    assert act.remote("double", 1) == 2


def test_what_waits_behind_others_is_cancelled_unbegun(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    calls = [act.spawn("wait", str(started), str(gate)) for _ in range(6)]
    waiting(started, 2)
    for call in reversed(calls[2:]):
        call.cancel()
    gate.touch()
    assert [call.get(timeout=60) for call in calls[:2]] == ["waited"] * 2
    assert started.read_text() == "xx"


def test_a_call_can_be_cancelled_with_its_container(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    started = tmp_path / "started"
    call = act.spawn("wait", str(started), str(tmp_path / "never"))
    waiting(started)
    [inside] = [one for one in local_modal.containers if one.running]
    call.cancel(terminate_containers=True)
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=60)
    local_modal.wait(lambda: inside.state == "gone")
    assert act.remote("double", 1) == 2


def test_a_container_that_dies_loses_nothing(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    assert act.remote("die", str(tmp_path / "times"), 1) == "lived"
    assert (tmp_path / "times").read_text() == "xx"


def test_an_input_under_which_containers_die_fails_and_the_others_do_not(
    act: Any, local_modal: LocalModal, tmp_path: Path
) -> None:
    arguments = [("double", 1), ("die", str(tmp_path / "times"), 9), ("double", 3)]
    first, error, last = act.starmap(arguments, return_exceptions=True)
    assert (first, last) == (2, 6)
    assert "'act' failed: its container" in str(error)
    assert "ended with exit code 3" in str(error)
    assert (tmp_path / "times").read_text() == "xxx"


def test_a_preempted_container_loses_nothing(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    call = act.spawn("wait", str(started), str(gate))
    for times in range(1, 4):  # as often as would end a call if they counted as crashes
        waiting(started, times)
        [inside] = [one for one in local_modal.containers if one.running]
        local_modal.preempt(inside)
        local_modal.wait(lambda one=inside: one.state == "gone")
    gate.touch()
    assert call.get(timeout=60) == "waited"


def test_a_container_that_is_made_to_crash_counts_as_crashed(act: Any, local_modal: LocalModal, tmp_path: Path) -> None:
    started = tmp_path / "started"
    call = act.spawn("wait", str(started), str(tmp_path / "never"))
    for times in range(1, 4):
        waiting(started, times)
        [inside] = [one for one in local_modal.containers if one.running]
        local_modal.crash(inside)
        local_modal.wait(lambda one=inside: one.state == "gone")
    with pytest.raises(modal.exception.InternalFailure, match="ended with exit code -9"):
        call.get(timeout=60)


def waiting(file: Path, size: int = 1) -> None:
    """Wait until containers have written so many letters."""
    import time

    end = time.monotonic() + 60
    while not file.exists() or file.stat().st_size < size:
        assert time.monotonic() < end, f"{file} did not grow to {size}"
        time.sleep(0.005)
