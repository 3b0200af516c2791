"""Requests and replies over one connection to a scheduler."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import dask
import pytest
from dask_clusters import Harmed, until
from distributed import Client, get_worker

from hypernodes import DaskBackend, Pipeline, node
from hypernodes.plugin import Stopped, payload_of
from hypernodes_coiled._link import Link
from hypernodes_coiled._local import LocalCluster
from hypernodes_coiled._pool import DaskPool, Patience
from hypernodes_coiled._request import How
from hypernodes_coiled._stopping import run_stoppable

REQUEST = payload_of([json.dumps({"format": "unknown"}).encode()], {})
"""A request to which every worker replies that it does not know this format."""


@pytest.fixture
def pool(cluster: LocalCluster) -> Iterator[DaskPool]:
    pool = DaskPool(Link(cluster.address, cluster.security), Patience(), may_end_workers=True)
    yield pool
    pool.close()


def test_request_given_up_while_its_result_is_fetched_takes_no_other_with_it(pool: DaskPool) -> None:
    client = pool.link.client

    async def turns(change: Any) -> None:
        for _ in range(5):  # Dask's client fetches five times at once: as if five results were slow to come
            found = change()
            if found is not None:
                await found

    pool.link.start(lambda: turns(client._gather_semaphore.acquire)).result()
    given_up, wanted = (pool.submit(REQUEST, {}, How()) for _ in range(2))
    until(lambda: client._gather_future and len(client._gather_keys) == 2, "both results to be fetched")
    given_up.cancel()
    until(lambda: given_up not in pool._outs, "the request to be forgotten")
    pool.link.start(lambda: turns(client._gather_semaphore.release)).result()
    with pytest.raises(CancelledError):
        given_up.result(60)
    assert b"format" in wanted.result(60)
    assert b"format" in pool.submit(REQUEST, {}, How()).result(60)


def begin_after_it_was_cancelled(folder: Path) -> None:
    """What a task does whose request is given up in the moment in which it begins."""
    worker = get_worker()
    key = worker.get_current_task()
    run_stoppable("another", (folder / "began").touch, may_end_worker=False)
    while worker.state.tasks[key].state != "cancelled" or not any("stopping" in name for name in worker.plugins):
        time.sleep(0.01)
    try:
        run_stoppable(key, (folder / "went on").touch, may_end_worker=False)
    except Stopped:
        (folder / "stopped").touch()


def test_task_that_is_cancelled_as_it_begins_is_stopped(cluster: LocalCluster, tmp_path: Path) -> None:
    with Client(cluster.address, security=cluster.security, set_as_default=False) as client:
        future = client.submit(begin_after_it_was_cancelled, tmp_path, pure=False)
        until(lambda: (tmp_path / "began").exists(), "the task to begin")
        future.cancel()
        until(lambda: len(list(tmp_path.iterdir())) > 1, "it to hear of that")
    assert {file.name for file in tmp_path.iterdir()} == {"began", "stopped"}


def test_own_source_is_not_read_for_each_request(pool: DaskPool) -> None:
    with dask.config.set({"distributed.diagnostics.computations.nframes": 2}):
        pool.submit(REQUEST, {}, How()).result(60)
    link = pool.link
    read = lambda dask_scheduler: [list(one.code) for one in dask_scheduler.computations]  # noqa: E731
    told = link.start(lambda: link.client.run_on_scheduler(read)).result(60)
    assert told and not any(told[-1])


@pytest.mark.slow
def test_task_whose_worker_dies_is_not_tried_again_by_dask_itself(harmed: Harmed) -> None:
    die = node(lambda x: os._exit(1), output_name="y")
    for _ in range(4):
        harmed.worker()
    harmed.until_connected(4)
    with DaskBackend(harmed.address) as backend:
        (found,) = Pipeline(nodes=[die], backend=backend).map([{"x": 1}], on_error="return", output_name="y")
        assert "died while it ran this item" in found.message
        with Client(harmed.address, set_as_default=False) as client:
            starts = client.run_on_scheduler(
                lambda dask_scheduler: [
                    key for key, _, state, *_ in dask_scheduler.transition_log if state == "processing"
                ]
            )
            left = len(client.scheduler_info()["workers"])
    ours = [key for key in starts if key.startswith("hypernodes-")]
    assert len(ours) == len(set(ours)) == 3  # twice among others, and once alone
    assert left == 1
