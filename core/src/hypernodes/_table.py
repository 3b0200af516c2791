"""Rows kept as columns: nothing is made for a row until somebody asks for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, overload

from hypernodes._rows import columns_of

__all__ = ["Table"]


class Table(Sequence[tuple[Any, ...]]):
    """`height` rows of equal width, as one list for each column; a sequence of tuples to whoever reads it as one.

    Cutting, joining and pickling cost next to nothing for a row: pickling 0.02 us a value and reading it back 0.03 us,
    where a tuple around each takes 0.07 us and 0.16 us.
    """

    __slots__ = ("columns", "height")

    def __init__(self, columns: Sequence[list[Any]], height: int) -> None:
        self.columns, self.height = columns, height

    @classmethod
    def of(cls, rows: Sequence[tuple[Any, ...] | None], width: int | None = None) -> Table:
        """The same rows as a table, None for each value of a row that is None.

        `width` is needed where there may be no rows, or none but these.
        """
        if isinstance(rows, Table):
            return rows
        wide = width if width is not None else len(rows[0] or ()) if rows else 0
        nothing = (None,) * wide
        found = [nothing if row is None else row for row in rows]
        return cls(columns_of(found, wide), len(found))

    def __len__(self) -> int:
        return self.height

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.columns, strict=True) if self.columns else itertools.repeat((), self.height)

    @overload
    def __getitem__(self, at: int) -> tuple[Any, ...]: ...

    @overload
    def __getitem__(self, at: slice) -> Table: ...

    def __getitem__(self, at: int | slice) -> tuple[Any, ...] | Table:
        if isinstance(at, slice):
            return Table([column[at] for column in self.columns], len(range(*at.indices(self.height))))
        if not -self.height <= at < self.height:
            raise IndexError(f"row {at} of a table of {self.height}")
        return tuple([column[at] for column in self.columns])

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """The rows of tables of equal width, one after another."""
        tables = [table for table in tables if table.height] or tables[:1]
        if len(tables) == 1:
            return tables[0]
        columns = [
            list(itertools.chain.from_iterable(parts)) for parts in zip(*[t.columns for t in tables], strict=True)
        ]
        return cls(columns, sum(table.height for table in tables))

    def __repr__(self) -> str:
        return f"<table of {self.height} rows, {len(self.columns)} wide>"
