"""Where the rows of a map come from, when they lie ready: read in blocks, as columns."""

from __future__ import annotations

import itertools
import operator
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hypernodes._errors import GraphError, quoted
from hypernodes._table import Table

__all__ = ["ReadyColumns", "ReadyRows", "ReadyTable", "Supply"]

BLOCK = 512


class Supply(Iterable[tuple[Any, ...]]):
    """Rows that lie ready. Draw tables of them, or iterate over the rest; then draw no more."""

    @property
    @abstractmethod
    def left(self) -> int:
        """How many rows are still to come."""

    @abstractmethod
    def draw(self, count: int) -> Table:
        """Up to `count` rows; fewer only where no more follow."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return itertools.chain.from_iterable(iter(lambda: self.draw(BLOCK) or None, None))


class ReadyRows(Supply):
    """A list of rows, up to the first block with a row of other keys than `keys`; `read` rows were read.

    Of each row and of what is `shared` by all of them it gives the values under `names`, in their order.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], names: Sequence[str], shared: Mapping[str, Any]
    ) -> None:
        self.rows, self.read = rows, 0
        self._widths = {len(keys)}
        own = set(keys)
        self._getters = [operator.itemgetter(name) if name in own else None for name in names]
        self._values = [None if name in own else shared[name] for name in names]
        self._irregular = False

    @property
    def left(self) -> int:
        return 0 if self._irregular else len(self.rows) - self.read

    def draw(self, count: int) -> Table:
        block = self.rows[self.read : self.read + count]
        try:
            if self._irregular or set(map(len, block)) - self._widths:
                return self._end()
            columns = [
                [value] * len(block) if get is None else list(map(get, block))
                for get, value in zip(self._getters, self._values, strict=True)
            ]
        except (KeyError, TypeError):
            # A row of other keys, or none at all: whoever reads one by one will say which.
            return self._end()
        self.read += len(block)
        return Table(columns, len(block))

    def _end(self) -> Table:
        self._irregular = True
        return Table([], 0)


class ReadyColumns(Supply):
    """Lists of equal length, item by item, with what is `shared` by all of them: the values under `names`."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], names: Sequence[str], shared: Mapping[str, Any]) -> None:
        self._all = columns
        self._total = min(map(len, columns.values()), default=0)
        self._read = 0
        self._columns = [columns.get(name) for name in names]
        self._values = [None if name in columns else shared[name] for name in names]

    @property
    def left(self) -> int:
        return self._total - self._read

    def draw(self, count: int) -> Table:
        start, end = self._read, min(self._total, self._read + count)
        changed = [name for name, column in self._all.items() if len(column) != self._total]
        if changed:
            raise GraphError(f"{quoted(changed)} changed in length while it was mapped over")
        self._read = end
        columns = [
            [value] * (end - start) if column is None else list(column[start:end])
            for column, value in zip(self._columns, self._values, strict=True)
        ]
        return Table(columns, end - start)


class ReadyTable(Supply):
    """The rows of a table."""

    def __init__(self, table: Table) -> None:
        self._table, self._read = table, 0

    @property
    def left(self) -> int:
        return len(self._table) - self._read

    def draw(self, count: int) -> Table:
        drawn = self._table[self._read : self._read + count]
        self._read += len(drawn)
        return drawn
