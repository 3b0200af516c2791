"""The Ray backend keeps every promise of a backend, with its own engine and with others inside its workers."""

from __future__ import annotations

from typing import Any

import pytest

from hypernodes import Pipeline, RayBackend, node
from hypernodes.testing import BackendContract, ManifestContract
from hypernodes_ray._engine import RayEngine

pytestmark = pytest.mark.slow


class TestRay(BackendContract):
    can_kill_workers = True
    draw_ahead = 8 * RayEngine.most_in_chunk * 2
    allowed_leaks = (("descriptor", "* socket:*"),)  # Ray's own, to each worker that it starts meanwhile

    @pytest.fixture
    def backend(self, connected: Any) -> RayBackend:
        found = RayBackend(max_workers=2)
        # So that a worker is there: a busy machine takes seconds to start one, and some tests have a timeout of three.
        with found:
            Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=found).map([{"x": x} for x in range(4)])
        return found


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "ray"
