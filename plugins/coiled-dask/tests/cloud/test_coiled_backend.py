"""A cluster of Coiled's lives as long as it should: real schedulers and workers, Coiled's own client."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from coiled_plane import TOKEN, ControlPlane
from coiled_support import HUSHED, backend, double, process, program, wait_for

from hypernodes import Pipeline, node
from hypernodes_coiled import SchedulerLostError

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_nothing_is_started_before_the_first_run_and_one_cluster_serves_all_until_close(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place = backend(secrets={"KEY": HUSHED}, environ={"MODE": "quiet"})
    seen = node(lambda x: (os.environ.get("KEY"), os.environ.get("MODE")), output_name="seen")
    pipeline = Pipeline(nodes=[process, double, seen], backend=place)
    assert plane.requests == []
    with place:
        first = pipeline.run(x=1)
        assert first["process"] != os.getpid()
        assert (first["doubled"], first["seen"]) == (2, (HUSHED, "quiet"))
        # an equal backend is the same place
        again = Pipeline(nodes=[process], backend=backend(secrets={"KEY": HUSHED}, environ={"MODE": "quiet"}))
        assert again.map([{"x": x} for x in range(50)], output_name="process") == [first["process"]] * 50
        assert len(plane.asked("create")) == 1
        assert len(plane.running) == 1
    assert plane.clusters[0].deleted
    assert plane.running == []
    assert not plane.asked("login")
    assert all(HUSHED.encode() not in request.raw for request in plane.requests)
    assert HUSHED not in caplog.text
    assert TOKEN not in caplog.text
    assert any("is ready; its dashboard is http" in line for line in caplog.messages)


def test_packages_of_this_machine_go_with_the_cluster_where_no_software_is_named(plane: ControlPlane) -> None:
    wanted = ["dask", "distributed", "cloudpickle", "pluggy"]
    with backend(software=None, package_sync_only=wanted) as place:
        assert Pipeline(nodes=[double], backend=place).run(x=1) == {"doubled": 2}
    (environment,) = plane.asked("environment")
    sent = {package["name"]: package["specifier"] for package in environment.body["packages"]}
    assert {name: f"=={version(name)}" for name in wanted}.items() <= sent.items()


def test_cluster_that_was_idle_too_long_is_started_again_for_the_next_run(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    place = backend(idle_timeout="500ms")
    pipeline = Pipeline(nodes=[double], backend=place)
    with place:
        assert pipeline.run(x=1) == {"doubled": 2}
        wait_for(lambda: not plane.running, "the scheduler's own end")  # it is the real one that ends
        assert pipeline.map([{"x": 2}, {"x": 3}], output_name="doubled") == [4, 6]
        assert len(plane.asked("create")) == 2
    assert plane.running == []
    assert any("another one is started" in line for line in caplog.messages)


def test_cluster_that_is_stopped_under_a_run_ends_it_with_a_sentence_and_the_next_run_starts_another(
    plane: ControlPlane, tmp_path: Path
) -> None:
    begun, goes_on = tmp_path / "begun", tmp_path / "goes-on"

    @node(output_name="y")
    def linger(x: int) -> int:
        import time

        begun.touch()
        while not goes_on.exists():
            time.sleep(0.02)
        return x

    def stop() -> None:
        wait_for(begun.exists, "the node")
        plane.clusters[0].stop("stopped in Coiled's pages")
        goes_on.touch()

    place = backend()
    pipeline = Pipeline(nodes=[linger], backend=place)
    with place:
        stopping = threading.Thread(target=stop)
        stopping.start()
        with pytest.raises(SchedulerLostError, match="was lost"):
            pipeline.run(x=1)
        stopping.join()
        assert pipeline.run(x=2) == {"y": 2}
        assert len(plane.asked("create")) == 2


def test_cluster_with_a_name_is_found_again_and_stays(plane: ControlPlane) -> None:
    kept = backend(name="kept", shutdown_on_close=False)
    with kept:
        first = Pipeline(nodes=[process], backend=kept).run(x=1)
    (cluster,) = plane.running
    found = backend(name="kept")
    with found:
        assert Pipeline(nodes=[process], backend=found).run(x=1) == first
    assert plane.running == [cluster]
    assert len(plane.asked("create")) == 1
    assert not cluster.deleted


def test_other_engines_run_inside_the_workers_and_may_start_processes_there(plane: ControlPlane) -> None:
    """Under a nanny, as Coiled starts workers: there Dask forbids processes unless it is told otherwise."""
    one = {"name": "one", "worker_class": None, "max_workers": 2}
    where: dict[str, set[int]] = {}
    with backend(engine="sequential", **one) as keeper:
        Pipeline(nodes=[double], backend=keeper).run(x=1)
        for engine in ("threaded", "multiprocess", "sequential"):
            inside = backend(engine=engine, **one)
            found = Pipeline(nodes=[process, double], backend=inside).map([{"x": x} for x in range(50)])
            inside.close()
            assert [row["doubled"] for row in found] == [2 * x for x in range(50)]
            where[engine] = {row["process"] for row in found}
        assert len(plane.asked("create")) == 1
    (worker,) = where["sequential"]
    assert where["threaded"] == {worker}
    assert not where["multiprocess"] & {worker, os.getpid()}


def test_range_of_workers_grows_with_the_work(plane: ControlPlane) -> None:
    @node(output_name="process")
    def busy(x: int) -> int:
        import time

        time.sleep(0.2)
        return os.getpid()

    with backend(workers=(1, 2)) as place:
        stream = Pipeline(nodes=[busy], backend=place).map_iter(
            ({"x": x} for x in itertools.count()), output_name="process"
        )
        seen = set[int]()
        while len(seen) < 2:
            seen.add(next(stream))
        stream.close()
    assert plane.payload["workers"] == 1
    (grown,) = plane.asked("scale-up")
    assert grown.body["n_workers"] == 1


SCRIPT = """
import os, sys, time
from pathlib import Path
from hypernodes import CoiledBackend, Pipeline, node

