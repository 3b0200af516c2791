"""Fixtures of the pool's tests: pools that are closed, and a look for anything that they leave behind."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pool_support import TAG, check_no_new_fds, open_fds, tagged

from hypernodes_local_multiprocess._pool import ProcessPool


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> str:
    """A mark in the environment of every process that the test starts."""
    mark = f"tag-{uuid.uuid4().hex}"
    monkeypatch.setenv(TAG, mark)
    return mark


@pytest.fixture(autouse=True)
def nothing_left_behind(tag: str) -> Iterator[None]:
    """No test leaves a process, a thread or a descriptor behind."""
    fds, threads = open_fds(), set(threading.enumerate())
    yield
    assert tagged(tag) == []
    assert set(threading.enumerate()) <= threads
    check_no_new_fds(fds)


@pytest.fixture
def make_pool(tag: str) -> Iterator[Callable[..., ProcessPool]]:
    """Makes pools that are killed when the test ends."""
    pools: list[ProcessPool] = []

    def make(workers: int = 2, target: str = "pool_targets:command") -> ProcessPool:
        pools.append(ProcessPool(workers, target))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(kill=True)


@pytest.fixture
def pool(make_pool: Callable[..., ProcessPool]) -> ProcessPool:
    return make_pool()


@pytest.fixture
def run_script(start_script: Callable[..., Any], tag: str) -> Callable[[str], Any]:
    """Starts a script, without a main guard, as a program of its own; it is ended with the test."""
    return lambda source: start_script(source, "-W", "error", PYTHONPATH=str(Path(__file__).parent))
