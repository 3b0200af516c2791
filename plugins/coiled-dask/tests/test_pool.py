"""Requests and replies over one connection to a scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import dask
import pytest
from dask_clusters import until

from hypernodes.plugin import payload_of
from hypernodes_coiled._link import Link
from hypernodes_coiled._local import LocalCluster
from hypernodes_coiled._pool import DaskPool, Patience
from hypernodes_coiled._request import How

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


def test_own_source_is_not_read_for_each_request(pool: DaskPool) -> None:
    with dask.config.set({"distributed.diagnostics.computations.nframes": 2}):
        pool.submit(REQUEST, {}, How()).result(60)
    link = pool.link
    read = lambda dask_scheduler: [list(one.code) for one in dask_scheduler.computations]  # noqa: E731
    told = link.start(lambda: link.client.run_on_scheduler(read)).result(60)
    assert told and not any(told[-1])
