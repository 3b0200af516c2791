"""Both layouts: that of Graphviz where its program is, and our own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def without_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine without Graphviz: a search path with nothing on it."""
    (tmp_path / "no-programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


@pytest.fixture(params=["graphviz", "own"])
def layout(request: pytest.FixtureRequest) -> str:
    """Which layout the test has."""
    if request.param == "own":
        request.getfixturevalue("without_dot")
    elif shutil.which("dot") is None:
        pytest.skip("the program 'dot' of Graphviz is not installed")
    return str(request.param)
