"""Resources in worker processes: one for each worker, over many calls, closed when the pool ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypernodes import LocalBackend, Pipeline, Resource, ResourceError, node, resource
from hypernodes.testing import EventLog
from hypernodes.testing._event_tree import event_problems

pytestmark = pytest.mark.slow

ITEMS = [{"x": at} for at in range(40)]


def model_in(folder: Path, name: str = "model") -> Resource:
    """A resource that leaves a file for each process that builds it, and one for each that closes it."""
    where = str(folder)

    def build() -> Iterator[int]:
        Path(where, f"{name} built {os.getpid()}").touch(exist_ok=False)
        yield os.getpid()
        Path(where, f"{name} closed {os.getpid()}").touch(exist_ok=False)

    return resource(build, name=name)


def client_in(folder: Path) -> Resource:
    where = str(folder)

    async def build() -> AsyncIterator[Any]:
        Path(where, f"client built {os.getpid()}").touch(exist_ok=False)
        loop = asyncio.get_running_loop()
        yield os.getpid()
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        Path(where, f"client closed {os.getpid()}").touch(exist_ok=False)

    return resource(build, name="client")


def pids(folder: Path, what: str) -> set[int]:
    return {int(file.name.removeprefix(what)) for file in folder.iterdir() if file.name.startswith(what)}


@node(output_name="y")
def where(x: int, model: int) -> tuple[int, int]:
    return os.getpid(), model


@node(output_name="y")
async def where_async(x: int, client: int) -> tuple[int, int]:
    return os.getpid(), client


@node(output_name="y")
def fail(x: int, model: int) -> int:
    raise ValueError(f"no {x}")


def test_each_worker_builds_its_own_once_over_many_calls_and_closes_it_with_the_pool(tmp_path: Path) -> None:
    backend = LocalBackend(engine="multiprocess", max_workers=2)
    pipeline = Pipeline([model_in(tmp_path), where], backend=backend)
    with backend:
        used: set[int] = set()
        for _ in range(3):
            found = pipeline.map(ITEMS, output_name="y")
            assert all(ran == built for ran, built in found), "no resource leaves its process"
            used |= {ran for ran, _ in found}
        assert pipeline.run(x=1, output_name="y")[0] in used | pids(tmp_path, "model built ")
        assert used <= pids(tmp_path, "model built ")
        assert os.getpid() not in used
        assert pids(tmp_path, "model closed ") == set()
    assert pids(tmp_path, "model closed ") == pids(tmp_path, "model built ") != set()


def test_async_resources_are_closed_on_the_loop_of_their_worker(tmp_path: Path) -> None:
    backend = LocalBackend(engine="multiprocess", max_workers=1)
    pipeline = Pipeline([client_in(tmp_path), where_async], backend=backend)
    with backend:
        for _ in range(2):
            assert all(ran == built for ran, built in pipeline.map(ITEMS, output_name="y"))
    assert pids(tmp_path, "client closed ") == pids(tmp_path, "client built ") != set()


def test_workers_close_what_they_built_after_a_failing_run(tmp_path: Path) -> None:
    backend = LocalBackend(engine="multiprocess", max_workers=1)
    pipeline = Pipeline([model_in(tmp_path), fail], backend=backend)
    with backend, pytest.raises(ValueError, match="no 0"):
        pipeline.map(ITEMS)
    assert pids(tmp_path, "model closed ") == pids(tmp_path, "model built ") != set()


def test_what_a_worker_cannot_build_ends_the_run_once(tmp_path: Path) -> None:
    folder = str(tmp_path)

    @resource
    def model() -> int:
        Path(folder, f"tried {os.getpid()}").touch(exist_ok=False)  # a second try would raise another error
        raise OSError("no such file")

    inner = Pipeline([model, where], name="encode")
    backend = LocalBackend(engine="multiprocess", max_workers=1)
    with backend:
        for on_error in ("raise", "return"):
            with pytest.raises(ResourceError) as caught:
                Pipeline([inner], name="main", backend=backend).map(ITEMS, on_error=on_error)
            said = "resource 'model' (of main > encode) could not be built on local:multiprocess: OSError: no such file"
            assert str(caught.value) == said
            assert isinstance(caught.value.__cause__, OSError)
            assert "in model" in "\n".join(caught.value.__notes__), "the traceback over there comes along"
            for file in tmp_path.iterdir():
                file.unlink()  # the next call may try again


def test_a_cause_that_cannot_travel_comes_home_as_text() -> None:
    class Odd(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("stays here")

    @resource
    def model() -> int:
        raise Odd("strange")

    backend = LocalBackend(engine="multiprocess", max_workers=1)
    with backend, pytest.raises(ResourceError, match="Odd: strange") as caught:
        Pipeline([model, where], backend=backend).map(ITEMS)
    assert type(caught.value.__cause__).__name__ == "RemoteError"


def test_listeners_hear_what_workers_built(tmp_path: Path) -> None:
    log = EventLog()
    backend = LocalBackend(engine="multiprocess", max_workers=2)
    with backend:
        pipeline = Pipeline([model_in(tmp_path), where], name="main", backend=backend, callbacks=[log])
        pipeline.map(ITEMS)
        started = [event for event in log.events if event.kind == "resource" and event.phase == "start"]
        assert {int(event.worker.partition("/")[0]) for event in started} == pids(tmp_path, "model built ")
        assert {event.path for event in started} == {("main", "model")}
        assert log.statuses("resource") == {"model": ["ok"] * len(started)}
        assert event_problems(log.events) == []


def test_a_resource_of_a_nested_place_stays_there(tmp_path: Path) -> None:
    backend = LocalBackend(engine="multiprocess", max_workers=1)
    inner = Pipeline([model_in(tmp_path), where], name="inner", backend=backend)
    outer = Pipeline([model_in(tmp_path, "other"), inner, node(lambda y, other: (*y, other), output_name="z")])
    with backend:
        ran, built, other = outer.run(x=1, output_name="z")
    assert ran == built != os.getpid()
    assert other == os.getpid()
    assert pids(tmp_path, "other closed ") == {os.getpid()}
