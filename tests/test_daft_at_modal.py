"""The Daft engine runs inside of Modal's containers: two plugins that know nothing of each other."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hypernodes import ModalBackend, Pipeline, node
from hypernodes_modal.testing import LocalModal

pytest.importorskip("hypernodes_daft", reason="the Daft engine is not in this environment")


@pytest.mark.slow
def test_items_are_rows_of_a_dataframe_in_a_container_whose_image_has_daft() -> None:
    @node(output_name="y")
    def double(x: int) -> int:
        return 2 * x

    @node(output_name="z")
    def where(y: int) -> Any:
        return y, os.environ["MODAL_TASK_ID"]

    with LocalModal(capacity=1) as plane, plane.client() as client:
        with ModalBackend(engine="daft", client=client, max_concurrent=1) as backend:
            pipeline = Pipeline(nodes=[double, where], name="far", backend=backend)
            found = pipeline.map([{"x": x} for x in range(20)], output_name="z")
            assert [y for y, _ in found] == [2 * x for x in range(20)]
            assert {container for _, container in found} == {one.id for one in plane.containers}
        commands = [command for image in plane.images for command in image.commands]
        assert any(" daft==" in command for command in commands)
        assert plane.unimplemented == {}
