"""The control plane of the tests: one for the session, or the real cloud where HYPERNODES_MODAL_REAL=1 asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hypernodes_modal.testing import LocalModal

REAL = os.environ.get("HYPERNODES_MODAL_REAL") == "1"


@pytest.fixture(scope="session")
def plane() -> Iterator[LocalModal]:
    """A control plane that `modal` in this process, and in programs started from here, talks to."""
    with LocalModal(capacity=3, crash_limit=1) as plane, plane.use():
        yield plane
        assert plane.unimplemented == {}
        assert plane.errors == []
