"""The items of a map in columns, a block at a time: from rows one by one, from rows that lie ready, from lists."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from hypernodes._rows import columns_of

__all__ = ["Blocks", "ListBlocks", "ReadyBlocks", "RowBlocks"]


class Blocks(ABC):
    """Where blocks come from. `error` is that of the iterable underneath, after the rows that came before it."""

    error: Exception | None = None

    @abstractmethod
    def take(self, most: int) -> tuple[list[list[Any]], int]:
        """The next block, `most` rows at most: a fresh list for each input, and how many rows; none means the end."""


class RowBlocks(Blocks):
    """From rows one by one, tuples of so many inputs."""

    def __init__(self, rows: Iterable[tuple[Any, ...]], width: int) -> None:
        self.width = width
        self._rows: Iterator[tuple[Any, ...]] | None = iter(rows)

    def take(self, most: int) -> tuple[list[list[Any]], int]:
        taken: list[tuple[Any, ...]] = []
        if self._rows is not None:
            try:
                taken.extend(itertools.islice(self._rows, most))  # keeps what came before an error
            except Exception as error:
                self.error = error
            if len(taken) < most:
                self._rows = None
        return columns_of(taken, self.width), len(taken)


class ReadyBlocks(Blocks):
    """From a list of rows with the same keys as the first, up to the first block with another; `read` rows were read.

    `shared` has the inputs that are not among the keys.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str], shared: Mapping[str, Any]) -> None:
        self.rows, self.read = rows, 0
        self._widths = {len(rows[0])}
        self._shared = {name: value for name, value in shared.items() if name not in rows[0]}
        self._columns = [None if name in self._shared else itemgetter(name) for name in names]
        self._names = names

    def take(self, most: int) -> tuple[list[list[Any]], int]:
        block = self.rows[self.read : self.read + most]
        count = len(block)
        columns: list[list[Any]] = []
        try:
            if set(map(len, block)) != self._widths:
                return [], 0
            for name, column in zip(self._names, self._columns, strict=True):
                columns.append([self._shared[name]] * count if column is None else list(map(column, block)))
        except (KeyError, TypeError):
            # A row of other keys, or none at all: whoever reads one by one will say which.
            return [], 0
        self.read += count
        return columns, count


class ListBlocks(Blocks):
    """From lists of equal length that are inputs by these names, and what is shared by all."""

    def __init__(self, lists: Mapping[str, list[Any]], names: Sequence[str], shared: Mapping[str, Any]) -> None:
        self._lists, self._names, self._shared = lists, names, shared
        self._read = 0

    def take(self, most: int) -> tuple[list[list[Any]], int]:
        start = self._read
        found = {name: column[start : start + most] for name, column in self._lists.items()}
        count = len(next(iter(found.values())))
        self._read += count
        return [found[name] if name in found else [self._shared[name]] * count for name in self._names], count
