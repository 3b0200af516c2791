"""The promises of every engine and every manifest, kept by this one."""

from __future__ import annotations

from typing import ClassVar

import pytest

from hypernodes.testing import EngineContract, ManifestContract, no_leaks

__all__ = ["no_leaks"]


class TestEngine(EngineContract):
    can_kill_workers: ClassVar[bool] = True

    @pytest.fixture
    def engine(self) -> str:
        return "loky"


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "acme"
