"""The contracts themselves: core's own engines keep them, and no suite can drop a promise in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hypernodes import LocalBackend
from hypernodes.plugin import Engine, Feed, Outcome, Site, Stage, run_rows
from hypernodes.testing import BackendContract, EngineContract, SubprocessBackend
from hypernodes.testing._batch_contract import fit
from hypernodes.testing._local_contract import Marks
from hypernodes.testing._promises import Promises, broken_promises
from hypernodes.testing._resource_contract import built_once


class TestSequential(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return "sequential"


class TestAsync(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return "async"


@dataclass(frozen=True)
class Sheets(Engine):
    """Runs some rows at a time and schedules all of it itself, as an engine of data frames does."""

    name: ClassVar[str] = "sheets"
    modes: ClassVar[tuple[str, ...]] = ()
    default_mode: ClassVar[str] = "sequential"

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        for task in tasks:
            sheet = [task, *tasks.take(15)]
            reply = run_rows(stage, [task.values for task in sheet], f"{site.name}:{self.name}")
            for at, (one, values) in enumerate(zip(sheet, reply.values, strict=True)):
                failure, step = reply.failures.get(at, (None, 0))
                yield Outcome(one.index, values, failure, step)
        if tasks.error is not None:
            raise tasks.error


class TestEngineThatSchedulesAllItself(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return Sheets()


class TestLocalBackend(BackendContract):
    is_remote = False

    @pytest.fixture
    def backend(self) -> LocalBackend:
        return LocalBackend()


class TestLocalBackendOfAnotherEngine(BackendContract):
    is_remote = False

    @pytest.fixture
    def backend(self) -> LocalBackend:
        return LocalBackend(engine="async", max_workers=3)


@pytest.mark.slow
class TestSubprocessBackend(BackendContract):
    can_kill_workers = True

    @pytest.fixture
    def backend(self) -> SubprocessBackend:
        return SubprocessBackend(machines=2)


@pytest.mark.slow
class TestSubprocessBackendWithTheAsyncEngine(BackendContract):
    can_kill_workers = True

    @pytest.fixture
    def backend(self) -> SubprocessBackend:
        return SubprocessBackend(engine="async", max_workers=3)


class _Silent(EngineContract):
    def test_large_values_survive(self, backend: Any) -> None:
        """Replaced without a word."""


class _Removed(EngineContract):
    test_large_values_survive = None  # type: ignore[assignment]


class _Unreasoned(EngineContract):
    @pytest.mark.xfail
    def test_large_values_survive(self, backend: Any) -> None:
        super().test_large_values_survive(backend)


class _Excused(EngineContract):
    @pytest.mark.xfail(reason="values go through a pipe of 64 kB")
    def test_large_values_survive(self, backend: Any) -> None:
        super().test_large_values_survive(backend)


class _HeirOfSilent(_Silent):
    pass


@pytest.mark.parametrize("suite", [_Silent, _Removed, _Unreasoned, _HeirOfSilent])
def test_promise_replaced_without_a_reason_is_caught(suite: type[Promises]) -> None:
    assert broken_promises(suite) == ["test_large_values_survive"]
    with pytest.raises(AssertionError, match=r"replaces promises without xfail.*test_large_values_survive"):
        suite().test_every_promise_is_kept_or_excused_with_a_reason()


def test_promise_excused_with_a_reason_passes() -> None:
    assert broken_promises(_Excused) == []
    _Excused().test_every_promise_is_kept_or_excused_with_a_reason()


def test_more_at_once_than_a_limit_allows_is_counted(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    for word in "++-+--+-":
        marks.add(word)
    assert marks.most_at_once() == 2
    assert marks.words(str(os.getpid())) == list("++-+--+-")


@pytest.mark.parametrize("found", [[(1, (1, 2, 3))], [(1, (2,))]], ids=["too large", "of others"])
def test_batch_that_is_not_as_promised_is_caught(found: list[Any]) -> None:
    assert fit([(1, (1, 2))], 2) == [1]
    with pytest.raises(AssertionError):
        fit(found, 2)


def test_resource_that_was_built_twice_in_one_process_is_caught() -> None:
    built_once([(0, "here", "a"), (1, "there", "b"), (2, "here", "a")], 3)
    with pytest.raises(AssertionError):
        built_once([(0, "here", "a"), (1, "here", "b")], 2)
