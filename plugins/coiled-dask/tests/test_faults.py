"""Nothing is lost: workers, schedulers and data die under way, and each run ends in its results or in a sentence."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask_clusters import Harmed, hosts, until, workers_of

from hypernodes import (
    DaskBackend,
    Failure,
    GraphError,
    Pipeline,
    PlaceError,
    UnsendableError,
    VersionMismatchError,
    WorkerLostError,
    node,
)
from hypernodes_coiled import NoWorkersError, SchedulerLostError

pytestmark = [pytest.mark.slow, pytest.mark.long]

Make = Callable[..., DaskBackend]


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def slow_square(seconds: float) -> Any:
    @node(output_name="y")
    def square(x: int) -> int:
        time.sleep(seconds)
        return x * x

    return square


def held_up(gate: Path) -> Any:
    """A node that says in a file of each item that it began, and waits for the file `gate`."""
    folder, told = str(gate.parent), str(gate)

    @node(output_name="y")
    def wait(x: int) -> int:
        Path(folder, f"began-{x}").touch()
        while not os.path.exists(told):
            time.sleep(0.01)
        return x

    return wait


# workers -------------------------------------------------------------------------------------------------------------


def test_worker_that_dies_in_a_map_costs_no_item_and_no_order(own: Make) -> None:
    backend = own()
    victim = min(workers_of(backend))
    pipeline = Pipeline(nodes=[slow_square(0.01)], backend=backend)
    stream = pipeline.map_iter(rows(300), output_name="y")
    found = [next(stream) for _ in range(20)]
    os.kill(victim, signal.SIGKILL)
    found += stream
    assert found == [x * x for x in range(300)]


def test_workers_that_die_one_after_another_cost_no_item(own: Make) -> None:
    backend = own()
    pipeline = Pipeline(nodes=[slow_square(0.01)], backend=backend)
    pipeline.run(x=1)
    found, killed = [], set[int]()
    for y in pipeline.map_iter(rows(400), output_name="y"):
        found.append(y)
        if len(found) % 100 == 50:
            for child in psutil.Process(hosts()[0]).children():
                if (
                    child.pid not in killed
                    and len(killed) < 4
                    and any("spawn_main" in part for part in child.cmdline())
                ):
                    killed.add(child.pid)
                    child.kill()
                    break
    assert found == [x * x for x in range(400)]
    assert killed


def test_sole_holder_of_shared_data_dies_and_the_data_is_sent_again(own: Make) -> None:
    backend = own()
    shared = os.urandom(2_000_000)

    @node(output_name="y")
    def look(x: int, shared: bytes) -> tuple[int, int]:
        time.sleep(0.02)
        return x, shared[x]

    workers = workers_of(backend)
    stream = Pipeline(nodes=[look], backend=backend).map_iter(rows(200), inputs={"shared": shared}, output_name="y")
    found = [next(stream) for _ in range(20)]
    for victim in workers:
        os.kill(victim, signal.SIGKILL)
    found += stream
    assert found == [(x, shared[x]) for x in range(200)]


def test_poison_item_among_200_fails_alone(own: Make) -> None:
    caller = os.getpid()

    @node(output_name="y")
    def kill(x: int) -> int:
        if x == 137 and os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    found = Pipeline(nodes=[kill], name="main", backend=own()).map(rows(200), output_name="y", on_error="return")
    poison = found.pop(137)
    assert found == [x for x in range(200) if x != 137]
    assert isinstance(poison, Failure)
    assert isinstance(poison.error, WorkerLostError)
    assert poison.where == "main (item 137) > kill"
    assert "died while it ran this item" in poison.message


def test_item_that_needs_too_much_memory_fails_alone_with_a_hint(own: Make) -> None:
    backend = own(memory="400 MB")

    @node(output_name="y")
    def hoard(x: int) -> int:
        held = []
        while x == 5:
            held.append(b"x" * 20_000_000)
            time.sleep(0.05)
        return x

    found = Pipeline(nodes=[hoard], backend=backend).map(rows(10), output_name="y", on_error="return")
    hoarder = found.pop(5)
    assert found == [x for x in range(10) if x != 5]
    assert "more than its memory limit of 0.4 GB is killed like this" in hoarder.message


def test_all_workers_gone_is_a_sentence(harmed: Harmed, tmp_path: Path) -> None:
    workers = [harmed.worker(), harmed.worker()]
    harmed.until_connected(2)
    (tmp_path / "run").mkdir()
    gate = tmp_path / "run" / "gate"
    with DaskBackend(harmed.address, no_worker_timeout=2) as backend:
        stream = Pipeline(nodes=[held_up(gate)], backend=backend).map_iter(rows(20))
        kill_when_begun = until_began(gate, workers)
        with pytest.raises(NoWorkersError, match=r"has had no worker \(it has 0\).*no_worker_timeout=") as caught:
            next(iter_after(stream, kill_when_begun))
        assert harmed.address in str(caught.value)


def until_began(gate: Path, workers: list[Any]) -> Callable[[], None]:
    """Kills the workers when the first item has begun, from another thread than the run's."""
    import threading

    def kill() -> None:
        until(lambda: list(gate.parent.glob("began-*")), "an item to begin")
        for worker in workers:
            worker.kill()

    return threading.Thread(target=kill).start


