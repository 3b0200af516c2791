"""Clusters for the tests: one of real processes for all that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import DaskBackend
from hypernodes_coiled._local import LocalCluster, LocalPlan


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two workers in processes of their own, over TLS."""
    cluster = LocalCluster(LocalPlan(workers=2, resources=(("GPU", 1),)))
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
