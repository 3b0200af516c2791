"""The side store of one dataframe: what its row numbers stand for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

from hypernodes.plugin import Failure, Reply, Table
from hypernodes_daft._phases import Plan

__all__ = ["Store"]


class Store:
    """The values of so many rows, a list for each slot, and their failures by row.

    `first` is the index of the first row. For the inner rows of a mapped pipeline, `owners` holds for each row the
    outer row that it is of: once an inner row failed, those after it of the same owner are of no use.
    """

    def __init__(
        self, plan: Plan, columns: Sequence[list[Any]], rows: int, first: int = 0, owners: Sequence[int] | None = None
    ) -> None:
        self.plan, self.rows, self.first, self.owners = plan, rows, first, owners
        self.columns: dict[int, list[Any]] = {}
        for (_, slot), column in zip(plan.stage.inputs, columns, strict=True):
            self.columns[slot] = column
        self.failed: dict[int, tuple[Failure, int]] = {}
        self._fatal: dict[int, int] = {}
        self._failing = threading.Lock()
        self._left = {slot: rows * readers for slot, readers in plan.readers.items() if slot not in plan.kept}

    def living(self, at: int, rows: Sequence[int]) -> Sequence[int]:
        """Those of the rows for which step `at` is still to run."""
        if not self.failed:
            return rows
        failed, fatal, owners = self.failed, self._fatal, self.owners
        # An earlier step may still fail where a later one has: then it is the one to tell of.
        found = [row for row in rows if row not in failed or failed[row][1] > at]
        if owners is not None and fatal:
            found = [row for row in found if row <= fatal.get(owners[row], row)]
        return found

    def take(self, slots: Sequence[int], rows: Sequence[int]) -> Sequence[tuple[Any, ...]]:
        """The values of these slots, a tuple for each row."""
        if not slots:
            return [()] * len(rows)
        if len(rows) == 1:  # of which coroutines make many: a third of the time of what follows
            (row,) = rows
            return [tuple([self.columns[slot][row] for slot in slots])]
        span = _span(rows)
        if span is not None:
            # Tuples that live on cost 0.4 us each, most of it the garbage collector's: here none are made.
            return Table([self.columns[slot][span] for slot in slots], len(rows))
        return list(zip(*[[self.columns[slot][row] for row in rows] for slot in slots], strict=True))

    def put(self, at: int, rows: Sequence[int], reply: Reply) -> None:
        """What came of step `at` for these rows."""
        columns = [self.column(slot) for slot in self.plan.stage.steps[at].writes]
        if not reply.failures:
            if len(rows) == 1:
                (made_row,) = reply.values
                assert made_row is not None
                for column, value in zip(columns, made_row, strict=True):
                    column[rows[0]] = value
                return
            span = _span(rows)
            if span is not None and isinstance(reply.values, Table):
                for column, values in zip(columns, reply.values.columns, strict=True):
                    column[span] = values
                return
            if span is not None:
                # `zip(*rows)` takes four times as long: an iterator for each row.
                made_rows = cast(Sequence[tuple[Any, ...]], reply.values)
                for position, column in enumerate(columns):
                    column[span] = map(itemgetter(position), made_rows)
                return
        for position, (row, made) in enumerate(zip(rows, reply.values, strict=True)):
            if position in reply.failures:
                self.fail(at, row, reply.failures[position][0])
            else:
                assert made is not None
                for column, value in zip(columns, made, strict=True):
                    column[row] = value

    def column(self, slot: int) -> list[Any]:
        """The values of a slot; empty places where nothing has been made yet."""
        found = self.columns.get(slot)
        if found is None:
            found = self.columns.setdefault(slot, [None] * self.rows)
        return found

    def fail(self, at: int, row: int, failure: Failure) -> None:
        """Step `at` failed for a row. The earliest step counts, as in a run of one step after another."""
        with self._failing:
            known = self.failed.get(row)
            if known is None or at < known[1]:
                self.failed[row] = (failure, at)
            if self.owners is not None:
                owner = self.owners[row]
                self._fatal[owner] = min(row, self._fatal.get(owner, row))

    def passed(self, at: int, rows: int) -> None:
        """So many rows are through step `at`; values that nothing will read any more are let go of."""
        for slot in dict.fromkeys(self.plan.stage.steps[at].sources):
            if slot in self._left:
                self._left[slot] -= rows
                if not self._left[slot]:
                    self.columns.pop(slot, None)

    def failure(self, row: int) -> tuple[Failure, int] | None:
        """Why a row failed, with the index of its step; None where it did not."""
        found = self.failed.get(row)
        if found is None or not self.plan.stage.salvages:
            return found
        failure, at = found
        made = {
            slot: self.columns[slot][row]
            for step in self.plan.stage.steps[:at]
            for slot in step.writes
            if slot in self.plan.kept
        }
        return replace(failure, made=made), at

    def outputs(self, rows: Sequence[int]) -> Sequence[tuple[Any, ...]]:
        """The values of the stage's outputs, a tuple for each row."""
        return self.take([slot for _, slot in self.plan.stage.outputs], rows)


def _span(rows: Sequence[int]) -> slice | None:
    """The rows, which are in ascending order, as a slice, where they follow one another."""
    if rows and rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return None
