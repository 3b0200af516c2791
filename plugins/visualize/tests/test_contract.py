"""The manifest keeps every plugin's promises, and users find the class."""

from __future__ import annotations

import pytest

import hypernodes
from hypernodes.testing import ManifestContract
from hypernodes_visualize import ReportCallback


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "visualize"


def test_users_import_it_from_hypernodes() -> None:
    assert hypernodes.ReportCallback is ReportCallback


@pytest.mark.parametrize("filename", ["", None, 3])
def test_a_filename_that_is_none_is_refused(filename: object) -> None:
    with pytest.raises(TypeError, match=r"give the name of a file, such as 'report\.html'"):
        ReportCallback(filename)  # type: ignore[arg-type]
