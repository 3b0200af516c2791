"""Clusters for the tests: one of real processes for all that do not harm it, and others to be harmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dask_clusters import KEPT, Harmed

from hypernodes import DaskBackend
from hypernodes_coiled._local import LocalCluster, LocalPlan

LEFT_TO_THE_COLLECTOR = (
    # Sockets that Dask had half closed when a loop ended, and, with a cluster in this very process, the loop of a task
    # that was stopped: the garbage collector closes them, in any later test.
    r"ignore:.*unclosed <s.*ocket:pytest.PytestUnraisableExceptionWarning",
    r"ignore:Exception ignored in.*<s.*ocket:pytest.PytestUnraisableExceptionWarning",
    r"ignore:Exception ignored in.*BaseEventLoop:pytest.PytestUnraisableExceptionWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in LEFT_TO_THE_COLLECTOR:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two workers in processes of their own, over TLS."""
    cluster = LocalCluster(LocalPlan(workers=2, resources=(("GPU", 1),)))
    KEPT.add(cluster.pid)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def existing(cluster: LocalCluster) -> dict[str, Any]:
    """What `DaskBackend` needs to run on that cluster as on any that somebody else started."""
    return {"cluster": cluster.address, "security": cluster.security, "may_end_workers": True}


@pytest.fixture
def backend(existing: dict[str, Any]) -> Iterator[DaskBackend]:
    with DaskBackend(**existing) as backend:
        yield backend


@pytest.fixture
def harmed(tmp_path: Path) -> Iterator[Harmed]:
    harmed = Harmed(tmp_path)
    yield harmed
    harmed.close()


@pytest.fixture
def own() -> Iterator[Callable[..., DaskBackend]]:
    """Makes backends with a cluster of their own, which end with the test."""
    made: list[DaskBackend] = []

    def make(**options: Any) -> DaskBackend:
        made.append(DaskBackend(**{"workers": 2, **options}))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
