"""An engine says how a stage's tasks run: one after another, in a pool, or translated whole."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from hypernodes._errors import PlaceError
from hypernodes._layout import Rows
from hypernodes._runs import Run
from hypernodes._specs import MODES, EngineSpec
from hypernodes._supply import ReadyTable, Supply
from hypernodes._table import Table
from hypernodes._task import Batch, Outcome, Stage, Task, run_rows, run_task

__all__ = ["Engine", "Feed", "QueueFeed", "Site", "run_in_line"]

DRAWING = 0.02
"""Seconds of drawing rows after which those that are there are handed on."""


class Engine(ABC):
    """A frozen configuration of how work runs; subclass it as a frozen dataclass and register an `EngineSpec`.

    `execute` promises: one outcome for each task, in any order; a failing node is an outcome, never an exception; other
    tasks go on; tasks are drawn no faster than they are worked off; closing the iterator stops what is under way.
    `shares_memory = False` says that values leave this process, and so must be pickled.

    A place that lacks what it `requires` and provides what is in `opens_on` has it inside. There it opens what it needs
    by itself: with `site.once(...)`, so that it stays for the requests that follow and is closed with the place.
    """

    name: ClassVar[str] = ""
    requires: ClassVar[frozenset[str]] = frozenset()
    opens_on: ClassVar[frozenset[str]] = frozenset()
    modes: ClassVar[tuple[str, ...]] = MODES
    default_mode: ClassVar[str] = "parallel"
    shares_memory: ClassVar[bool] = True

    def workers(self, max_workers: int | None) -> int | None:
        """How many nodes run at once under this bound; None where the engine's library decides."""
        return max_workers

    def items_at_once(self, site: Site) -> int | None:
        """How many items it works on at once of those that come to a far place together; None where measuring tells."""
        return 1 if site.map_execution == "sequential" else site.max_workers

    @abstractmethod
    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        """Run the stage for each task."""

    def batches(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Batch]:
        """The same, several outcomes at a time where an engine has them so."""
        return map(Batch.of, self.execute(stage, tasks, site))

    def sketch(self, stage: Stage) -> str:
        """How it would lay out these steps, as text for `explain()`; `""` where there is nothing to tell."""
        return ""

    @classmethod
    def spec(cls) -> EngineSpec:
        """This class as its own specification, for engines that are given as objects."""
        return EngineSpec(
            name=cls.name or cls.__name__,
            target=f"{cls.__module__}:{cls.__qualname__}",
            requires=cls.requires,
            opens_on=cls.opens_on,
            modes=cls.modes,
            default_mode=cls.default_mode,
        )


class Feed:
    """The tasks of a stage, drawn lazily. Iterate over it, or `take` what there is and see `ended`.

    `take_run` gives the same rows as one run, without making a task of each. An error of the iterable underneath is
    kept in `error`; it ends the feed and is raised when everything that was drawn before it has been delivered. `held`
    says how many outcomes wait for an earlier one, so that an engine can keep from running ever further ahead of a slow
    item. Outcomes of tasks after `stopped_after` are not waited for. `steady` names the inputs that nobody changes
    between two rows, None means all: an iterator of the user's may fill one buffer again and again. `pushed` says that
    others fill it, so that it may be empty for the moment.
    """

    pushed: ClassVar[bool] = False

    def __init__(self, rows: Iterable[tuple[Any, ...]], steady: Container[str] | None = None) -> None:
        self.steady = steady
        if isinstance(rows, Table):
            rows = ReadyTable(rows)
        self._supply: Supply | None = rows if isinstance(rows, Supply) else None
        self._rows: Iterator[tuple[Any, ...]] = iter(()) if isinstance(rows, Supply) else iter(rows)
        self._peeked: list[tuple[Any, ...]] = []
        self._next = 0
        self.held: int = 0
        self._wake: Callable[[], object] | None = None
        self.stopped_after: int | None = None
        self.cancelled = False
        self.ended = False
        self.error: BaseException | None = None

    @property
    def left(self) -> int | None:
        """How many tasks are still to come, where that is known."""
        if self.ended:
            return 0
        return None if self._supply is None else self._supply.left

    def take(self, count: int) -> list[Task]:
        """Up to `count` tasks; fewer when there are no more now."""
        if self.ended:
            return []
        if self._supply is not None:
            # From now on one by one: a supply is read in blocks.
            self._rows, self._supply = itertools.chain(self._peeked, self._supply), None
            self._peeked = []
        taken: list[tuple[Any, ...]] = []
        try:
            taken.extend(itertools.islice(self._rows, count))  # keeps what came before an error
        except BaseException as error:
            self.ended, self.error = True, error
        first, got = self._next, len(taken)
        if got < count:
            self.ended = True
        self._next = first + got
        # Tasks made in C: 0.1 us each instead of 0.25 us by Task(...).
        return list(map(_as_task, zip(range(first, first + got), taken, strict=True)))

    def take_run(self, count: int, least: int = 1) -> Run:
        """Up to `count` tasks as one run: `least` of them, and then as many as come in a fraction of a second.

        It is empty when there are no more.
        """
        first = self._next
        if self.ended:
            return Run(first, Table([], 0))
        try:
            table = self._drawn(count) if self._supply is not None else self._drawn_slowly(count, least)
        except BaseException as error:
            self.ended, self.error = True, error
            table = Table([], 0)
        self._next = first + table.height
        return Run(first, table)

    def _drawn(self, count: int) -> Table:
        assert self._supply is not None
        if not self._peeked:
            table = self._supply.draw(count)
        else:
            peeked, self._peeked = Table.of(self._peeked), []
            table = Table.joined([peeked, self._supply.draw(count - peeked.height)])
        self.ended = table.height < count
        return table

    def _drawn_slowly(self, count: int, least: int) -> Table:
        """Rows in pieces that double, so that looking at the clock costs nothing for a row."""
        taken: list[tuple[Any, ...]] = []
        piece, began = 1, time.perf_counter()
        while len(taken) < count:
            wanted = min(count, len(taken) + piece)
            try:
                taken.extend(itertools.islice(self._rows, wanted - len(taken)))
            except BaseException as error:
                self.ended, self.error = True, error
            if len(taken) < wanted:
                self.ended = True
                break
            if len(taken) >= least and time.perf_counter() - began > DRAWING:
                break
            piece = len(taken)
        return Table.of(taken)

    def peek(self) -> bool:
        """Whether there is a task at all; it is drawn, and comes first when tasks are taken."""
        if self.ended or self._peeked:
            return not self.ended
        # The very tuples are kept: what a cache found for a row is known by the object.
        first, from_supply = self._next, self._supply is not None
        taken = list(self.take_run(1).rows) if from_supply else [task.values for task in self.take(1)]
        self._next = first
        if taken and from_supply:
            self._peeked = taken
        elif taken:
            self._rows = itertools.chain(taken, self._rows)
        if taken:
            self.ended = False
        return bool(taken)

    def stop(self, after: int | None = None) -> None:
        """Draw no more. Nobody waits for outcomes of tasks whose index is higher than `after`."""
        self.ended = True
        if after is not None:
            self.stopped_after = after if self.stopped_after is None else min(after, self.stopped_after)

    def cancel(self) -> None:
        """Nobody wants the outcomes any more."""
        self.cancelled = True
        self.stop()

    def on_more(self, wake: Callable[[], object]) -> None:
        """Have `wake` called when a feed that was empty for the moment has tasks again, or ends; or holds less."""
        self._wake = wake

    def let_go(self, count: int) -> None:
        """So many outcomes are held back no more. Whoever draws may wait for that in another thread."""
        self.held -= count
        if self._wake is not None:
            self._wake()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        for task in self.take(1):
            return task
        raise StopIteration


