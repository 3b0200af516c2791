"""What the tests of `CoiledBackend` share: a control plane on the loopback, and nothing of the user's own settings."""

from __future__ import annotations

import copy
import gc
import importlib
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import coiled_support
import dask.config
import pytest
from coiled_plane import ControlPlane
from coiled_support import settings

# The workers do not see this folder: what tests share travels along.
cloudpickle.register_pickle_by_value(coiled_support)

UNREAD = "ignore:Unclosed connection:ResourceWarning"
"""The client does not read every answer, and leaves it to the garbage collector to close those connections."""
SETTINGS = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.filterwarnings(UNREAD))


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings, no token and no credentials but those of the test; whoever opens a browser fails."""
    defaults = importlib.import_module("coiled.config").defaults["coiled"]

    def refuse(*_: object, **__: object) -> bool:
        raise AssertionError("a browser was to be opened")

    monkeypatch.setattr(webbrowser, "open", refuse)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "no-dask-config"))
    for name in ("TOKEN", "SERVER", "WORKSPACE", "ACCOUNT"):
        monkeypatch.delenv(f"DASK_COILED__{name}", raising=False)
    with dask.config.set(coiled=copy.deepcopy(defaults)):
        yield
    gc.collect()  # here, where the warning is known, and not in somebody else's test


@pytest.fixture(scope="session")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of this test's own, to which the client is logged in."""
    with ControlPlane(tmp_path / "plane") as plane, dask.config.set(settings(plane)):
        yield plane
        assert plane.unknown == [], "the client calls what the control plane does not know"
