"""What `DaskBackend` takes, what it refuses and why, and which engines run inside the workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from dask_clusters import Harmed, hosts, until
from distributed import Client, LocalCluster, get_worker

from hypernodes import (
    DaskBackend,
    DaskEngine,
    IncompatibleEngineError,
    LocalBackend,
    MemoryCache,
    Pipeline,
    PlaceError,
    node,
)
from hypernodes.plugin import Demand
from hypernodes.testing import EngineContract, EventLog
from hypernodes_coiled._crew import Crew, Member, resources_for

process = node(lambda x: os.getpid(), output_name="process")
more = node(lambda x: x + 1, output_name="y")


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


# what is given -------------------------------------------------------------------------------------------------------


IN_PROCESS: dict[str, Any] = {"processes": False, "dashboard_address": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def in_process() -> Iterator[LocalCluster]:
    """A cluster whose workers are threads of this process."""
    with LocalCluster(n_workers=2, threads_per_worker=1, resources={"GPU": 1}, **IN_PROCESS) as cluster:
        yield cluster


def test_client_of_the_users_is_used_and_left_alone(in_process: LocalCluster) -> None:
    with Client(in_process, set_as_default=False) as client:
        own = client.submit(lambda: 7, pure=False)
        with DaskBackend(client) as backend:
            assert Pipeline(nodes=[more], backend=backend).map(rows(5), output_name="y") == [1, 2, 3, 4, 5]
        assert client.status == "running"
        assert own.result() == 7


def test_cluster_of_the_users_is_used_and_left_alone(in_process: LocalCluster) -> None:
    with DaskBackend(in_process) as backend:
        assert Pipeline(nodes=[more], backend=backend).run(x=1) == {"y": 2}
    assert in_process.status.name == "running"


@pytest.mark.slow
def test_cluster_that_a_function_makes_is_made_when_needed_and_closed(tmp_path: Any) -> None:
    made: list[LocalCluster] = []

    def make() -> LocalCluster:
        made.append(LocalCluster(n_workers=1, **IN_PROCESS))
        return made[-1]

    backend = DaskBackend(make)
    pipeline = Pipeline(nodes=[more], backend=backend)
    assert made == []
    assert pipeline.run(x=1) == pipeline.run(x=1) == {"y": 2}
    assert len(made) == 1
    backend.close()
    assert made[0].status.name == "closed"
    assert pipeline.run(x=2) == {"y": 3}
    assert len(made) == 2
    made[-1].close()  # as a cluster does that was idle for too long
    assert pipeline.run(x=3) == {"y": 4}
    assert len(made) == 3
    backend.close()


@pytest.mark.slow
def test_local_cluster_stays_for_the_next_run_and_ends_with_the_backend() -> None:
    backend = DaskBackend(workers=1)
    pipeline = Pipeline(nodes=[process], backend=backend)
    first = pipeline.run(x=1, output_name="process")
    assert first != os.getpid()
    assert pipeline.run(x=1, output_name="process") == first
    assert len(hosts()) == 1
    backend.close()
    assert hosts() == []


def test_worker_of_a_local_cluster_has_no_thread_that_may_abort_it_at_its_end(backend: DaskBackend) -> None:
    watches = node(lambda x: get_worker().monitor.monitor_gil_contention, output_name="watches")
    assert Pipeline(nodes=[watches], backend=backend).run(x=1) == {"watches": False}


def test_scheduler_beyond_this_machine_without_tls_is_refused_unless_told() -> None:
    for address in ("tcp://10.0.0.5:8786", "dask.example:8786", "ws://dask.example:80"):
        with pytest.raises(IncompatibleEngineError, match="without TLS: whoever reaches it can run code"):
            DaskBackend(address)
    assert DaskBackend("tcp://10.0.0.5:8786", insecure=True).insecure
    for address in ("tls://dask.example:8786", "tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"):
        assert DaskBackend(address).cluster == address


def test_options_of_a_local_cluster_make_no_sense_with_another() -> None:
    with pytest.raises(IncompatibleEngineError, match="workers=4 is for a cluster on this machine"):
        DaskBackend("tls://dask.example:8786", workers=4)
    with pytest.raises(IncompatibleEngineError, match="workers=0; give a whole number, 1 or more"):
        DaskBackend(workers=0)
    with pytest.raises(IncompatibleEngineError, match="no_worker_timeout=0; give seconds, more than 0"):
        DaskBackend(no_worker_timeout=0)


def test_what_is_no_cluster_is_named() -> None:
    backend = DaskBackend(42)
    with pytest.raises(PlaceError, match="int is no Dask cluster; give an address such as 'tls://host:8786'"):
        Pipeline(nodes=[more], backend=backend).run(x=1)
    backend = DaskBackend(lambda: lambda: None)
    with pytest.raises(PlaceError, match="returned a function; it is to return a cluster"):
        Pipeline(nodes=[more], backend=backend).run(x=1)


def test_wrong_tls_settings_are_a_sentence(existing: dict[str, Any]) -> None:
    from distributed.security import Security

    backend = DaskBackend(existing["cluster"], security=Security.temporary(), connect_timeout=2)
    with pytest.raises(PlaceError, match=r"no Dask scheduler answers at tls://.*TLS settings"):
        Pipeline(nodes=[more], backend=backend).run(x=1)
    backend.close()


def test_secrets_of_the_connection_are_in_no_repr(existing: dict[str, Any]) -> None:
    assert "PRIVATE" not in repr(DaskBackend(**existing))


# engines -------------------------------------------------------------------------------------------------------------


def test_dask_engine_needs_a_dask_cluster() -> None:
    with pytest.raises(IncompatibleEngineError, match=r"requires 'dask\.client'.*backends that can: .*dask"):
        LocalBackend(engine="dask")
    assert DaskBackend().map_execution == "parallel"
    assert DaskBackend(node_execution="sequential").map_execution == "parallel"


@pytest.mark.parametrize("engine", ["sequential", "async", "threaded"])
def test_other_engines_run_inside_the_workers(existing: dict[str, Any], engine: str) -> None:
    where = node(lambda x: (os.getpid(), threading.current_thread().name), output_name="where")
    with DaskBackend(engine=engine, **existing) as backend:
        found = Pipeline(nodes=[where, more], backend=backend).map(rows(20))
    assert [row["y"] for row in found] == list(range(1, 21))
    assert os.getpid() not in {row["where"][0] for row in found}
    assert any("threaded" in row["where"][1] for row in found) == (engine == "threaded")


def test_processes_inside_workers_are_refused_unless_the_cluster_allows_them() -> None:
    with pytest.raises(IncompatibleEngineError, match=r"requires 'processes'.*runs its workers as daemons"):
        DaskBackend("tls://dask.example:8786", engine="multiprocess")
    assert DaskBackend("tls://dask.example:8786", engine="multiprocess", processes=True).processes


@pytest.mark.slow
def test_processes_run_inside_the_workers_of_a_local_cluster() -> None:
    name = node(lambda x: " ".join(psutil.Process(os.getppid()).cmdline()), output_name="parent")
    with DaskBackend(engine="multiprocess", workers=1, max_workers=1) as backend:
        found = Pipeline(nodes=[name, more], backend=backend).map(rows(5))
    assert [row["y"] for row in found] == [1, 2, 3, 4, 5]
    assert all("hypernodes_local_multiprocess" in row["parent"] for row in found)


# use -----------------------------------------------------------------------------------------------------------------


def test_no_more_run_at_once_than_max_workers(existing: dict[str, Any], tmp_path: Any) -> None:
    folder = str(tmp_path)

    @node(output_name="most")
    def look(x: int) -> int:
        import pathlib
        import time

        own = pathlib.Path(folder, f"{x}")
        own.touch()
        most = len(list(pathlib.Path(folder).iterdir()))
        time.sleep(0.02)
        own.unlink()
        return most

    with DaskBackend(max_workers=1, **existing) as backend:
        assert set(Pipeline(nodes=[look], backend=backend).map(rows(20), output_name="most")) == {1}


def test_large_shared_input_travels_once_to_each_worker(backend: DaskBackend) -> None:
    shared = os.urandom(1_000_000)
    look = node(lambda x, shared: (x, len(shared)), output_name="y")
    found = Pipeline(nodes=[look], backend=backend).map(rows(300), inputs={"shared": shared}, output_name="y")
    assert found == [(x, 1_000_000) for x in range(300)]


def test_local_around_dask_around_local_brings_events_and_cache_keys_home(backend: DaskBackend) -> None:
    home = Pipeline(nodes=[node(lambda y: os.getpid(), output_name="home")], name="home", backend=LocalBackend())
    last = node(lambda home, y: (home, y), output_name="last")
    far = Pipeline(nodes=[more, home, last, process], name="far", backend=backend)
    log = EventLog()
    pipeline = Pipeline(nodes=[far], name="main", backend=LocalBackend(), cache=MemoryCache(), callbacks=[log])
    first = pipeline.map(rows(6))
    assert [row["last"] for row in first] == [(os.getpid(), x + 1) for x in range(6)]
    assert os.getpid() not in {row["process"] for row in first}
    assert {status for found in log.statuses().values() for status in found} == {"ok"}
    here = pipeline.with_options(callbacks=[log])
    assert here.map(rows(6)) == first
    assert {status for found in log.statuses().values() for status in found} == {"cached"}


def test_pipeline_that_a_node_runs_stays_on_its_worker(existing: dict[str, Any], backend: DaskBackend) -> None:
    address = existing["cluster"]

    @node(output_name="inner")
    def run_inside(x: int) -> Any:
        inside = node(lambda x: (x, os.getpid()), output_name="z")
        pipeline = Pipeline(nodes=[inside], backend=DaskBackend(address))
        return pipeline.map([{"x": x}, {"x": x + 1}], output_name="z"), os.getpid()

    found = Pipeline(nodes=[run_inside], backend=backend).map(rows(4), output_name="inner")
    assert [[x for x, _ in inner] for inner, _ in found] == [[x, x + 1] for x in range(4)]
    assert all({pid for _, pid in inner} == {own} for inner, own in found)


def test_client_is_a_handle_for_engines_of_others(backend: DaskBackend) -> None:
    session = backend.open()
    try:
        client = session.handles["dask.client"]
        assert client.submit(os.getpid, pure=False).result() != os.getpid()
        assert set(session.handles) == {"dask.client", "dask.session"}
    finally:
        session.close()


def test_demands_become_dasks_resources_where_they_are_declared() -> None:
    plain, rich = Member(2, 4_000_000_000, {}), Member(1, 1_000_000_000, {"GPU": 2, "MEMORY": 8e9})
    crew = Crew({"a": plain, "b": rich})
    assert resources_for(Demand(gpus=1), crew) == ({"GPU": 1}, Demand())
    assert resources_for(Demand(gpus=3), crew) == ({"GPU": 3}, Demand(gpus=3))
    assert resources_for(Demand(cpus=2), crew) == ({}, Demand())
    assert resources_for(Demand(cpus=3), crew) == ({}, Demand(cpus=3))
    assert resources_for(Demand(memory=8_000_000_000), crew) == ({"MEMORY": 8_000_000_000}, Demand())
    assert resources_for(Demand(memory=5_000_000_000), Crew({"a": plain})) == ({}, Demand(memory=5_000_000_000))
    assert resources_for(Demand(gpus=1), Crew({"a": plain})) == ({}, Demand(gpus=1))


def test_priority_is_an_option_of_the_engine(existing: dict[str, Any]) -> None:
    with DaskBackend(engine=DaskEngine(priority=5), **existing) as backend:
        assert Pipeline(nodes=[more], backend=backend).run(x=1) == {"y": 2}


def test_single_worker_of_several_threads_is_used_whole(harmed: Harmed) -> None:
    harmed.worker("--nthreads", "3")
    with DaskBackend(harmed.address) as backend:
        pipeline = Pipeline(nodes=[more], backend=backend)
        assert pipeline.map(rows(10), output_name="y") == list(range(1, 11))
        session = backend.open()
        until(lambda: session.workers == 3, "three threads")
        session.close()


@pytest.mark.slow
class TestInProcess(EngineContract):
    """The engine on a cluster in this very process, as tests use one."""

    closes_in_workers = False
    draw_ahead = 8 * DaskEngine.most_in_chunk * 2
    allowed_leaks = (("thread", "*Dask-*"),)  # those of the cluster's workers, which start when they are first needed

    @pytest.fixture
    def engine(self, in_process: LocalCluster) -> Any:
        self.cluster = in_process
        return DaskEngine()

    @pytest.fixture
    def backend(self, engine: Any) -> Iterator[Any]:
        with self.backend_with(engine, max_workers=2) as backend:
            yield backend

    def backend_with(self, engine: Any, **options: Any) -> DaskBackend:
        options.pop("resources", None)
        return DaskBackend(self.cluster, engine=engine, **options)
