"""The multiprocess engine keeps every promise of an engine, and its manifest those of a manifest."""

from __future__ import annotations

import pytest

from hypernodes.testing import EngineContract, ManifestContract
from hypernodes_local_multiprocess import MultiprocessEngine


class TestMultiprocess(EngineContract):
    can_kill_workers = True
    # The bound that the engine documents: eight chunks a worker, for a worker on each core.
    draw_ahead = 8 * MultiprocessEngine.most_in_chunk * MultiprocessEngine().default_workers()

    @pytest.fixture
    def engine(self) -> str:
        return "multiprocess"


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "local-multiprocess"
