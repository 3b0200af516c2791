"""Events and caches are the same in every pair of modes of the local backend, and with several backends in one plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import LocalBackend
from hypernodes.testing import SubprocessBackend
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


class TestPairOfModes(ContextContract):
    @pytest.fixture
    def backend(self, in_modes: LocalBackend) -> LocalBackend:
        return in_modes


class TestPairOfModesOnThreads(ContextContract):
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
