"""What every backend promises, on a cluster of Coiled's over TLS, with other places around it and inside it.

Promises for which the place is closed, or a worker dies, are held on a local cluster of the same engine, where starting
one again costs less.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dask.config
import pytest
from coiled_plane import ControlPlane
from coiled_support import HUSHED, backend, double, settings

from hypernodes import CoiledBackend, LocalBackend, Pipeline, node
from hypernodes.testing import BackendContract, SubprocessBackend
from hypernodes_coiled._engine import DaskEngine

pytestmark = [pytest.mark.slow, pytest.mark.long]

NAME = "shared"
PROMISES = [
    "test_n_items_out_and_n_items_home_in_their_order",
    "test_no_items_give_no_rows_and_every_column_empty",
    "test_every_value_comes_home_as_it_was",
    "test_twenty_megabytes_go_and_come_home",
    "test_lambdas_and_closures_cross",
    "test_async_nodes_are_awaited_over_there",
    "test_generator_nodes_give_lists_over_there",
    "test_far_failure_is_the_users_own_exception_with_its_whole_path",
    "test_far_failure_does_not_stop_its_neighbours",
    "test_far_failure_inside_a_map_names_both_items",
    "test_exception_that_cannot_travel_still_says_what_it_was",
    "test_input_and_result_that_cannot_be_sent_are_delivered_or_named",
    "test_dead_worker_costs_only_the_item_that_killed_it",
    "test_nodes_run_where_the_backend_is",
    "test_pipeline_inside_that_inherits_stays_there",
    "test_pipeline_inside_with_a_backend_of_its_own_comes_home",
    "test_ragged_maps_go_there_and_come_home",
    "test_stream_goes_there_and_comes_home_bit_by_bit",
    "test_one_backend_serves_two_threads_at_once",
    "test_random_pipelines_agree_with_the_reference_interpreter",
]


class Promises(BackendContract):
    """The contract, of which promises are taken one by one."""

    can_kill_workers = True
    draw_ahead = 8 * DaskEngine.most_in_chunk * 2


@pytest.fixture(scope="module")
def cluster(shared_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster of two workers under nannies that all tests of this file use, by its name."""
    with dask.config.set(settings(shared_plane)):
        place = backend(name=NAME, workers=2, worker_class=None, secrets={"KEY": HUSHED})
        with place:
            Pipeline(nodes=[double], backend=place).run(x=1)
            yield shared_plane
    assert shared_plane.unknown == []
    assert shared_plane.running == []


@pytest.fixture
def place(cluster: ControlPlane) -> Iterator[CoiledBackend]:
    """The backend that started the cluster: an equal one."""
    with dask.config.set(settings(cluster)):
        yield backend(name=NAME, workers=2, worker_class=None, secrets={"KEY": HUSHED})


@pytest.mark.parametrize("promise", PROMISES)
def test_backend_on_coiled_keeps_its_promises(promise: str, place: CoiledBackend) -> None:
    getattr(Promises(), promise)(backend=place)


def test_places_lie_in_each_other_and_come_home_between(place: CoiledBackend) -> None:
    """Local around Coiled around a bare interpreter around Coiled again."""
    where = {name: node(lambda x: os.getpid(), output_name=name) for name in ("near", "cloud", "bare", "again")}
    last = Pipeline(
        nodes=[where["again"], node(lambda doubled: doubled + 1, output_name="y")], name="last", backend=place
    )
    bare = Pipeline(nodes=[where["bare"], last], name="bare", backend=SubprocessBackend())
    cloud = Pipeline(nodes=[where["cloud"], double, bare], name="cloud", backend=place)
    main = Pipeline(nodes=[where["near"], cloud], name="main", backend=LocalBackend())
    for x, found in enumerate(main.map([{"x": x} for x in range(5)])):
        assert (found["doubled"], found["y"], found["near"]) == (2 * x, 2 * x + 1, os.getpid())
        assert len({found["near"], found["cloud"], found["bare"]}) == 3
        assert found["again"] not in (found["near"], found["bare"])


def test_failure_deep_inside_says_its_whole_path(place: CoiledBackend) -> None:
    fail = node(lambda doubled: 1 // doubled, output_name="y")
    last = Pipeline(nodes=[fail], name="last", backend=place)
    bare = Pipeline(nodes=[double, last], name="bare", backend=SubprocessBackend())
    main = Pipeline(nodes=[Pipeline(nodes=[bare], name="cloud", backend=place)], name="main", backend=LocalBackend())
    left = main.map([{"x": 0}, {"x": 1}], output_name="y", on_error="return")
    assert left[1] == 0
    assert (left[0].path, left[0].type_name) == (("main", "cloud", "bare", "last", "y"), "ZeroDivisionError")


def test_secrets_are_in_the_environment_of_the_workers_alone(cluster: ControlPlane, place: CoiledBackend) -> None:
    def reveal(x: Any) -> Any:
        return os.environ.get("KEY")

    assert Pipeline(nodes=[node(reveal, output_name="key")], backend=place).run(x=1) == {"key": HUSHED}
    assert os.environ.get("KEY") is None
    assert all(HUSHED.encode() not in request.raw for request in cluster.requests)
