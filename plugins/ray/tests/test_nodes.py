"""A cluster of two nodes: the same promises, and what happens when one of them is killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_support import PATIENCE, wait_for

from hypernodes import Pipeline, PlaceError, RayBackend, node
from hypernodes.testing import BackendContract
from hypernodes_ray._engine import RayEngine

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture
def second(connected: Any) -> Iterator[str]:
    """The id of a node that is added for the test, with one CPU and what it says is a GPU."""
    yield connected.tell(do="add", cpus=1, gpus=1)["node"]
    connected.tell(do="kill")


@pytest.fixture(scope="module")
def lasting(connected: Any) -> Iterator[Any]:
    """A second node for as long as this module's tests run."""
    connected.tell(do="add", cpus=1)
    yield connected
    connected.tell(do="kill")


def kill_when(head: Any, mark: Path, then: Path) -> threading.Thread:
    """Kill the node that was added last when there is a mark, and leave another one."""

    def run() -> None:
        wait_for(mark.exists)
        head.tell(do="kill")
        then.touch()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_killed_node_loses_nothing_and_counts_against_nobody(connected: Any, tmp_path: Path) -> None:
    doomed = connected.tell(do="add", cpus=1)["node"]
    runs = tmp_path / "runs"
    runs.mkdir()

    @node(output_name="y")
    def work(x: int) -> int:
        import ray

        (runs / f"{x} {os.getpid()}").touch()
        if ray.get_runtime_context().get_node_id() == doomed:
            (tmp_path / "there").touch()
            time.sleep(600)  # until its node is killed
        end = time.monotonic() + PATIENCE
        while not (tmp_path / "killed").exists():
            assert time.monotonic() < end, "no node was killed"
            time.sleep(0.02)
        return x

    killer = kill_when(connected, tmp_path / "there", tmp_path / "killed")
    with RayBackend() as backend:  # on every node that there is
        found = Pipeline(nodes=[work], backend=backend).map([{"x": x} for x in range(9)], output_name="y")
    killer.join()
    assert found == list(range(9))
    again = {name.split()[0] for name in os.listdir(runs)}
    assert len(again) == 9
    assert len(os.listdir(runs)) > 9


def test_node_that_alone_had_a_gpu_is_missed_and_nothing_waits_for_it(connected: Any, tmp_path: Path) -> None:
    connected.tell(do="add", cpus=1, gpus=1)

    @node(output_name="y", resources={"gpus": 0.5})
    def embed(x: int) -> int:
        (tmp_path / "there").touch()
        time.sleep(600)  # until its node is killed
        return x

    killer = kill_when(connected, tmp_path / "there", tmp_path / "killed")
    with pytest.raises(PlaceError, match=r"node 'main > embed' asks for 0.5 GPUs for each call, and .* node"):
        Pipeline(nodes=[embed], name="main", backend=RayBackend(max_workers=2)).map([{"x": x} for x in range(4)])
    killer.join()


def test_gpu_nodes_go_where_gpus_are_and_their_neighbours_anywhere(second: str) -> None:
    @node(output_name="embedded", resources={"gpus": 0.5})
    def embed(x: int) -> Any:
        import ray

        return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()

    plain = node(lambda embedded: embedded[0], output_name="where")
    with RayBackend() as backend:
        found = Pipeline(nodes=[embed, plain], backend=backend).map([{"x": x} for x in range(30)])
    assert {row["where"] for row in found} == {second}
    assert all(len(row["embedded"][1]) == 1 for row in found)


class TestRayOnTwoNodes:
    """The promises of a backend that a second node could break; `test_contract.py` has them all, on one."""

    is_remote = can_kill_workers = True
    draw_ahead = 8 * RayEngine.most_in_chunk * 3
    placed = BackendContract.placed

    @pytest.fixture
    def backend(self, lasting: Any) -> Iterator[RayBackend]:
        with RayBackend(max_workers=3) as backend:
            yield backend

    # what travels from node to node
    test_items_go_out_and_come_home = BackendContract.test_n_items_out_and_n_items_home_in_their_order
    test_twenty_megabytes_go_and_come_home = BackendContract.test_twenty_megabytes_go_and_come_home
    test_lambdas_and_closures_cross = BackendContract.test_lambdas_and_closures_cross
    test_far_failure_is_the_users_own = BackendContract.test_far_failure_is_the_users_own_exception_with_its_whole_path
    test_quick_items_are_not_mixed_up = BackendContract.test_quick_items_that_go_there_twice_are_not_mixed_up
    test_stream_comes_bit_by_bit = BackendContract.test_stream_goes_there_and_comes_home_bit_by_bit
    test_random_pipelines_agree = BackendContract.test_random_pipelines_agree_with_the_reference_interpreter
    # what lives on a node
    test_resource_may_need_a_resource = BackendContract.test_resource_may_need_a_resource
    test_dead_worker_costs_only_its_item = BackendContract.test_dead_worker_costs_only_the_item_that_killed_it
    # what the caller is told and keeps
    test_events_say_where = BackendContract.test_events_say_where_and_how_long_each_node_ran
    test_more_items_compute_only_what_is_new = BackendContract.test_more_items_compute_only_what_is_new
    test_backend_serves_again = BackendContract.test_backend_serves_again_after_a_failure_and_after_close