_as_task = functools.partial(tuple.__new__, Task)


class QueueFeed(Feed):
    """A feed that another thread fills: empty for the moment does not mean ended."""

    pushed: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(())
        self._queue: deque[Task] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, *tasks: Task) -> None:
        """Add tasks, which whoever takes finds together."""
        with self._changed:
            self._queue.extend(tasks)
            self._changed.notify()
        if self._wake is not None:
            self._wake()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self.ended = not self._queue
            self._changed.notify()
        if self._wake is not None:
            self._wake()

    def stop(self, after: int | None = None) -> None:
        super().stop(after)
        with self._changed:
            self._queue.clear()
        self.close()

    def peek(self) -> bool:
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            return bool(self._queue)

    def take(self, count: int) -> list[Task]:
        with self._changed:
            taken = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
            self.ended = self._closed and not self._queue
        return taken

    def take_run(self, count: int, least: int = 1) -> Run:
        return Run.of(self.take(count))

    def __next__(self) -> Task:
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
        return super().__next__()


class Site:
    """What an engine is given to work with: its modes, its share of workers, and a place to keep what it opens.

    `name` is the backend's, for messages; `map_strategy` the one it names, if any. `once(key, make, close)` makes
    something the first time and keeps it as long as the place is open.
    """

    def __init__(
        self,
        *,
        node_execution: str = "sequential",
        map_execution: str = "sequential",
        max_workers: int | None = None,
        handles: Mapping[str, Any] | None = None,
        name: str = "",
        map_strategy: str | None = None,
    ) -> None:
        self.node_execution, self.map_execution, self.max_workers = node_execution, map_execution, max_workers
        self.map_strategy = map_strategy
        self.handles = handles or {}
        self.name = name
        self._kept: dict[Any, tuple[Any, Callable[[Any], None]]] = {}
        self._closed = False
        self._lock = threading.RLock()

    def once(self, key: Any, make: Callable[[], Any], close: Callable[[Any], None]) -> Any:
        with self._lock:
            if self._closed:
                raise PlaceError(f"the place '{self.name}' is closed; nothing can be opened in it any more")
            if key not in self._kept:
                self._kept[key] = (make(), close)
            return self._kept[key][0]

    def drop(self, key: Any, kept: Any) -> None:
        """Forget something kept, without closing it, if it is still the one kept under this key."""
        with self._lock:
            if key in self._kept and self._kept[key][0] is kept:
                del self._kept[key]

    def close(self) -> None:
        """Close everything kept, the latest first; the first error is raised when all had their turn."""
        with self._lock:
            self._closed = True
            kept, self._kept = list(self._kept.values()), {}
        first: BaseException | None = None
        for value, close in reversed(kept):
            try:
                close(value)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first


def run_in_line(stage: Stage, tasks: Feed, place: str) -> Iterator[Batch]:
    """One task after another in this thread, or one block after another where there are batch nodes."""
    if stage.block:
        size = Rows(stage.block)
        while True:
            started = time.perf_counter()
            first = next(tasks, None)  # waits where a feed is empty for the moment
            if first is None:
                break
            taken = [first, *tasks.take(size.size - 1)]
            reply = run_rows(stage, [task.values for task in taken], place)
            size.took(time.perf_counter() - started)
            yield Batch(first.index, reply.values, reply.failures)
    else:
        for task in tasks:
            yield Batch.of(run_task(stage, task, place))
    if tasks.error is not None:
        raise tasks.error
