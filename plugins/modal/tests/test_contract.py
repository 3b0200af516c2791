"""`ModalBackend` keeps the promises of a backend: the conformance kit, with the real client and real containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import ModalBackend
from hypernodes.testing import BackendContract, ManifestContract
from hypernodes_modal.testing import LocalModal


@pytest.fixture(scope="module")
def contracted(plane: LocalModal) -> Iterator[Any]:
    with ModalBackend(max_concurrent=2, app_name="contract") as backend:
        yield backend


class TestModalBackend(BackendContract):
    can_kill_workers = True

    @pytest.fixture
    def backend(self, contracted: Any) -> Any:
        return contracted


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "modal"
