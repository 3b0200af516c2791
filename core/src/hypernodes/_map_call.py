"""One call of a map: where its rows come from, what is wanted of them, and in which form."""

from __future__ import annotations

import itertools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Collection,
    Container,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import ExitStack, aclosing, nullcontext
from typing import TYPE_CHECKING, Any

from hypernodes._calls import Columns, Wanted, not_a_row, row_runs
from hypernodes._columns import Blocks, ListBlocks, ReadyBlocks, RowBlocks
from hypernodes._engine import Feed
from hypernodes._errors import GraphError, quoted
from hypernodes._events import Callback, Listener
from hypernodes._failure import Failure, failure_of, raise_failure, raise_if_it_ends
from hypernodes._late import importing
from hypernodes._plan import SCOPE
from hypernodes._prepared import Prepared
from hypernodes._rows import columns_of
from hypernodes._scope import Scope, opened
from hypernodes._supply import ReadyColumns, ReadyRows
from hypernodes._table import Table
from hypernodes._task import Batch

if TYPE_CHECKING:
    from hypernodes._inline import Inline
    from hypernodes._watch import Watch

__all__ = ["MapCall"]


class MapCall:
    """A checked call. `prepare` compiles the pipeline, called `name`, for the inputs that a row gives, and those among
    them that all rows share. With `scoped` some nodes need or count something for the whole call; `meets` says then
    whether processes have to meet for that.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[tuple[str, ...], Collection[str]], Prepared],
        want: Wanted,
        keeps_failures: bool,
        *,
        extra: Sequence[Callback | Listener] = (),
        items: Iterable[Any] | AsyncIterable[Any] | None = None,
        columns: Columns | None = None,
        shared: dict[str, Any] | None = None,
        scoped: bool = False,
        meets: Callable[[], bool] = bool,
    ) -> None:
        self.name, self.prepare, self.wanted, self.keeps_failures = name, prepare, want, keeps_failures
        self.columns, self.items, self.extra = columns, items, extra
        self.shared = columns.shared if columns is not None else shared or {}
        self.scoped, self.meets = scoped, meets
        # What every row brings: the shared inputs, and while the call goes on what says which call it is.
        self.given = self.shared
        self.scope: Scope | None = None
        # What is wrong with the first row, or with the columns, is said before any node runs.
        if columns is not None:
            self.first = prepare((*self.shared, *columns.names), self.shared.keys())
        elif isinstance(items, list | tuple) and items:
            if not isinstance(items[0], Mapping):
                raise not_a_row(name, 0, items[0])
            self.first = prepare(tuple({**self.shared, **items[0]}), self.shared.keys() - items[0].keys())

    def _scope(self) -> Any:
        """The length of the call, for what belongs to it."""
        return _OfCall(self) if self.scoped else nullcontext()

    def collect(self) -> Any:
        """Every result, in the form that was asked for."""
        with self._scope():
            return self._collect()

    def _collect(self) -> Any:
        results: list[Any] = []
        if self.columns is not None:
            prepared = self.first
            if prepared.inline is not None and prepared.inline.batch:
                return self._collect_blocks(prepared, prepared.inline)
            if prepared.inline is not None and not self.keeps_failures:
                prepared.inline.rows(self.columns.rows, results, self.given, self.columns.names, "columns")
                names = self.wanted.names
                return results if self.wanted.bare else dict(zip(names, columns_of(results, len(names)), strict=True))
            if prepared.inline is None and not self.wanted.bare:
                return self._collect_columns(prepared)
        elif not self.keeps_failures and self._collect_inline(results):
            return results
        for found, mixed in self._results(ordered=True, base=len(results)):
            if mixed and not self.keeps_failures:
                for result in found:
                    self.settled(result)
            results += found
        return self.shaped(results)

    def _collect_columns(self, prepared: Prepared) -> dict[str, list[Any]]:
        """The results of columns as columns: no dict is made for a row in between."""
        names = self.wanted.names
        columns: list[list[Any]] = [[] for _ in names]
        with ExitStack() as stack:
            watch = self._watched_by(None, prepared, stack)
            for _, rows, steady in self._runs():
                for batch in self._batches(prepared, rows, steady, True, 0, watch):
                    if not batch.failures:
                        for column, more in zip(columns, Table.of(batch.values, len(names)).columns, strict=True):
                            column += more
                        continue
                    for result in self._shaped(prepared, batch, 0, watch):
                        self.settled(result)
                        for name, column in zip(names, columns, strict=True):
                            column.append(result if isinstance(result, Failure) else result[name])
            if watch is not None:
                watch.complete()
        return dict(zip(names, columns, strict=True))

    def _collect_blocks(self, prepared: Prepared, inline: Inline) -> Any:
        """The same for columns that run in blocks, which have columns already."""
        lists: list[list[Any]] = [[] for _ in self.wanted.names]
        for block, first, count in inline.blocks(self._column_blocks(prepared)):
            if block.faults and not self.keeps_failures:
                raise_failure(next(iter(inline.failures(block, first).values())))
            for results, column in zip(lists, inline.columns(block, first, count), strict=True):
                results += column
        return lists[0] if self.wanted.bare else dict(zip(self.wanted.names, lists, strict=True))

    def _column_blocks(self, prepared: Prepared) -> Blocks:
        assert self.columns is not None
        if self.columns.lists is not None:
            return ListBlocks(self.columns.lists, prepared.names, self.given)
        (_, rows, _), *_ = self._runs()
        return RowBlocks(iter(rows), len(prepared.names))

    def _collect_inline(self, results: list[Any]) -> bool:
        """Run rows in generated loops; False, with the results so far, where some other road must go on."""
        assert isinstance(self.items, Iterable)
        rows = iter(self.items)
        row = next(rows, None)
        while row is not None:
            if not isinstance(row, Mapping):
                raise not_a_row(self.name, len(results), row)
            keys = tuple(row)
            prepared = self._prepare_row(len(results), keys)
            if prepared.inline is None or prepared.inline.batch:
                if results or not isinstance(self.items, list | tuple):
                    self.items = _chain(row, rows)
                return False
            shared = {name: value for name, value in self.given.items() if name not in row}
            done = len(results)
            try:
                row = prepared.inline.rows(_chain(row, rows), results, shared, keys, "rows")
            except Exception as error:
                _shift(error, done)
                raise
        return True

    def _prepare_row(self, index: int, keys: tuple[str, ...]) -> Prepared:
        """Compile for a row with these keys; what is wrong with them names the item."""
        try:
            return self.prepare(tuple({**self.shared, **dict.fromkeys(keys)}), self.shared.keys() - set(keys))
        except GraphError as error:
            if index:
                error.add_note(f"item {index} has the keys {quoted(keys)}, other than the items before it")
            raise

    def shaped(self, results: list[Any]) -> Any:
        """Rows as they are; for columns one list for each output."""
        if self.columns is None or self.wanted.bare:
            return results
        return {
            name: [result if isinstance(result, Failure) else result[name] for result in results]
            for name in self.wanted.names
        }

    def stream(self, ordered: bool) -> Generator[Any, None, None]:
        with self._scope():
            for results, _ in self._results(ordered, 0):
                for result in results:
                    yield self.settled(result)

    def _results(self, ordered: bool, base: int) -> Generator[tuple[list[Any], bool], None, None]:
        """The shaped result or the `Failure` of each row, several at a time, and whether there may be failures.

        `base` rows of this map came before.
        """
        with ExitStack() as stack:
            watch: Watch | None = None
            for prepared, rows, steady in self._ready_runs():
                watch = self._watched_by(watch, prepared, stack)
                count = 0
                for found in self._run(prepared, rows, steady, ordered, base, watch):
                    count += len(found[0])
                    yield found
                base += count
            if watch is not None:
                watch.complete()

    def _watched_by(self, watch: Watch | None, prepared: Prepared, stack: ExitStack) -> Watch | None:
        """Who tells listeners of the rows of this plan: one for the whole call."""
        if not prepared.watched:
            return watch
        if watch is None:
            watch = stack.enter_context(prepared.watch("map", self.total(), self.extra))
            watch.belongs(self.scope)
            return watch
        watch.adopt(prepared.plan)
        return watch

    def total(self) -> int | None:
        """How many items there are, where that is known."""
        if self.columns is not None:
            return self.columns.total
        items: object = self.items
        return len(items) if isinstance(items, Sized) else None

    def _run(
        self,
        prepared: Prepared,
        rows: Iterable[tuple[Any, ...]] | Blocks,
        steady: Container[str] | None,
        ordered: bool,
        base: int,
        watch: Watch | None,
    ) -> Generator[tuple[list[Any], bool], None, None]:
        """The results of rows that share one plan, as in `_results`; `base` is how many items came before them."""
        if prepared.inline is not None and prepared.inline.batch:
            source = rows if isinstance(rows, Blocks) else RowBlocks(iter(rows), len(prepared.names))
            for block, first, count in prepared.inline.blocks(source):
                yield prepared.inline.results(block, base + first, count), bool(block.faults)
            return
        assert not isinstance(rows, Blocks)
        if prepared.inline is not None:
            for result in prepared.inline.each(rows):
                failed = isinstance(result, Failure)
                yield [_moved(result, base) if failed else result], failed
            return
        for batch in self._batches(prepared, rows, steady, ordered, base, watch):
            yield self._shaped(prepared, batch, base, watch), bool(batch.failures)

    def _batches(
        self,
        prepared: Prepared,
        rows: Iterable[tuple[Any, ...]],
        steady: Container[str] | None,
        ordered: bool,
        base: int,
        watch: Watch | None,
    ) -> Generator[Batch, None, None]:
        """What comes of rows that share one plan, on the road through the hub."""
        with importing("hypernodes._turns"):
            from hypernodes._turns import in_order

        feed = Feed(rows if watch is None else watch.rows(rows, base), steady)
        batches = prepared.batches(feed, watch, base)
        try:
            yield from in_order(batches, feed, stop_at_failure=not self.keeps_failures) if ordered else batches
        finally:
            batches.close()

    async def astream(self, ordered: bool) -> AsyncGenerator[Any, None]:
        async with aclosing(self.aresults(ordered)) as results:
            async for result in results:
                yield self.settled(result)

    async def aresults(self, ordered: bool) -> AsyncGenerator[Any, None]:
        async with self._scope(), aclosing(self._aresults(ordered)) as results:
            async for result in results:
                yield result

    async def _aresults(self, ordered: bool) -> AsyncGenerator[Any, None]:
        from hypernodes._turns import Turns

        if isinstance(self.items, AsyncIterable):
            async with aclosing(self._aresults_of_async(self.items, ordered)) as results:
                async for result in results:
                    yield result
            return
        base = 0
        with ExitStack() as stack:
            watch: Watch | None = None
            for prepared, rows, steady in self._runs():
                watch = self._watched_by(watch, prepared, stack)
                feed = Feed(rows if watch is None else watch.rows(rows, base), steady)
                turns = Turns(feed, stop_at_failure=not self.keeps_failures)
                count = 0
                async with aclosing(prepared.abatches(feed, watch, base)) as found:
                    async for batches in found:
                        for batch in batches:
                            for ready in turns.ready(batch) if ordered else (batch,):
                                count += len(ready.values)
                                for result in self._shaped(prepared, ready, base, watch):
                                    yield result
                base += count
            if watch is not None:
                watch.complete()

    async def _aresults_of_async(self, items: AsyncIterable[Any], ordered: bool) -> AsyncGenerator[Any, None]:
        from hypernodes._arows import AsyncRows
        from hypernodes._turns import Turns

        rows = AsyncRows(self.name, items)
        first = await rows.first()
        if first is None:
            return
        prepared = self.prepare(tuple({**self.shared, **first}), self.shared.keys() - first.keys())
        shared = self.given
        with ExitStack() as stack:
            watch = self._watched_by(None, prepared, stack)
            index = itertools.count()

            def row_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
                values = prepared.row({**shared, **row})
                return values if watch is None else (*values, watch.span(next(index)))

            feed = rows.start(row_of)
            feed.steady = shared.keys() - first.keys()
            turns = Turns(feed, stop_at_failure=not self.keeps_failures)
            try:
                async with aclosing(prepared.abatches(feed, watch)) as found:
                    async for batches in found:
                        for batch in batches:
                            for ready in turns.ready(batch) if ordered else (batch,):
                                for result in self._shaped(prepared, ready, 0, watch):
                                    rows.delivered()
                                    yield result
                if watch is not None:
                    watch.complete()
            finally:
                await rows.close()

    def _ready_runs(self) -> Iterator[tuple[Prepared, Iterable[tuple[Any, ...]] | Blocks, Container[str] | None]]:
        """As `_runs`, with blocks where rows lie ready and the plan runs in blocks."""
        items, read = self.items, 0
        if self.columns is None and isinstance(items, list | tuple) and items:
            prepared = self._prepare_row(0, tuple(items[0]))
            if prepared.inline is not None and prepared.inline.batch:
                ready = ReadyBlocks(items, prepared.names, self.given)
                yield prepared, ready, None
                read = ready.read
        yield from self._runs(read)

    def _runs(self, read: int = 0) -> Iterator[tuple[Prepared, Iterable[tuple[Any, ...]], Container[str] | None]]:
        """The rows in runs that share one plan, as tuples in the order of the plan's inputs; `read` were read before.

        With each run goes which inputs nobody changes from row to row, as in a `Feed`.
        """
        if self.columns is not None:
            names = self.columns.names
            shared = self.given
            prepared = self.first
            if self.columns.lists is not None:
                yield prepared, ReadyColumns(self.columns.lists, prepared.names, shared), None
                return
            yield (
                prepared,
                (prepared.row({**shared, **dict(zip(names, row, strict=True))}) for row in self.columns.rows),
                None,
            )
            return
        assert isinstance(self.items, Iterable)
        shared, items = self.given, self.items
        ready_made = isinstance(items, list | tuple)
        if isinstance(items, list | tuple) and items and not read:
            # Rows that lie ready are read in blocks: 0.1 us each instead of 1 us.
            keys = tuple(items[0])
            prepared = self._prepare_row(0, keys)
            ready = ReadyRows(items, keys, prepared.names, shared)
            yield prepared, ready, None
            read = ready.read
        rest = items[read:] if isinstance(items, list | tuple) else items
        for at, keys, rows in row_runs(self.name, rest, read):
            prepared = self._prepare_row(at, keys)
            row_of = prepared.row
            found = (row_of({**shared, **row}) for row in rows) if shared else map(row_of, rows)
            yield prepared, found, None if ready_made else shared.keys() - set(keys)

    def _shaped(self, prepared: Prepared, batch: Batch, base: int, watch: Watch | None) -> list[Any]:
        """The results of a batch, each in the form that was asked for or a `Failure`."""
        if not batch.failures:
            return self.wanted.shape_all(batch.values)
        for failure, _ in batch.failures.values():
            raise_if_it_ends(failure)
        if watch is not None and not self.keeps_failures:
            at = min(batch.failures)
            watch.failed(prepared.home(batch.failures[at][0]).at(base + batch.first + at))
        return [
            self.wanted.shape(outcome.values or ())
            if outcome.failure is None
            else prepared.home(outcome.failure).at(base + outcome.index)
            for outcome in batch.outcomes()
        ]

    def settled(self, result: Any) -> Any:
        if isinstance(result, Failure) and not self.keeps_failures:
            raise_failure(result)
        return result


class _OfCall(opened):
    """The scope of one call of a map, which gives it to every row."""

    def __init__(self, call: MapCall) -> None:
        super().__init__(meets=call.meets())
        self.call = call

    def __enter__(self) -> Scope:
        scope = super().__enter__()
        self.call.scope, self.call.given = scope, {**self.call.shared, SCOPE: scope}
        return scope


def _moved(failure: Failure, base: int) -> Failure:
    """The failure, its item counted from the start of the map; `base` items came before its run of rows."""
    return failure.at(failure.items[0] + base) if base and failure.items[0] is not None else failure


def _chain(row: Any, rows: Iterator[Any]) -> Iterator[Any]:
    return itertools.chain((row,), rows)


def _shift(error: Exception, done: int) -> None:
    """Count items from the start of the map where an earlier run of rows had other keys."""
    failure = failure_of(error)
    if done and failure is not None and failure.items[0] is not None:
        error.__notes__.remove(f"in {failure.where}" + (f", on {failure.place}" if failure.place else ""))
        raise_failure(failure.at(failure.items[0] + done))
