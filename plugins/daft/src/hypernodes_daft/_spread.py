"""A mapped pipeline: the inner rows of many outer rows, as rows of dataframes of their own, and back to lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypernodes.plugin import Failure, map_rows
from hypernodes_daft._phases import Spread
from hypernodes_daft._store import Store

__all__ = ["Inner"]


class Inner:
    """The inner rows of one phase, at most `window` at once."""

    def __init__(self, phase: Spread, outer: Store, window: int, place: str) -> None:
        self.phase, self.outer, self.window, self.place = phase, outer, window, place
        self.results: dict[int, list[list[Any]]] = {}
        self.dead: set[int] = set()
        self._rows: list[tuple[Any, ...]] = []
        self._owners: list[int] = []
        self._positions: list[int] = []

    def run(self, work_off: Callable[[Store], None], rows: Sequence[int]) -> None:
        """Run the inner plan for each inner row of these outer rows, by `work_off`."""
        step, width = self.phase.step, len(self.phase.step.writes)
        for row, values in zip(rows, self.outer.take(step.sources, rows), strict=True):
            self.results[row] = [[] for _ in range(width)]
            try:
                for position, inner in enumerate(map_rows(step, values)):
                    if row in self.dead:
                        break
                    self._rows.append(inner)
                    self._owners.append(row)
                    self._positions.append(position)
                    if len(self._rows) >= self.window:
                        self._work_off(work_off)
            except Exception as error:
                self._drop(row)
                name = type(error).__qualname__
                items = (None,) * len(step.path)
                self.outer.fail(self.phase.at, row, Failure(step.path, items, name, str(error), error, self.place))
        if self._rows:
            self._work_off(work_off)
        for row, columns in self.results.items():
            if row not in self.dead:
                for slot, column in zip(step.writes, columns, strict=True):
                    self.outer.column(slot)[row] = column

    def _drop(self, row: int) -> None:
        """An outer row whose items cannot be told is left out, whatever of them is there."""
        self.dead.add(row)
        kept = [at for at, owner in enumerate(self._owners) if owner != row]
        self._rows = [self._rows[at] for at in kept]
        self._positions = [self._positions[at] for at in kept]
        self._owners = [self._owners[at] for at in kept]

    def _work_off(self, work_off: Callable[[Store], None]) -> None:
        plan = self.phase.inner
        rows, owners, positions = self._rows, self._owners, self._positions
        self._rows, self._owners, self._positions = [], [], []
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in plan.stage.inputs]
        store = Store(plan, columns, len(rows), owners=owners)
        work_off(store)
        depth = len(self.phase.step.path) - 1
        for at in sorted(store.failed):
            if owners[at] not in self.dead:
                self.dead.add(owners[at])
                failure, _ = store.failed[at]
                items = (*failure.items[:depth], positions[at], *failure.items[depth + 1 :])
                made: dict[int, Any] | None = {} if plan.stage.salvages else None
                self.outer.fail(self.phase.at, owners[at], replace(failure, items=items, made=made))
        living = [at for at, owner in enumerate(owners) if owner not in self.dead]
        for at, made_of in zip(living, store.outputs(living), strict=True):
            for column, value in zip(self.results[owners[at]], made_of, strict=True):
                column.append(value)
