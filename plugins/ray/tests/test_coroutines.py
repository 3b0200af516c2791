"""Coroutines live in actors that await many at once: a slow one, a stopped one, a deadly one harms no other."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ray_support import PATIENCE, rows, wait_for

from hypernodes import Pipeline, RayBackend, WorkerLostError, node, resource

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_coroutines_of_many_items_overlap_in_a_worker(connected: Any) -> None:
    @node(output_name="y")
    async def wait(x: int) -> int:
        global _now, _most
        _now = globals().get("_now", 0) + 1
        _most = max(globals().get("_most", 0), _now)
        await asyncio.sleep(0.05)
        _now -= 1
        return _most

    found = Pipeline([wait], backend=RayBackend(max_workers=20)).map(rows(200), output_name="y")
    # Twenty over two workers; each worker's bound is ten.
    assert 1 < max(found) <= 10


def test_coroutine_that_waits_for_all_others_holds_none_of_them_up(connected: Any, tmp_path: Path) -> None:
    @node(output_name="y")
    async def work(x: int) -> int:
        if x == 0:
            async with asyncio.timeout(PATIENCE):
                while len(os.listdir(tmp_path)) < 499:
                    await asyncio.sleep(0.01)
        (tmp_path / str(x)).touch()
        return -x

    with RayBackend() as backend:
        assert Pipeline([work], backend=backend).map(rows(500), output_name="y") == [-x for x in range(500)]


@pytest.mark.parametrize("blocks", [False, True], ids=["awaits", "blocks"])
def test_stopped_coroutines_end_and_those_of_another_run_go_on(connected: Any, tmp_path: Path, blocks: bool) -> None:
    go, home, ended = tmp_path / "go", tmp_path / "home", tmp_path / "ended"

    @node(output_name="y")
    async def patient(x: int) -> int:
        (tmp_path / f"there{x}").touch()
        async with asyncio.timeout(PATIENCE):
            while not go.exists():
                await asyncio.sleep(0.01)
        return -x

    @node(output_name="y")
    async def endless(x: int) -> int:
        if x == 0:
            return x
        while not home.exists():  # what holds up the loop would hold up the reply for its neighbour
            await asyncio.sleep(0.01)
        (tmp_path / f"running{x}").touch()
        try:
            if blocks:
                time.sleep(600)  # which nothing but the end of its process can stop
            await asyncio.sleep(600)
        finally:
            ended.touch()
        return x

    found: list[int] = []
    with RayBackend() as backend:

        def run() -> None:
            found.extend(Pipeline([patient], backend=backend).map(rows(6), output_name="y"))

        other = threading.Thread(target=run)
        other.start()
        wait_for(lambda: all((tmp_path / f"there{x}").exists() for x in range(6)))
        with closing(Pipeline([endless], backend=backend).map_iter(rows(2), output_name="y")) as stream:
            assert next(stream) == 0
            home.touch()
            wait_for((tmp_path / "running1").exists)
        if not blocks:
            wait_for(ended.exists)
        go.touch()
        other.join()
    assert found == [-x for x in range(6)]


def test_coroutine_that_ends_its_worker_fails_alone(connected: Any) -> None:
    @node(output_name="y")
    async def crash(x: int) -> int:
        await asyncio.sleep(0.01)
        if x == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with RayBackend() as backend:
        found = Pipeline([crash], backend=backend).map(rows(40), output_name="y", on_error="return")
    assert isinstance(found.pop(5).error, WorkerLostError)
    assert found == [x for x in range(40) if x != 5]


def test_client_of_coroutines_is_built_once_in_each_worker_and_closed_on_its_own_loop(
    connected: Any, tmp_path: Path
) -> None:
    @resource
    async def client() -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        (tmp_path / f"opened{os.getpid()}").touch(exist_ok=False)
        yield loop
        assert asyncio.get_running_loop() is loop
        (tmp_path / f"closed{os.getpid()}").touch(exist_ok=False)

    @node(output_name="y")
    async def use(x: int, client: Any) -> int:
        await asyncio.sleep(0.01)
        assert asyncio.get_running_loop() is client
        return os.getpid()

    with RayBackend() as backend:
        pids = set(Pipeline([use, client], backend=backend).map(rows(300), output_name="y"))
    told = {file.name for file in tmp_path.iterdir()}
    assert told == {f"{what}{pid}" for what in ("opened", "closed") for pid in pids}
