"""Rows under way in a scheduler: a frame for each row that is cut into units, a fan for rows that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hypernodes._blueprint import Blueprint, Unit
from hypernodes._failure import Failure
from hypernodes._recall import Recall

__all__ = ["Fan", "Frame"]


class Frame:
    """One row of a blueprint with several units, under way."""

    __slots__ = ("awaited", "blueprint", "fail_at", "failure", "fan", "index", "recall", "running", "values", "waits")

    def __init__(
        self, blueprint: Blueprint, fan: Fan, index: int, values: Sequence[Any], recall: Recall | None = None
    ) -> None:
        self.blueprint, self.fan, self.index, self.recall = blueprint, fan, index, recall
        self.values: dict[int, Any] = dict(zip(blueprint.inputs, values, strict=True))
        self.waits = [unit.waits for unit in blueprint.units]
        self.running = 0
        self.fail_at: int | None = None
        self.failure: Failure | None = None
        self.awaited: set[int] | None = None  # batch nodes that this row may still come to

    def dead(self, first: int) -> bool:
        """Whether a unit whose earliest step is `first` has become pointless."""
        if self.fail_at is not None and first > self.fail_at:
            return True
        return self.fan.dead(self.index)


class Fan:
    """Rows of one blueprint that belong together: those of a mapped step of a frame, or the run's own items."""

    __slots__ = ("blueprint", "failed", "failure", "frame", "keys", "open", "results", "rows", "unit")

    def __init__(self, blueprint: Blueprint, frame: Frame | None = None, unit: Unit | None = None) -> None:
        self.blueprint, self.frame, self.unit = blueprint, frame, unit
        self.keys: dict[int, Any] | None = None
        self.rows: Iterator[tuple[Any, ...]] | None = None
        self.results: list[tuple[Any, ...] | None] = []
        self.open = 0
        self.failed: int | None = None
        self.failure: Failure | None = None

    def dead(self, index: int) -> bool:
        if self.failed is not None and index > self.failed:
            return True
        return self.frame is not None and self.unit is not None and self.frame.dead(self.unit.first)
