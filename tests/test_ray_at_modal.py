"""The Ray engine runs inside of Modal's containers: two plugins that know nothing of each other."""

from __future__ import annotations

import os
import time
from typing import Any

import modal
import pytest

from hypernodes import Failure, ModalBackend, Pipeline, node, resource
from hypernodes_modal.testing import LocalModal

pytest.importorskip("hypernodes_ray", reason="the Ray engine is not in this environment")


QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # By default Ray's workers give way to every other process, and starve where other tests run.
    "RAY_worker_niceness": "0",
}


@pytest.mark.long  # Ray gives up a cluster that takes too long to start on a busy machine
def test_items_are_calls_on_a_ray_that_lives_as_long_as_its_container() -> None:
    @resource
    def process() -> tuple[int, int]:
        """A worker of Ray, and the node of Ray that started it."""
        return os.getpid(), os.getppid()

    @node(output_name="y")
    def divide(x: int) -> int:
        return 60 // x

    @node(output_name="told")
    def tell(y: int, process: tuple[int, int]) -> Any:
        return y, process

    pipeline = Pipeline(nodes=[divide, tell, process], name="far")
    with (
        LocalModal(capacity=1) as plane,
        plane.client() as client,
        ModalBackend(
            engine="ray", secrets=[modal.Secret.from_dict(QUIET)], client=client, max_concurrent=1, max_workers=1
        ) as backend,
    ):
        near = pipeline.with_backend(backend)
        first = near.run(x=60, output_name="told")
        failed, *others = near.map([{"x": x} for x in range(6)], output_name="told", on_error="return")
        assert isinstance(failed, Failure)
        assert isinstance(failed.error, ZeroDivisionError)
        assert (failed.path, failed.place) == (("far", "divide"), "modal:ray")

        # One worker of one Ray: the map found it as the run had left it.
        (container,) = plane.containers
        worker, raylet = first[1]
        assert others == [(y, (worker, raylet)) for y in (60, 30, 20, 15, 12)]
        assert len({os.getpid(), container.pid, raylet, worker}) == 4

        plane.retire(container)
        plane.wait(lambda: container.state == "gone")
        assert container.exit_code == 0
        until_gone(raylet, worker)
        assert any(" ray==" in command for image in plane.images for command in image.commands)
        assert plane.unimplemented == {}


def until_gone(*processes: int) -> None:
    for _ in range(6000):
        if not any(is_there(process) for process in processes):
            return
        time.sleep(0.01)
    raise TimeoutError("a Ray outlived its container")


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
