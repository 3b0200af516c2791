"""Runs: consecutive rows of a stage that go through the scheduler together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from hypernodes._table import Table
from hypernodes._task import Task

__all__ = ["Run", "RunQueue"]


class Run(Sequence[Task]):
    """Rows of which the first has the index `first`; a sequence of tasks to whoever reads it as one."""

    __slots__ = ("first", "rows")

    def __init__(self, first: int, rows: Table) -> None:
        self.first, self.rows = first, rows

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Run:
        """Tasks with consecutive indices as a run."""
        return cls(tasks[0].index if tasks else 0, Table.of([task.values for task in tasks]))

    def __len__(self) -> int:
        return self.rows.height

    def __iter__(self) -> Iterator[Task]:
        return map(Task, range(self.first, self.first + self.rows.height), self.rows)

    @overload
    def __getitem__(self, at: int) -> Task: ...

    @overload
    def __getitem__(self, at: slice) -> Run: ...

    def __getitem__(self, at: int | slice) -> Task | Run:
        if isinstance(at, slice):
            start, _, step = at.indices(len(self))
            assert step == 1, "a run has no gaps"
            return Run(self.first + start, self.rows[at])
        values = self.rows[at]
        return Task(self.first + (at if at >= 0 else at + len(self)), values)

    def up_to(self, last: int) -> Run:
        """The part whose indices are `last` at most."""
        return self if self.first + len(self) - 1 <= last else self[: max(0, last + 1 - self.first)]

    def __repr__(self) -> str:
        return f"<run of {len(self)} rows from {self.first} on>"


class RunQueue:
    """Runs that wait in the order of their rows; drawn from in pieces of any size."""

    __slots__ = ("_offset", "_runs", "_size")

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._offset = 0  # rows of the first run that were drawn: cutting its rest anew each time would copy it
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def extend(self, tasks: Iterable[Task]) -> None:
        """Add a run, or tasks with consecutive indices, behind the others."""
        run = tasks if isinstance(tasks, Run) else Run.of(list(tasks))
        if run.rows.height:
            self._runs.append(run)
            self._size += run.rows.height

    def draw(self, count: int) -> Run:
        """The next `count` rows, which must be there and follow one another."""
        piece = self._piece(count)
        missing = count - piece.rows.height
        if not missing:
            return piece
        pieces = [piece]
        while missing:
            pieces.append(self._piece(missing))
            missing -= pieces[-1].rows.height
        return Run(piece.first, Table.joined([piece.rows for piece in pieces]))

    def _piece(self, most: int) -> Run:
        run, start = self._runs[0], self._offset
        height = run.rows.height
        end = min(height, start + most)
        if end == height:
            self._runs.popleft()
            self._offset = 0
        else:
            self._offset = end
        self._size -= end - start
        return run if end - start == height else run[start:end]
