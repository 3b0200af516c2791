"""How many tasks go into one chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hypernodes import Pipeline, node
from hypernodes._execute import REMOTE_CHUNK_SECONDS
from hypernodes._pace import Pace
from hypernodes.testing import SubprocessBackend


def sizes(pace: Pace, takes: Callable[[int], float], chunks: int = 12) -> list[int]:
    """How large chunk after chunk is, where one of so many tasks takes so long."""
    found = []
    for _ in range(chunks):
        found.append(pace.size)
        pace.record(pace.size, takes(pace.size))
    return found


def test_chunks_aim_at_a_time() -> None:
    assert sizes(Pace(0.1), lambda count: 0.01 * count)[-1] == 10
    assert sizes(Pace(0.1, most=5), lambda count: 0.01 * count)[-1] == 5


def test_tasks_that_a_worker_awaits_together_fill_it_however_long_they_take() -> None:
    found = sizes(Pace(0.25, together=100), lambda count: 2.0)
    assert found[:5] == [1, 4, 16, 64, 100]
    assert found[-1] == 100


def test_tasks_that_only_compute_stay_in_small_chunks_however_many_may_go_together() -> None:
    assert sizes(Pace(0.25, together=100), lambda count: 2.0 * count)[-1] == 4


def test_slow_start_of_a_worker_does_not_pass_for_tasks_that_overlap() -> None:
    pace = Pace(0.25, together=100)
    pace.record(1, 20.0)  # a model was loaded
    assert max(sizes(pace, lambda count: 0.5 * count)) <= 16


def test_what_a_worker_awaits_together_is_not_divided_near_the_end() -> None:
    pace = Pace(0.25, together=100)
    sizes(pace, lambda count: 2.0)
    assert pace.least == 100
    sizes(pace, lambda count: 2.0 * count)
    assert pace.least == 1


class Crowd:
    """How many coroutines of one worker are under way."""

    now = 0


@node(output_name="seen")
async def slow(x: int) -> int:
    """The most that were under way while this one was, which takes longer than a chunk aims at."""
    Crowd.now += 1
    await asyncio.sleep(REMOTE_CHUNK_SECONDS * 1.2)
    seen, Crowd.now = Crowd.now, Crowd.now - 1
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["async", "sequential"])
def test_slow_coroutines_go_together_to_a_far_place_that_awaits_them_at_once(mode: str) -> None:
    with SubprocessBackend(machines=1, engine="async", map_execution=mode) as far:
        seen = Pipeline([slow], backend=far).map([{"x": x} for x in range(13)], output_name="seen")
    assert max(seen) >= 4 if mode == "async" else max(seen) == 1
