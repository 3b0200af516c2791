"""Fixtures for pytest: import `local_modal` and `local_modal_session` from here in a conftest.py.

`modal_anywhere` and `modal_anywhere_session` are for tests that need nothing but Modal: with HYPERNODES_MODAL_REAL=1
they leave `modal` as it is, so that the same tests run in the real cloud, and the tests that need `local_modal` skip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hypernodes_modal.testing._plane import LocalModal

__all__ = ["local_modal", "local_modal_session", "modal_anywhere", "modal_anywhere_session"]


def in_the_cloud() -> bool:
    return os.environ.get("HYPERNODES_MODAL_REAL") == "1"


@pytest.fixture(scope="session")
def local_modal_session() -> Iterator[LocalModal]:
    """A control plane for the whole test run, which `modal` in this process and in those that it starts talks to.

    Override it in your conftest.py to start it with other arguments.
    """
    if in_the_cloud():
        pytest.skip("needs the local control plane, and HYPERNODES_MODAL_REAL=1 asks for the real cloud")
    with LocalModal() as local, local.use():
        yield local


@pytest.fixture
def local_modal(local_modal_session: LocalModal) -> Iterator[LocalModal]:
    """The control plane of the test run. A test fails that called what it does not serve, or that broke it."""
    unserved, errors = local_modal_session.unimplemented.copy(), len(local_modal_session.errors)
    yield local_modal_session
    assert local_modal_session.unimplemented - unserved == {}, "the test called what LocalModal does not serve"
    assert local_modal_session.errors[errors:] == []


@pytest.fixture(scope="session")
def modal_anywhere_session(request: pytest.FixtureRequest) -> LocalModal | None:
    """Where the test run calls Modal: the control plane of the test run, or None for the real cloud."""
    return None if in_the_cloud() else request.getfixturevalue("local_modal_session")


@pytest.fixture
def modal_anywhere(request: pytest.FixtureRequest) -> LocalModal | None:
    """Where a test calls Modal that needs no `LocalModal`: `local_modal`, or None for the real cloud."""
    return None if in_the_cloud() else request.getfixturevalue("local_modal")
