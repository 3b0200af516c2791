"""How many tasks go into one chunk."""

from __future__ import annotations

from collections.abc import Callable

from hypernodes._pace import Pace


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