def iter_after(stream: Iterator[Any], start: Callable[[], None]) -> Iterator[Any]:
    start()
    yield from stream


def test_run_waits_for_a_worker_that_comes_late(harmed: Harmed) -> None:
    import threading

    late = threading.Timer(1.0, harmed.worker)
    late.start()
    with DaskBackend(harmed.address) as backend:
        assert Pipeline(nodes=[slow_square(0)], backend=backend).map(rows(3), output_name="y") == [0, 1, 4]
    late.join()


# schedulers ----------------------------------------------------------------------------------------------------------


def test_scheduler_that_dies_ends_the_run_and_the_next_one_has_another(own: Make) -> None:
    backend = own()
    pipeline = Pipeline(nodes=[slow_square(0.01)], backend=backend)
    stream = pipeline.map_iter(rows(2000), output_name="y")
    found = [next(stream) for _ in range(30)]
    (host,) = hosts()
    os.kill(host, signal.SIGKILL)
    with pytest.raises(SchedulerLostError, match=r"was lost: .*the next run connects anew"):
        found += stream
    assert found == [x * x for x in range(len(found))]
    assert pipeline.map(rows(5), output_name="y") == [0, 1, 4, 9, 16]


def test_frozen_scheduler_is_noticed(harmed: Harmed, tmp_path: Path) -> None:
    harmed.worker()
    harmed.until_connected()
    gate = tmp_path / "run" / "gate"
    gate.parent.mkdir()
    with DaskBackend(harmed.address, scheduler_timeout=3) as backend:
        stream = Pipeline(nodes=[held_up(gate)], backend=backend).map_iter(rows(20))
        import threading

        def freeze() -> None:
            until(lambda: list(gate.parent.glob("began-*")), "an item to begin")
            os.kill(harmed.scheduler.pid, signal.SIGSTOP)

        with pytest.raises(SchedulerLostError, match="has not answered for 3 s"):
            next(iter_after(stream, threading.Thread(target=freeze).start))
        os.kill(harmed.scheduler.pid, signal.SIGCONT)


def test_cluster_that_ended_between_two_runs_is_started_again(own: Make, caplog: pytest.LogCaptureFixture) -> None:
    backend = own(workers=1, max_workers=1)
    pipeline = Pipeline(nodes=[slow_square(0)], backend=backend)
    assert pipeline.map(rows(4), output_name="y") == [0, 1, 4, 9]
    (host,) = hosts()
    members = psutil.Process(host).children(recursive=True)
    assert len(members) == 2, "a worker, and the tracker of semaphores"
    os.kill(host, signal.SIGKILL)
    until(lambda: host not in hosts(), "the cluster to end")
    assert pipeline.map(rows(4), output_name="y") == [0, 1, 4, 9]
    assert "another one is started" in caplog.text
    assert not any(map(psutil.Process.is_running, members))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system does not show its semaphores")
