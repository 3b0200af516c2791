"""Random pipelines give what the reference interpreter gives, in every mode of the local backend.

HYPERNODES_SEEDS and HYPERNODES_FIRST_SEED choose how many and which; a failure prints its seed and its program.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hypernodes import LocalBackend
from hypernodes._engine import Engine, Feed, Site
from hypernodes._engines import SequentialEngine
from hypernodes._task import Outcome, Stage, run_task
from hypernodes.testing import draw_case
from hypernodes.testing._promises import check_random_cases


@dataclass(frozen=True)
class Lying(Engine):
    """An engine with a planted bug: tuples come home as lists, as from a data frame or JSON."""

    name: ClassVar[str] = "lying"

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for outcome in SequentialEngine().execute(stage, tasks, site):
            values = outcome.values
            yield (
                outcome
                if values is None
                else outcome._replace(values=tuple(list(v) if type(v) is tuple else v for v in values))
            )


def test_engine_with_a_planted_bug_is_caught_with_seed_and_program() -> None:
    with pytest.raises(AssertionError, match=r"expected tuple .*, got list") as caught:
        check_random_cases(200, LocalBackend(engine=Lying()))
    assert "Pipeline(name='main'" in str(caught.value)
    assert "draw_case(random.Random(" in caught.value.__notes__[0]


@dataclass(frozen=True)
class Repeating(Engine):
    """An engine with a planted bug that no result shows: each row runs twice."""

    name: ClassVar[str] = "repeating"

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for task in tasks:
            run_task(stage, task)
            yield run_task(stage, task)


@pytest.mark.parametrize(("engine", "what"), [(Repeating(), "check_events"), (Lying(), "check_cached")])
def test_planted_bug_in_events_or_with_a_cache_is_caught(engine: Engine, what: str) -> None:
    with pytest.raises(AssertionError, match=r"expected") as caught:
        check_random_cases(200, LocalBackend(engine=engine), what)
    assert "Pipeline(name='main'" in str(caught.value)


MODES = ("sequential", "async", "parallel")
STRATEGIES = ("item", "stage", "stream")


@pytest.mark.slow
def test_sequential_engine_agrees_on_two_thousand_pipelines() -> None:
    check_random_cases(2_000)


@pytest.mark.slow
def test_async_engine_agrees() -> None:
    check_random_cases(500, LocalBackend(engine="async"), any_order=True)


@pytest.mark.slow
def test_events_of_the_async_engine_agree() -> None:
    check_random_cases(500, LocalBackend(engine="async"), "check_events")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", "async"])
def test_an_empty_cache_a_full_one_and_none_agree(engine: str) -> None:
    check_random_cases(300, LocalBackend(engine=engine), "check_cached", any_order=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("engine", ["sequential", "async", "threaded", "multiprocess"])
def test_every_map_strategy_agrees(engine: str, strategy: str) -> None:
    if engine in ("threaded", "multiprocess"):
        pytest.importorskip(f"hypernodes_local_{engine}")
    with LocalBackend(engine=engine, map_strategy=strategy, max_workers=2) as backend:
        check_random_cases(80, backend, any_order=True)
        check_random_cases(25, backend, "check_events")
        check_random_cases(25, backend, "check_cached", any_order=True)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"calls": 1, "slots": 1}, {"calls": "1000/second", "slots": 3}])
def test_limits_of_a_backend_change_nothing(limits: dict[str, Any]) -> None:
    backend = LocalBackend(engine="async", limits=limits, resources={"cpus": 1, "memory": "4MB"})
    check_random_cases(150, backend, any_order=True)


@pytest.mark.slow
def test_async_calls_agree() -> None:
    check_random_cases(300, use_async=True)


@pytest.mark.slow
def test_nested_pipelines_on_backends_of_their_own_agree() -> None:
    backends = [LocalBackend(), LocalBackend(engine="async"), LocalBackend(max_workers=1)]
    check_random_cases(300, LocalBackend(), backends=backends, any_order=True)


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "items"), list(itertools.product(MODES, MODES)))
def test_every_pair_of_modes_agrees(nodes: str, items: str) -> None:
    if "parallel" in (nodes, items):
        pytest.importorskip("hypernodes_local_multiprocess")
    with LocalBackend(node_execution=nodes, map_execution=items, max_workers=2) as backend:
        check_random_cases(100, backend, any_order=True)


@pytest.mark.slow
@settings(
    derandomize=True,
    max_examples=300,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(st.data())
def test_pipelines_that_shrink_agree(data: st.DataObject) -> None:
    draw_case(lambda lo, hi: data.draw(st.integers(lo, hi))).check()
