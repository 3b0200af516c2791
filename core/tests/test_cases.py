"""The generator draws the same case from the same numbers, draws every feature, and prints cases that run."""

from __future__ import annotations

import inspect
import random
from functools import cache

from hypernodes.testing import Case, draw_case
from hypernodes.testing._values import ERRORS, VALUES

SEEDS = 500
FEATURES = {
    *VALUES, *ERRORS, "shuffled declaration", "several outputs", "parameter with a default",
    "default that a value replaces", "default replaced", "keyword-only parameter", "async node", "node that raises",
    "nested pipeline at depth 1", "nested pipeline at depth 2", "nested pipeline at depth 3", "bare nested pipeline",
    "named nested node", "renamed input", "renamed output", "swapped input names", "one pipeline used twice",
    "one pipeline in two parents", "inner output overridden from outside",
    "nested pipeline with every name mapped", "map inside", "product inside", "ragged map inside", "list",
    "ragged list", "empty list", "lists of one length", "list of a length that depends on a value", "call by run",
    "call by rows", "call by columns", "map by product", "map over no items", "on_error return", "output_name",
    "output_nodes", "overridden output", "input left out because nothing needs it",
    "map over many items", "long list", "row that replaces a shared input", "row without an optional input",
    "batch node", "async batch node",
    "batch node that names its lists", "single parameter by annotation", "generator node",
    "generator node that raises after it yielded", "resource", "resource that needs a resource",
    "resource that closes", "overridden resource", "limit", "limit declared by a nested pipeline", "demand",
}  # fmt: skip


@cache
def drawn() -> list[Case]:
    return [draw_case(random.Random(seed).randint) for seed in range(SEEDS)]


def test_same_numbers_give_the_same_case() -> None:
    for seed, case in enumerate(drawn()[:100]):
        assert draw_case(random.Random(seed).randint).source() == case.source()


def test_every_feature_is_drawn_and_no_other() -> None:
    assert set().union(*(case.features for case in drawn())) == FEATURES


def test_sizes_stay_within_what_is_promised() -> None:
    sizes = {sum(one.kind == "function" for one in case.parts()) for case in drawn()}
    assert sizes >= set(range(1, 13))
    assert max(sizes) <= 15


def test_lowest_numbers_give_the_simplest_case() -> None:
    case = draw_case(lambda lo, hi: lo)
    assert len(case.functions) == 1
    assert case.features == {"call by run"}


def test_some_cases_fail_and_most_do_not() -> None:
    from hypernodes.testing._oracle import Fails

    failing = sum(isinstance(case.expected(), Fails) for case in drawn())
    assert SEEDS * 0.05 < failing < SEEDS * 0.5


def test_source_of_every_function_can_be_found() -> None:
    for case in drawn()[:50]:
        for function in case.functions.values():
            assert inspect.getsource(function).splitlines()[0].endswith("):")


def test_values_are_fresh_for_every_use() -> None:
    case = next(case for case in drawn() if any(text.startswith("[") for text in case.call.inputs.values()))
    text = next(text for text in case.call.inputs.values() if text.startswith("["))
    assert case.value(text) is not case.value(text)


def test_functions_are_as_the_program_prints_them() -> None:
    for case in drawn()[:50]:
        printed = case.source()
        assert all(inspect.getsource(function) in printed for function in case.functions.values())
