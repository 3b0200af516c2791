"""What the tests of several modules need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["PATIENCE", "rows", "wait_for"]

PATIENCE = 240.0
"""Seconds that only a hang takes: a busy machine needs half a minute to start a process."""


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
