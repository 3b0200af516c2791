"""How long something may take and how often it is tried: numbers checked where users give them, and a rule to retry."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hypernodes._errors import NodeDefinitionError

__all__ = ["Retry", "check_count", "check_flag", "check_kinds", "check_seconds"]

MOST_DOUBLINGS = 1000
"""A double holds no higher power of two by much; no pause ever gets there."""


class Retry(NamedTuple):
    """How often a failing call is tried again, after which pause in seconds, and for which exceptions."""

    times: int
    delay: float = 0.0
    most: float | None = None
    on: tuple[type[Exception], ...] = (Exception,)
    jitter: bool = False

    def pause(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 0: doubled each time up to `most`.

        With `jitter` a random part of that, so that many callers of one service do not come back all at once.
        """
        if not self.delay:
            return 0.0
        pause = self.delay * 2.0 ** min(attempt, MOST_DOUBLINGS)
        if self.most is not None:
            pause = min(pause, self.most)
        if self.jitter:
            import random

            pause = random.uniform(0.0, pause)
        return pause


def check_count(owner: str, option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise NodeDefinitionError(f"{owner}: {option}={value!r}; give a whole number, 0 or more")
    return value


def check_seconds(owner: str, option: str, value: object, least: float | None = None) -> float:
    """`value` as seconds: a finite number, more than 0 unless `least` says otherwise."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if finite and (value > 0 if least is None else value >= least):  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    bound = "more than 0" if least is None else f"{least:g} or more"
    raise NodeDefinitionError(f"{owner}: {option}={value!r}; give seconds, {bound}")


def check_flag(owner: str, option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise NodeDefinitionError(f"{owner}: {option}={value!r}; give True or False")
    return value


def check_kinds(owner: str, option: str, value: Any) -> tuple[type[Exception], ...]:
    """One class of exceptions or several, as a tuple."""
    kinds = value if isinstance(value, tuple) else (value,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise NodeDefinitionError(
                f"{owner}: {option}={value!r}; give a class of exceptions, such as ConnectionError, or a tuple of them"
            )
    if not kinds:
        raise NodeDefinitionError(f"{owner}: {option} is an empty tuple; name an exception, or leave it out")
    return kinds
