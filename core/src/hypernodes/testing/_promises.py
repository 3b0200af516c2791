"""What the three contracts share: a guard, so that no suite drops a promise in silence."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import pytest

from hypernodes import LocalBackend, Pipeline
from hypernodes.testing._draw import draw_case
from hypernodes.testing._leaks import LeakWatch, watch_test

__all__ = ["Placed", "Promises", "broken_promises", "check_random_cases", "seeds"]


class Promises:
    """A set of promises, each a test, to inherit. A promise that does not hold is overridden with its reason:

    @pytest.mark.xfail(reason="...")
    def test_large_values_survive(self, engine):
        super().test_large_values_survive(engine)

    `allowed_leaks` are leftovers that a library keeps on purpose, such as connections: kinds and patterns for
    `LeakWatch.allow`.
    """

    allowed_leaks: ClassVar[Sequence[tuple[str, str]]] = ()

    @pytest.fixture
    def no_leaks(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[LeakWatch]:
        for watch in watch_test(tmp_path_factory, monkeypatch):
            for kind, pattern in self.allowed_leaks:
                watch.allow(kind, pattern)
            yield watch

    def test_every_promise_is_kept_or_excused_with_a_reason(self) -> None:
        broken = broken_promises(type(self))
        assert not broken, f"{type(self).__name__} replaces promises without xfail(reason=...): {', '.join(broken)}"


class Placed(Promises):
    """Promises of a place: the fixture `backend` gives it, and `placed` builds a pipeline of which it runs the nodes.

    `can_kill_workers` says that nodes run in processes of their own, so that one may die.
    """

    can_kill_workers: ClassVar[bool] = False

    def backend_with(self, engine: Any, **options: Any) -> Any:
        """A backend with the engine under test. Override for an engine that only backends of its own can run."""
        return LocalBackend(engine=engine, **options)

    def placed(self, nodes: Sequence[Any], backend: Any, beside: Sequence[Any] = (), **options: Any) -> Pipeline:
        """The nodes, where they are to run; what is given `beside` them stands in the outermost pipeline."""
        return Pipeline(nodes=[*nodes, *beside], name="main", backend=backend, **options)


def broken_promises(suite: type) -> list[str]:
    """Promises that `suite`, or a class between it and its contract, replaced without an xfail(reason=...)."""
    contract = next(base for base in suite.__mro__ if base.__module__.startswith(f"{__package__}."))
    return [
        name
        for name in dir(contract)
        if name.startswith("test_")
        and getattr(suite, name, None) is not getattr(contract, name)
        and not any(_excuses(mark) for mark in _marks(getattr(suite, name, None)))
    ]


def seeds(default: int) -> range:
    """Seeds for random cases: as many as HYPERNODES_SEEDS says, from HYPERNODES_FIRST_SEED on."""
    first = int(os.environ.get("HYPERNODES_FIRST_SEED", "0"))
    return range(first, first + int(os.environ.get("HYPERNODES_SEEDS", str(default))))


def check_random_cases(count: int, backend: Any = None, what: str = "check", **options: Any) -> None:
    """Check `count` random cases (see `seeds`) by a method of `Case`; a failing one names its seed."""
    for seed in seeds(count):
        try:
            getattr(draw_case(random.Random(seed).randint), what)(backend, **options)
        except AssertionError as error:
            error.add_note(f"this was draw_case(random.Random({seed}).randint)")
            raise


def _marks(test: Any) -> Iterable[Any]:
    marks: Iterable[Any] = getattr(test, "pytestmark", ())
    return marks


def _excuses(mark: Any) -> bool:
    return mark.name == "xfail" and bool(mark.kwargs.get("reason"))
