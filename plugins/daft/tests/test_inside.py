"""The engine inside another place: a fresh interpreter that gets bytes and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from hypernodes.testing import BackendContract, SubprocessBackend
from hypernodes_daft import DaftEngine


@pytest.mark.slow
class TestInside:
    """Some promises of a place, kept with Daft in it. Each starts interpreters that load Daft, so not all of them."""

    is_remote: ClassVar[bool] = True
    can_kill_workers: ClassVar[bool] = True
    placed = BackendContract.placed

    @pytest.fixture
    def backend(self) -> Iterator[Any]:
        with SubprocessBackend(engine=DaftEngine(partitions=2)) as backend:
            yield backend

    test_items_go_out_and_come_home = BackendContract.test_n_items_out_and_n_items_home_in_their_order
    test_every_value_comes_home_as_it_was = BackendContract.test_every_value_comes_home_as_it_was
    test_lambdas_and_closures_cross = BackendContract.test_lambdas_and_closures_cross
    test_async_nodes_are_awaited_over_there = BackendContract.test_async_nodes_are_awaited_over_there
    test_far_failure_is_the_users_own = BackendContract.test_far_failure_is_the_users_own_exception_with_its_whole_path
    test_far_failure_inside_a_map = BackendContract.test_far_failure_inside_a_map_names_both_items
    test_dead_worker_costs_only_its_item = BackendContract.test_dead_worker_costs_only_the_item_that_killed_it
    test_random_pipelines_agree = BackendContract.test_random_pipelines_agree_with_the_reference_interpreter