def test_cluster_that_was_killed_leaves_no_semaphore(own: Make, capfd: pytest.CaptureFixture[str]) -> None:
    backend = own(workers=1, max_workers=1)
    assert Pipeline(nodes=[slow_square(0)], backend=backend).run(x=2) == {"y": 4}
    (host,) = hosts()
    mapped = {line.split()[4] for line in Path(f"/proc/{host}/maps").read_text().splitlines()}
    semaphores = [file for file in Path("/dev/shm").glob("sem.*") if str(file.stat().st_ino) in mapped]
    assert semaphores
    os.kill(host, signal.SIGKILL)
    backend.close()
    assert not any(file.exists() for file in semaphores)
    assert capfd.readouterr().err == ""


# what does not fit ---------------------------------------------------------------------------------------------------

OTHER_PYTHON = """
import sys
class Info(tuple):
    major, minor, micro, releaselevel, serial = 3, 9, 1, "final", 0
sys.version_info = Info((3, 9, 1, "final", 0))
"""


def test_other_python_on_a_worker_is_a_sentence(harmed: Harmed) -> None:
    with DaskBackend(harmed.address) as backend:
        pipeline = Pipeline(nodes=[slow_square(0)], backend=backend)
        first = harmed.worker()
        assert pipeline.run(x=2) == {"y": 4}
        harmed.worker(preload=OTHER_PYTHON)  # it joins when the versions have been looked at
        harmed.until_connected(2)
        first.kill()
        with pytest.raises(
            VersionMismatchError, match=r"the place that received it has Python 3\.9; give both the same"
        ):
            pipeline.run(x=1)
        backend.close()
        with pytest.raises(
            VersionMismatchError, match=r"the worker tcp:.* runs Python 3\.9, here it is .*give both the"
        ):
            pipeline.run(x=1)


def test_worker_that_lacks_hypernodes_is_a_sentence(harmed: Harmed) -> None:
    # The machine's packages, as the worker tells of them, without ours.
    lacking = "import distributed.versions as versions\nversions._version_cached = lambda name: None\n"
    harmed.worker(preload=lacking)
    harmed.until_connected()
    backend = DaskBackend(harmed.address)
    with pytest.raises(VersionMismatchError, match="lacks hypernodes-core and hypernodes-coiled; install there"):
        Pipeline(nodes=[slow_square(0)], backend=backend).run(x=1)
    backend.close()


def test_module_that_workers_lack_is_named(harmed: Harmed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "only_here"
    home.mkdir()
    (home / "only_here_module.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(home))
    import only_here_module

    harmed.worker()
    harmed.until_connected()
    double = node(only_here_module.double, output_name="y")
    missing = "module 'only_here_module', which the pipeline needs, is missing"
    with DaskBackend(harmed.address) as backend, pytest.raises(UnsendableError, match=missing):
        Pipeline(nodes=[double], backend=backend).map(rows(2), output_name="y")


def test_resource_that_nobody_declares_is_refused_at_once(harmed: Harmed) -> None:
    harmed.worker()
    harmed.until_connected()
    heavy = node(lambda x: x, output_name="y", resources={"gpus": 2})
    with (
        DaskBackend(harmed.address) as backend,
        pytest.raises(GraphError, match="'main > y' needs 2 GPUs for each call, which no worker") as caught,
    ):
        Pipeline(nodes=[heavy], name="main", backend=backend).run(x=1)
    assert "dask worker --resources GPU=2" in str(caught.value)


def test_resource_that_one_worker_declares_is_used_there(harmed: Harmed) -> None:
    plain, rich = harmed.worker(), harmed.worker("--resources", "GPU=1")
    harmed.until_connected(2)
    heavy = node(lambda x: os.getpid(), output_name="heavy", resources={"gpus": 1})
    light = node(lambda x: x, output_name="light")
    with DaskBackend(harmed.address) as backend:
        found = Pipeline(nodes=[heavy, light], backend=backend).map(rows(30))
    assert {row["heavy"] for row in found} == {rich.pid}
    assert [row["light"] for row in found] == list(range(30))
    assert plain.poll() is None


def test_nobody_answers_at_the_address() -> None:
    backend = DaskBackend("tcp://127.0.0.1:9", connect_timeout=0.5)
    with pytest.raises(PlaceError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        Pipeline(nodes=[slow_square(0)], backend=backend).run(x=1)
    backend.close()
