"""Fixtures for pytest: `from hypernodes_modal.testing.fixtures import local_modal` in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hypernodes_modal.testing._plane import LocalModal

__all__ = ["local_modal", "local_modal_session"]


@pytest.fixture(scope="session")
def local_modal_session() -> Iterator[LocalModal]:
    """A control plane for the whole test run, which `modal` in this process and in those that it starts talks to.

    Override it in your conftest.py to start it with other arguments.
    """
    with LocalModal() as local, local.use():
        yield local


@pytest.fixture
def local_modal(local_modal_session: LocalModal) -> Iterator[LocalModal]:
    """The control plane of the test run. A test fails that called what it does not serve, or that broke it."""
    unserved, errors = local_modal_session.unimplemented.copy(), len(local_modal_session.errors)
    yield local_modal_session
    assert local_modal_session.unimplemented - unserved == {}, "the test called what LocalModal does not serve"
    assert local_modal_session.errors[errors:] == []
