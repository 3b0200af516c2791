"""The control plane that the tests of the backend share, so that containers stay warm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes_modal.testing import LocalModal

REAL = os.environ.get("HYPERNODES_MODAL_REAL") == "1"
"""Whether a human asked to run these tests at Modal, with an account. Then those marked `cloud` run too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not REAL:
        for item in items:
            if item.get_closest_marker("cloud"):
                item.add_marker(pytest.mark.skip(reason="needs an account with Modal: HYPERNODES_MODAL_REAL=1"))


@pytest.fixture(scope="session")
def plane() -> Iterator[LocalModal]:
    """The control plane of the backend's tests: an input fails with the first container that dies under it."""
    if REAL:
        pytest.skip("looks at a control plane on this machine, or shares its disk")
    with LocalModal(capacity=3, crash_limit=1, secrets={"named": {"NAMED_TOKEN": "of-the-name"}}) as plane:
        yield plane
        assert plane.unimplemented == {}
        assert plane.errors == []


@pytest.fixture(scope="session")
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of that control plane alone, whatever other planes there are; the account's own at Modal."""
    if REAL:
        yield None
        return
    plane = request.getfixturevalue("plane")
    with plane.client() as client:
        yield client
