"""Daft's runner for Ray on the cluster of a `RayBackend`: its promises, but for those that it says it does not keep.

A process has one runner of Daft's: these tests need one in which nothing has run Daft natively.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("hypernodes_daft", reason="the Daft engine is not in this environment")

from hypernodes import DaftEngine, IncompatibleEngineError, LocalBackend, Pipeline, PlaceError, RayBackend, node
from hypernodes.testing import BackendContract, EngineContract

BATCH = 64


@pytest.fixture(scope="module")
def daft_at_ray(connected: Any) -> Iterator[RayBackend]:
    from hypernodes_daft import _runner

    _runner.load()
    from daft import runners

    if runners._get_runner() is not None and runners.get_or_infer_runner_type() != "ray":
        pytest.skip("this process runs Daft natively, and cannot change its mind")
    with RayBackend(engine=DaftEngine(runner="ray", batch_size=BATCH), max_workers=2) as backend:
        yield backend


@pytest.mark.slow
@pytest.mark.long
class TestDaftAtRay(BackendContract):
    can_kill_workers = True
    draw_ahead = 20 * BATCH

    @pytest.fixture
    def backend(self, daft_at_ray: RayBackend) -> RayBackend:
        return daft_at_ray


@pytest.mark.slow
@pytest.mark.long
class TestDaftEngineAtRay(EngineContract):
    can_kill_workers = True
    closes_in_workers = False
    draw_ahead = 20 * BATCH

    def backend_with(self, engine: Any, **options: Any) -> RayBackend:
        options.pop("resources", None)  # of this machine, as LocalBackend has them
        return RayBackend(engine=engine, **options)

    @pytest.fixture
    def engine(self, daft_at_ray: RayBackend) -> Any:
        return daft_at_ray.engine

    @pytest.mark.xfail(reason="Daft's runner for Ray gives no GPU to a chunk: such nodes are refused")
    def test_demands_hold(self, engine: Any, tmp_path: Any) -> None:
        super().test_demands_hold(engine, tmp_path)

    @pytest.mark.xfail(reason="what a cluster has is known when it is open: then it is a PlaceError")
    def test_demand_that_this_machine_cannot_meet_is_refused_before_anything_runs(
        self, backend: Any, tmp_path: Any
    ) -> None:
        super().test_demand_that_this_machine_cannot_meet_is_refused_before_anything_runs(backend, tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_telemetry_is_off_in_dafts_workers(daft_at_ray: RayBackend) -> None:
    found = node(lambda x: os.environ.get("DAFT_ANALYTICS_ENABLED"), output_name="found")
    assert Pipeline([found], backend=daft_at_ray).run(x=1) == {"found": "0"}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("asked", [{"gpus": 1}, {"cpus": 64}, {"memory": "1000TB"}])
def test_demand_that_no_worker_is_sure_to_meet_is_refused(daft_at_ray: RayBackend, asked: dict[str, Any]) -> None:
    greedy = node(lambda x: x, output_name="y", name="greedy", resources=asked)
    with pytest.raises(PlaceError, match=r"node 'main > greedy' asks for .* Daft's runner for Ray can promise no more"):
        Pipeline([greedy], name="main", backend=daft_at_ray).run(x=1)


@pytest.mark.slow
@pytest.mark.long
def test_process_that_runs_daft_on_ray_is_refused_to_run_it_natively(daft_at_ray: RayBackend) -> None:
    same = Pipeline([node(lambda x: x, output_name="y")], backend=daft_at_ray)
    assert same.run(x=1) == {"y": 1}
    with pytest.raises(PlaceError, match="this process already runs Daft on 'ray', and Daft has one runner for each"):
        same.with_backend(LocalBackend(engine="daft")).run(x=1)


def test_explain_says_that_it_is_an_experiment_and_starts_nothing() -> None:
    @node(output_name="y")
    def add_one(x: int) -> int:
        raise AssertionError("nothing runs")

    inner = Pipeline([node(lambda each: each, output_name="kept")], name="cell")
    cell = inner.as_node(input_mapping={"xs": "each"}, map_over="xs")
    backend = RayBackend(engine=DaftEngine(runner="ray", batch_size=7))
    (text,) = Pipeline([add_one, cell], name="main", backend=backend).explain().sketches.values()
    assert text.splitlines() == [
        "Daft's runner for Ray (an experiment)",
        "* UDF main: add_one, cell",
        "|   a row is a chunk of items, 7 at the most",
    ]


@pytest.mark.parametrize("option", ["node_execution", "map_execution"])
def test_modes_are_refused_with_the_reason(option: str) -> None:
    named: dict[str, Any] = {option: "parallel"}
    with pytest.raises(IncompatibleEngineError, match="schedules nodes and items itself"):
        RayBackend(engine=DaftEngine(runner="ray"), **named)


@pytest.mark.parametrize("options", [{"processes": 2}, {"process_resources": {"cpus": 4}}])
@pytest.mark.parametrize("engine", ["ray", DaftEngine(runner="ray")])
def test_actors_are_refused_for_engines_that_spread_their_own_work(engine: Any, options: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleEngineError, match="itself spreads its work over the cluster"):
        RayBackend(engine=engine, **options)
