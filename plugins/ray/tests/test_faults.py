"""What goes wrong on a cluster: workers and nodes that are killed, work that is stopped, what no node has."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ray_support import PATIENCE, rows, wait_for

from hypernodes import (
    Failure,
    PlaceError,
    RayBackend,
    WorkerLostError,
    failure_of,
    node,
    resource,
)
from hypernodes import Pipeline as _Pipeline
from hypernodes.plugin import Demand

pytestmark = [pytest.mark.slow, pytest.mark.long]


def Pipeline(nodes: list[Any], **options: Any) -> _Pipeline:
    return _Pipeline(nodes=nodes, name="main", **{"backend": RayBackend(max_workers=2), **options})


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:
        return False


# workers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_item_that_ends_its_worker_fails_alone_and_says_so(connected: Any, end: str) -> None:
    @node(output_name="y")
    def crash(x: int) -> int:
        if x == 5:
            exec(end, {"os": os})
        return x

    found = Pipeline([crash]).map(rows(12), output_name="y", on_error="return")
    failed = found.pop(5)
    assert isinstance(failed, Failure)
    assert isinstance(failed.error, WorkerLostError)
    assert (failed.path, failed.item) == (("main", "crash"), 5)
    assert "the Ray worker that ran this item died" in failed.message
    assert found == [x for x in range(12) if x != 5]


def test_worker_killed_from_outside_in_mid_map_loses_nothing(connected: Any, tmp_path: Path) -> None:
    @node(output_name="y")
    def work(x: int) -> int:
        if x == 7 and not (tmp_path / "pid").exists():
            (tmp_path / "pid.part").write_text(str(os.getpid()))
            os.rename(tmp_path / "pid.part", tmp_path / "pid")
            time.sleep(300)  # until it is killed
        return x

    def kill() -> None:
        wait_for((tmp_path / "pid").exists)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = Pipeline([work]).map(rows(20), output_name="y")
    killer.join()
    assert found == list(range(20))


def test_actor_that_dies_costs_only_the_guilty_item_and_its_resource_is_built_anew(connected: Any) -> None:
    @resource
    def model() -> Any:
        return os.getpid()

    @node(output_name="y")
    def use(x: int, model: int) -> Any:
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x, model == os.getpid()

    found = Pipeline([use, model]).map(rows(10), output_name="y", on_error="return")
    failed = found.pop(3)
    assert isinstance(failed.error, WorkerLostError)
    assert failed.message.startswith("the Ray actor that ran this item died: ")
    assert found == [(x, True) for x in range(10) if x != 3]


# stopping -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stateful", [False, True], ids=["task", "actor"])
def test_closed_stream_stops_what_runs(connected: Any, tmp_path: Path, stateful: bool) -> None:
    @resource
    def model() -> int:
        return 0

    @node(output_name="y")
    def work(x: int, model: int = 0) -> int:
        if x == 0:
            return x
        (tmp_path / f"pid{x}.part").write_text(str(os.getpid()))
        os.rename(tmp_path / f"pid{x}.part", tmp_path / f"pid{x}")
        time.sleep(600)
        return x

    nodes = [work, model] if stateful else [node(lambda x: work.func(x), output_name="y")]
    with closing(Pipeline(nodes).map_iter(rows(3), output_name="y")) as stream:
        assert next(stream) == 0
        wait_for((tmp_path / "pid1").exists)
    pid = int((tmp_path / "pid1").read_text())
    wait_for(lambda: not is_alive(pid))
    quick = node(lambda x: -x, output_name="y")
    assert Pipeline([quick]).map(rows(3), output_name="y") == [0, -1, -2]


def test_actors_close_what_they_hold_when_the_backend_is_closed(connected: Any, tmp_path: Path) -> None:
    @resource
    def held() -> Iterator[int]:
        yield os.getpid()
        (tmp_path / f"closed{os.getpid()}").touch()

    @node(output_name="y")
    def use(x: int, held: int) -> int:
        return held

    with RayBackend(max_workers=2) as backend:
        pipeline = Pipeline([use, held], backend=backend)
        pids = set(pipeline.map(rows(40), output_name="y"))
        assert set(pipeline.map(rows(10), output_name="y")) <= pids  # they stay between runs
        assert not list(tmp_path.iterdir())
    assert {file.name for file in tmp_path.iterdir()} == {f"closed{pid}" for pid in pids}
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid))


# resources of nodes -------------------------------------------------------------------------------------------------


def test_gpu_that_no_node_has_is_refused_before_anything_waits(connected: Any) -> None:
    @node(output_name="y", resources={"gpus": 1})
    def embed(x: int) -> int:
        return x

    with pytest.raises(PlaceError) as caught:
        Pipeline([embed]).map(rows(3))
    said = str(caught.value)
    assert said.startswith(
        "node 'main > embed' asks for 1 GPU for each call, and no node of the Ray cluster has that: the most that one "
        "has is 2 CPUs"
    )
    assert "autoscales=True" in said


def test_fraction_that_ray_does_not_take_is_said(connected: Any) -> None:
    heavy = node(lambda x: x, output_name="y", name="heavy", resources={"cpus": 1.5})
    with pytest.raises(PlaceError, match=r"node 'main > heavy' asks for 1.5 CPUs; above 1 Ray takes whole numbers"):
        Pipeline([heavy]).run(x=1)


def test_each_call_is_given_what_its_node_asks_for(connected: Any) -> None:
    import ray

    def given(**asked: Any) -> dict[str, float]:
        found: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
        return found

    plain = node(lambda x: given(), output_name="plain")
    half = node(lambda x: given(), output_name="half", resources={"cpus": 0.5})
    double = node(lambda half: given(), output_name="double", resources={"cpus": 2, "memory": "1MB"})
    found = Pipeline([plain, half, double]).run(x=1)
    assert found["plain"] == {"CPU": 1.0}
    assert found["half"] == {"CPU": 0.5}
    assert found["double"] == {"CPU": 2.0, "memory": 1_000_000.0}
    (row,) = Pipeline([plain, half, double]).map(rows(1))
    assert row == found


def test_actors_that_hold_all_cpus_let_go_for_work_that_waits(connected: Any) -> None:
    @resource
    def model() -> int:
        return 1

    @node(output_name="y", resources={"cpus": 2})
    def heavy(x: int, model: int) -> int:
        return x + model

    last = node(lambda y: -y, output_name="z")
    with RayBackend(max_workers=2) as backend:
        found = Pipeline([heavy, model, last], backend=backend).map(rows(3), output_name="z")
    assert found == [-x - 1 for x in range(3)]


def test_idle_actors_of_one_backend_let_go_for_the_work_of_another(connected: Any) -> None:
    @resource
    def model() -> int:
        return 1

    @node(output_name="y", resources={"cpus": 2})
    def heavy(x: int, model: int) -> int:
        return x + model

    with RayBackend(max_workers=1) as one, RayBackend(max_workers=2) as other:
        for backend in (one, other):
            assert Pipeline([heavy, model], backend=backend).map(rows(3), output_name="y") == [1, 2, 3]


def test_actor_that_nobody_waits_for_any_more_is_given_up(connected: Any) -> None:
    import ray
    from ray._private import state

    class Holder:
        def is_there(self) -> bool:
            return True

    def pending() -> int:
        listed = state.actors().values()
        return sum(actor["State"] in ("DEPENDENCIES_UNREADY", "PENDING_CREATION") for actor in listed)

    holder = ray.remote(num_cpus=1)(Holder).remote()
    assert ray.get(holder.is_there.remote())
    session: Any = RayBackend().open()
    try:
        runtime = session.handles["ray.runtime"]
        share = runtime.cluster.share(Demand(cpus=2), stays=True, most=1, who="main > heavy")
        call = runtime.submit(share, b"", {}, owner=session)
        wait_for(pending)
        assert call.cancel()
        wait_for(lambda: not pending())
    finally:
        ray.kill(holder)
        session.close()


# values -------------------------------------------------------------------------------------------------------------


def test_arrays_arrive_writable(connected: Any) -> None:
    import numpy as np

    @node(output_name="y")
    def scale(x: Any, table: Any) -> Any:
        x += 1
        table[0] = 5
        return x, table[:2]

    table = np.zeros(200_000)
    found = Pipeline([scale]).map([{"x": np.zeros(3)}, {"x": np.ones(3)}], inputs={"table": table}, output_name="y")
    assert [x.tolist() for x, _ in found] == [[1.0] * 3, [2.0] * 3]
    assert table[0] == 0


def test_shared_input_travels_once(connected: Any) -> None:
    class Counted:
        """Counts how often this process pickles it."""

        pickled = 0

        def __reduce__(self) -> Any:
            Counted.pickled += 1
            return bytes, (b"\0" * 2_000_000,)

    @node(output_name="y")
    def size(x: int, shared: Any) -> int:
        time.sleep(0.1)
        return len(shared)

    found = Pipeline([size]).map(rows(20), inputs={"shared": Counted()}, output_name="y")
    assert found == [2_000_000] * 20
    assert Counted.pickled <= 3


def test_parallel_branches_of_a_run_overlap(connected: Any, tmp_path: Path) -> None:
    def meet(own: str, other: str) -> str:
        (tmp_path / own).touch()
        end = time.monotonic() + PATIENCE
        while not (tmp_path / other).exists():
            assert time.monotonic() < end, "the other branch never began"
            time.sleep(0.02)
        return own

    left = node(lambda x: meet("left", "right"), output_name="left")
    right = node(lambda x: meet("right", "left"), output_name="right")
    both = node(lambda left, right: left + right, output_name="both")
    assert Pipeline([left, right, both]).run(x=1, output_name="both") == "leftright"


def test_failing_map_names_item_and_node_and_leaves_the_place_usable(connected: Any) -> None:
    check = node(lambda x: 1 // (x - 4), output_name="y", name="check")
    pipeline = Pipeline([check])
    with pytest.raises(ZeroDivisionError) as caught:
        pipeline.map(rows(50))
    failure = failure_of(caught.value)
    assert failure is not None
    assert (failure.item, failure.path, failure.place) == (4, ("main", "check"), "ray:ray")
    assert pipeline.run(x=5) == {"y": 1}


def test_session_of_the_user_is_used_and_left_alone(connected: Any) -> None:
    import ray

    add = node(lambda x: x + 1, output_name="y")
    with RayBackend() as backend:
        assert Pipeline([add], backend=backend).run(x=1) == {"y": 2}
    assert ray.is_initialized()
    with pytest.raises(PlaceError, match=r"RayBackend\(num_cpus=1\) would start a cluster, and this process is conn"):
        Pipeline([add], backend=RayBackend(num_cpus=1)).run(x=1)
    with pytest.raises(PlaceError, match=r"is connected to the Ray cluster at '127.0.0.1:\d+' by ray.init\(\)"):
        Pipeline([add], backend=RayBackend("10.0.0.1:6379")).run(x=1)
    assert Pipeline([add], backend=RayBackend(connected.address)).run(x=1) == {"y": 2}
