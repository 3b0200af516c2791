"""The promises of every engine and every manifest, kept by this one."""

from __future__ import annotations

from typing import ClassVar

import pytest
from acme_engine import LokyEngine
from loky.backend import resource_tracker

from hypernodes.testing import EngineContract, ManifestContract, no_leaks

__all__ = ["no_leaks"]


@pytest.fixture(autouse=True, scope="module")
def helper_process() -> None:
    """loky's resource tracker lives as long as this process: it is no test's leak."""
    resource_tracker.ensure_running()


class TestEngine(EngineContract):
    can_kill_workers: ClassVar[bool] = True
    # Chunks of quick items grow to `most_in_chunk`; some wait, some run, some are held back for the order.
    draw_ahead: ClassVar[int] = 2 * 8 * LokyEngine.most_in_chunk

    @pytest.fixture
    def engine(self) -> str:
        return "loky"


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "acme"
