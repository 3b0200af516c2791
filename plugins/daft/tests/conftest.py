"""Daft's own threads live as long as the process: they are there before any test looks for what is left behind."""

from __future__ import annotations

import pytest

from hypernodes import LocalBackend, Pipeline, node


@pytest.fixture(scope="session", autouse=True)
def daft_is_awake() -> None:
    with LocalBackend(engine="daft") as backend:
        pipeline = Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=backend)
        assert pipeline.map([{"x": x} for x in range(200)], output_name="y") == list(range(200))
