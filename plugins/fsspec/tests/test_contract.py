"""The plugin's manifest keeps every promise of one."""

from __future__ import annotations

import pytest

from hypernodes.testing import ManifestContract


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "fsspec"
