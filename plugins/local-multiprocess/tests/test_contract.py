"""The multiprocess engine keeps every promise of an engine, and its manifest those of a manifest."""

from __future__ import annotations

import pytest

from hypernodes.testing import EngineContract, ManifestContract


class TestMultiprocess(EngineContract):
    can_kill_workers = True

    @pytest.fixture
    def engine(self) -> str:
        return "multiprocess"


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "local-multiprocess"