@node(output_name="y")
def far(x):
    while x == "for ever":
        time.sleep(0.01)
    return x

place = CoiledBackend(workers=1, software="prepared", credentials=None, worker_class="distributed.Worker")
pipeline = Pipeline(nodes=[far], backend=place)
print(pipeline.run(x="once")["y"], flush=True)
if sys.argv[1] == "stays":
    pipeline.run(x="for ever")
"""


@pytest.mark.parametrize("ending", ["ends", "stays"])
def test_program_that_ends_or_is_interrupted_leaves_no_cluster(
    plane: ControlPlane, tmp_path: Path, ending: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    with program(plane, str(script), ending) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "once\n"
        if ending == "stays":
            running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
    assert plane.clusters[0].deleted
    assert plane.running == []
    assert TOKEN not in errors
    assert (running.returncode == 0) == (ending == "ends")
    assert ("KeyboardInterrupt" in errors) == (ending == "stays")
    assert errors.count("Traceback") == (ending == "stays"), errors


ALONE = 'pipeline.run(x="once")'
NESTED = 'Pipeline(nodes=[pipeline, node(lambda y: y, output_name="z")]).map([{"x": "once"}] * 2)[0]'


@pytest.mark.parametrize("call", [ALONE, NESTED], ids=["alone", "nested"])
def test_program_that_is_interrupted_while_a_cluster_starts_leaves_none(
    plane: ControlPlane, tmp_path: Path, call: str
) -> None:
    plane.hold, plane.patience = True, 0
    with program(plane, "-c", SCRIPT.replace(ALONE, call), "ends") as running:
        wait_for(lambda: len(plane.asked("details")) > 1, "the wait for the cluster")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert running.returncode != 0
    assert plane.clusters[0].deleted


def test_smoke_script_finds_all_as_it_should_be(plane: ControlPlane, tmp_path: Path) -> None:
    script = Path(__file__).parents[4] / "examples" / "coiled_smoke.py"
    settings = {"TOKEN": TOKEN, "SERVER": plane.url, "SOFTWARE": "prepared", "WORKER__CLASS": "distributed.Worker"}
    environment = {**os.environ, **{f"DASK_COILED__{name}": value for name, value in settings.items()}}
    command = [sys.executable, str(script), "--region", "us-east-1"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ended.stdout.splitlines()[-1:] == ["all as it should be"], ended.stdout + ended.stderr
    assert ended.returncode == 0
    assert plane.running == []
    assert plane.payload["options"]["region_name"] == "us-east-1"
    assert b"hushed" not in b"".join(request.raw for request in plane.requests)
