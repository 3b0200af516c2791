"""`ModalBackend` keeps the promises of a backend: the conformance kit, with the real client and real containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import ModalBackend
from hypernodes.testing import BackendContract, ManifestContract


@pytest.fixture(scope="module")
def contracted(client: Any) -> Iterator[Any]:
    with ModalBackend(max_concurrent=2, app_name="contract", client=client) as backend:
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
