"""Random pipelines give what the reference interpreter gives, in every mode of the local backend.

HYPERNODES_SEEDS and HYPERNODES_FIRST_SEED choose how many and which; a failure prints its seed and its program.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hypernodes import LocalBackend
from hypernodes.testing import draw_case
from hypernodes.testing._promises import check_random_cases

MODES = ("sequential", "async", "parallel")


@pytest.mark.slow
def test_sequential_engine_agrees_on_two_thousand_pipelines() -> None:
    check_random_cases(2_000)


@pytest.mark.slow
def test_async_engine_agrees() -> None:
    check_random_cases(500, LocalBackend(engine="async"), any_order=True)


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
