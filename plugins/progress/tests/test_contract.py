"""The manifest keeps every plugin's promises, and users find the class."""

from __future__ import annotations

import pytest

import hypernodes
from hypernodes.testing import ManifestContract
from hypernodes_progress import ProgressCallback


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "progress"


def test_users_import_it_from_hypernodes() -> None:
    assert hypernodes.ProgressCallback is ProgressCallback


@pytest.mark.parametrize(("options", "said"), [({"max_rows": 1}, "max_rows=1"), ({"every": -1.0}, "every=-1.0")])
def test_an_impossible_setting_is_refused_by_name(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProgressCallback(**options)  # type: ignore[arg-type]
