"""Ray's errors in the words of this project: who is to blame, and what to do."""

from __future__ import annotations

import pytest
from ray import exceptions as ray

from hypernodes import PlaceError, VersionMismatchError, WorkerLostError
from hypernodes.plugin import Demand
from hypernodes_ray._address import address_of
from hypernodes_ray._connection import _told
from hypernodes_ray._losses import loss_of
from hypernodes_ray._share import Share, check, largest, room_for


def test_worker_that_died_is_blamed_on_what_it_ran() -> None:
    for error in (ray.WorkerCrashedError(), ray.OutOfMemoryError("killed, 1 GB used"), ray.ActorDiedError()):
        loss = loss_of(error)
        assert isinstance(loss.error, WorkerLostError)
        assert not loss.unbegun


def test_out_of_memory_is_told_with_what_to_say_of_the_node() -> None:
    said = str(loss_of(ray.OutOfMemoryError("Task was killed due to the node running low on memory.")).error)
    assert "ran out of memory" in said
    assert "@node(resources={'memory': '4GB'})" in said
    assert "running low on memory" in said


def test_actor_that_ran_out_of_memory_is_told_from_others() -> None:
    from ray.core.generated.common_pb2 import ActorDiedErrorContext

    def said(message: str) -> str:
        loss = loss_of(ray.ActorDiedError(ActorDiedErrorContext(error_message=message, actor_id=b"0" * 16)))
        assert isinstance(loss.error, WorkerLostError)
        assert not loss.unbegun
        return str(loss.error)

    found = said("The actor is dead.\nTask was killed due to the node running low on memory.\nMemory: all")
    assert found.startswith("Ray killed the worker that ran this item, as its node ran out of memory; say what")
    assert found.endswith("(Task was killed due to the node running low on memory.)")
    assert said("The actor is dead.") == "the Ray actor that ran this item died: The actor is dead."


def test_node_that_died_is_blamed_on_nobody() -> None:
    assert loss_of(ray.NodeDiedError("it died")).unbegun
    assert loss_of(ray.ObjectLostError("00" * 28, None, "")).unbegun
    assert loss_of(ray.TaskCancelledError()).unbegun


def test_missing_package_is_named_with_how_to_get_it_there() -> None:
    cause = ModuleNotFoundError("No module named 'hypernodes_ray'", name="hypernodes_ray")
    loss = loss_of(ray.RayTaskError("run", "trace", cause))
    assert type(loss.error) is PlaceError
    assert str(loss.error).startswith("module 'hypernodes_ray' is missing on the Ray cluster; install hypernodes-ray")
    other = loss_of(ray.RaySystemError("something else"))
    assert str(other.error).startswith("the Ray cluster failed: RaySystemError: ")


def test_other_versions_are_told_with_both() -> None:
    address = address_of("head:6379")
    error = _told(
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.0\n    Python: 3.8"), address
    )
    assert isinstance(error, VersionMismatchError)
    said = str(error)
    assert said.startswith("the Ray cluster at 'head:6379' has other versions than this process, which has Python 3.")
    assert "started with: Ray: 2.0 Python: 3.8" in said


def test_server_that_could_not_start_is_told_by_its_last_line() -> None:
    text = 'Initialization failure from server:\nTraceback (most recent call last):\n  File "x.py"\nRuntimeError: no'
    said = str(_told(ConnectionAbortedError(text), address_of("ray://head:10001")))
    assert "could not connect: ConnectionAbortedError: RuntimeError: no; it must have what this process has" in said
    assert "set RAY_AUTH_MODE=token" in said


def test_cluster_that_was_not_found_is_told_with_how_to_start_one() -> None:
    said = str(_told(ConnectionError("Could not find any running Ray instance."), address_of("auto")))
    assert said.startswith("no Ray cluster runs on this machine, or it cannot be reached: Could not find any")
    assert "leave the address out" in said


def test_room_is_counted_node_by_node() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0, "memory": 8e9}, {"CPU": 2.0, "memory": 4e9}]
    assert room_for(Share(Demand()), nodes) == 6
    assert room_for(Share(Demand(cpus=0.5)), nodes) == 12
    assert room_for(Share(Demand(cpus=3)), nodes) == 1
    assert room_for(Share(Demand(gpus=0.1)), nodes) == 4
    assert room_for(Share(Demand(cpus=0.1, gpus=0.1)), nodes) == 10
    assert room_for(Share(Demand(memory=3_000_000_000)), nodes) == 3
    assert room_for(Share(Demand(gpus=2)), nodes) == 0
    assert largest(nodes) == Demand(4, 1, 8_000_000_000)
    assert largest([]) == Demand()


@pytest.mark.parametrize("demand", [Demand(gpus=1.5), Demand(cpus=2.5)])
def test_amounts_that_ray_does_not_take_are_refused(demand: Demand) -> None:
    with pytest.raises(PlaceError, match="above 1 Ray takes whole numbers alone"):
        check(Share(demand, who="main > heavy"))


def test_actor_holds_no_cpu_that_nobody_asked_for() -> None:
    assert Share(Demand()).options() == {"num_cpus": 1}
    assert Share(Demand(), stays=True).options() == {}
    assert Share(Demand(1, 0.5, 1000), stays=True).options() == {"num_cpus": 1, "num_gpus": 0.5, "memory": 1000}
