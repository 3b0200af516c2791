"""Events and caches are the same in every pair of modes of the local backend, and with several backends in one plan."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import LocalBackend, MemoryCache, Pipeline, node
from hypernodes.testing import EventLog, SubprocessBackend
from hypernodes.testing._batch_contract import BatchContract
from hypernodes.testing._context_contract import ContextContract
from hypernodes.testing._promises import check_random_cases

MODES = ("sequential", "async", "parallel")
PAIRS = list(itertools.product(MODES, MODES))


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def in_modes(request: pytest.FixtureRequest) -> Iterator[LocalBackend]:
    nodes, items = request.param
    with LocalBackend(node_execution=nodes, map_execution=items, max_workers=2) as backend:
        yield backend


@pytest.fixture(scope="module", params=[pair for pair in PAIRS if "parallel" in pair], ids="-".join)
def on_threads(request: pytest.FixtureRequest) -> Iterator[LocalBackend]:
    nodes, items = request.param
    with LocalBackend(engine="threaded", node_execution=nodes, map_execution=items, max_workers=2) as backend:
        yield backend


class TestPairOfModes(ContextContract, BatchContract):
    @pytest.fixture
    def backend(self, in_modes: LocalBackend) -> LocalBackend:
        return in_modes


class TestPairOfModesOnThreads(ContextContract, BatchContract):
    @pytest.fixture
    def backend(self, on_threads: LocalBackend) -> LocalBackend:
        return on_threads


@pytest.mark.parametrize("what", ["check_events", "check_cached"])
def test_pipelines_over_several_backends_agree(what: str) -> None:
    threads, processes = (
        LocalBackend(engine="threaded", max_workers=2),
        LocalBackend(engine="multiprocess", max_workers=2),
    )
    options: dict[str, Any] = {} if what == "check_events" else {"any_order": True}
    with threads, processes, SubprocessBackend(machines=2) as far:
        check_random_cases(40, threads, what, backends=[far, processes, LocalBackend()], **options)


@pytest.mark.parametrize("where", ["processes", "elsewhere"])
def test_result_that_cannot_leave_its_worker_is_not_kept_and_fails_nothing(where: str) -> None:
    guard = node(lambda x: threading.Lock(), output_name="guard")
    use = node(lambda guard, x: (type(guard).__name__, x), output_name="used")
    after = node(lambda used: [*used], output_name="after")
    backends: dict[str, Any] = {
        "processes": LocalBackend(node_execution="sequential", map_execution="parallel", max_workers=1),
        "elsewhere": SubprocessBackend(),
    }
    log = EventLog()
    with backends[where] as backend, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for options in ({}, {"cache": False}):
            first = node(guard.func, output_name="guard", **options)
            pipeline = Pipeline([first, use, after], backend=backend, cache=MemoryCache(), callbacks=[log])
            for _ in range(2):
                found = pipeline.map([{"x": x} for x in range(3)], output_name="after")
                assert found == [["lock", x] for x in range(3)]
            if not options:
                assert log.statuses() == {"after": ["cached"] * 3}
    reason = "'guard', which it reads, cannot leave the process that it is made in"
    assert any(reason in str(one.message) for one in warned)
