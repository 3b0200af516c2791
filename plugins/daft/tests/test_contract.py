"""The Daft engine keeps every promise of an engine, and its manifest those of a manifest."""

from __future__ import annotations

import pytest

from hypernodes.testing import EngineContract, ManifestContract


class TestDaft(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return "daft"


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "daft"
