"""`DaskEngine` and `DaskBackend` keep every promise of an engine and of a backend, on real processes over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hypernodes import DaskBackend, DaskEngine
from hypernodes.testing import BackendContract, EngineContract, ManifestContract


@pytest.mark.slow
class TestDaskEngine(EngineContract):
    can_kill_workers = True
    closes_in_workers = False  # workers outlive a backend that did not start them
    draw_ahead = 8 * DaskEngine.most_in_chunk * 2

    @pytest.fixture
    def engine(self, existing: dict[str, Any]) -> Any:
        self.existing = existing
        return DaskEngine()

    @pytest.fixture
    def backend(self, engine: Any) -> Iterator[Any]:
        with self.backend_with(engine, max_workers=2) as backend:
            yield backend

    def backend_with(self, engine: Any, **options: Any) -> DaskBackend:
        options.pop("resources", None)  # the workers declare a GPU each
        if options.get("max_workers") == 1:  # which says how much runs at once, and not that one worker does it all
            return DaskBackend(engine=engine, workers=1, **options)
        return DaskBackend(engine=engine, **self.existing, **options)


@pytest.mark.slow
class TestDaskBackend(BackendContract):
    can_kill_workers = True
    draw_ahead = 8 * DaskEngine.most_in_chunk * 2


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "coiled-dask"
