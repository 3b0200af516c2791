"""The Daft engine keeps every promise of an engine, and its manifest those of a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from hypernodes import DaftEngine, LocalBackend
from hypernodes.testing import EngineContract, ManifestContract


class TestDaft(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return "daft"


@pytest.mark.slow
class TestCrumbs:
    """Where rows come in crumbs, most of what a window or a batch ends with is in the middle of something."""

    can_kill_workers: ClassVar[bool] = False
    draw_ahead: ClassVar[int] = 100
    placed = EngineContract.placed

    @pytest.fixture
    def backend(self) -> Iterator[Any]:
        with LocalBackend(engine=DaftEngine(window=3, batch_size=2), max_workers=3) as backend:
            yield backend

    test_random_pipelines_agree = EngineContract.test_random_pipelines_agree_with_the_reference_interpreter
    test_random_pipelines_are_kept = (
        EngineContract.test_random_pipelines_give_the_same_with_no_cache_an_empty_and_a_full_one
    )
    test_events_of_random_pipelines = EngineContract.test_events_of_random_pipelines_are_those_of_one_node_after_another
    test_stream_keeps_the_order = EngineContract.test_stream_keeps_the_order
    test_endless_items_are_drawn_a_bounded_step_ahead = EngineContract.test_endless_items_are_drawn_a_bounded_step_ahead
    test_ragged_maps_inside_a_map = EngineContract.test_ragged_maps_inside_a_map
    test_failure_inside_maps_names_the_item_of_every_level = (
        EngineContract.test_failure_inside_maps_names_the_item_of_every_level
    )
    test_failing_item_of_a_batch_fails_alone = EngineContract.test_failing_item_of_a_batch_fails_alone


class TestManifest(ManifestContract):
    @pytest.fixture
    def entry_point(self) -> str:
        return "daft"
