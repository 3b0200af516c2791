"""The contracts themselves: core's own engines keep them, and no suite can drop a promise in silence."""

from __future__ import annotations

from typing import Any

import pytest

from hypernodes import LocalBackend
from hypernodes.testing import BackendContract, EngineContract, SubprocessBackend
from hypernodes.testing._promises import Promises, broken_promises


class TestSequential(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return "sequential"


class TestAsync(EngineContract):
    @pytest.fixture
    def engine(self) -> str:
        return "async"


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


class TestSubprocessBackend(BackendContract):
    can_kill_workers = True

    @pytest.fixture
    def backend(self) -> SubprocessBackend:
        return SubprocessBackend(machines=2)


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
