"""`ModalBackend` keeps the promises of a backend: the conformance kit, with the real client and real containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import ModalBackend, Pipeline, node
from hypernodes.testing import BackendContract, ManifestContract
from hypernodes_modal.testing import LocalModal

REAL = os.environ.get("HYPERNODES_MODAL_REAL") == "1"


@pytest.fixture(scope="module")
def contracted(client: Any) -> Iterator[Any]:
    """Two containers wait all the time: a promise about time should not depend on how long one takes to start."""
    with ModalBackend(max_concurrent=2, min_containers=2, app_name="contract", client=client) as backend:
        yield backend


def warm_up(backend: Any, plane: LocalModal) -> None:
    Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=backend).run(x=1)
    plane.wait(lambda: len(ready(plane)) >= 2)


def ready(plane: LocalModal) -> list[Any]:
    return [
        one
        for one in plane.containers
        if one.state == "ready" and one.function.app.name == "contract" and not one.function.app.stopped
    ]


class TestModalBackend(BackendContract):
    can_kill_workers = True

    @pytest.fixture
    def backend(self, contracted: Any, request: pytest.FixtureRequest) -> Any:
        if not REAL:
            warm_up(contracted, request.getfixturevalue("plane"))
        return contracted


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "modal"
