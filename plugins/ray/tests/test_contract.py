"""The Ray backend keeps every promise of a backend, with its own engine and with others inside its workers."""

from __future__ import annotations

from typing import Any

import pytest

from hypernodes import RayBackend
from hypernodes.testing import BackendContract, ManifestContract
from hypernodes_ray._engine import RayEngine

pytestmark = pytest.mark.slow


class TestRay(BackendContract):
    can_kill_workers = True
    draw_ahead = 8 * RayEngine.most_in_chunk * 2

    @pytest.fixture
    def backend(self, connected: Any) -> RayBackend:
        return RayBackend(max_workers=2)


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "ray"
