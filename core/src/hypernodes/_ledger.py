"""Who has what: chunks of tasks that are out, and what becomes of them when a worker dies.

A pure state machine: no clock, no threads, no I/O. A chunk whose worker died is cut in half until one task is left
in it; only a task that died alone is charged. After two such deaths it is tried once more with nothing else out, and
only if that kills the worker too is the task blamed. So a healthy task is not condemned for its neighbours.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from hypernodes._pace import Pace
from hypernodes._runs import Run
from hypernodes._task import Stage, Task

__all__ = ["DEATHS_BEFORE_SOLO", "Dispatch", "Ledger", "TaskQueue", "Waiting"]

DEATHS_BEFORE_SOLO = 2


class Dispatch(NamedTuple):
    """A chunk of tasks of one stage that is out with a worker."""

    id: int
    stage: Stage
    tasks: Sequence[Task]

    @property
    def rows(self) -> Sequence[tuple[Any, ...]]:
        tasks = self.tasks
        return tasks.rows if isinstance(tasks, Run) else [task.values for task in tasks]


class Waiting(Protocol):
    """Tasks of one stage that wait for a worker, in order: `TaskQueue`, or `RunQueue` where all are whole rows."""

    def __len__(self) -> int: ...

    def extend(self, tasks: Iterable[Task], /) -> None: ...

    def draw(self, count: int) -> Sequence[Task]: ...


class TaskQueue(deque[Task]):
    """Single tasks that wait."""

    def draw(self, count: int) -> list[Task]:
        return [self.popleft() for _ in range(count)]


class Ledger:
    """Tasks that wait, chunks that are out, and the suspicion that rests on each.

    Messages about a chunk that is no longer out - late ones, doubled ones - are ignored. `living` says which tasks of
    a chunk are still wanted, as it is about to go out. `to_come` tells how many more tasks will be put, None that it is
    not known: only what is left is shared among the workers. No more chunks of a stage are out than its `at_most`.
    """

    def __init__(
        self,
        workers: int,
        pace: Callable[[Stage], Pace],
        living: Callable[[Sequence[Task]], Sequence[Task]] | None = None,
        queue: Callable[[], Waiting] = TaskQueue,
    ) -> None:
        self.workers, self.living = workers, living
        self.to_come: int | None = 0
        self._pace, self._queue = pace, queue
        self._paces: dict[int, Pace] = {}
        self._queues: dict[int, tuple[Stage, Waiting]] = {}
        self._split: deque[tuple[Stage, Sequence[Task]]] = deque()
        self._solo: deque[tuple[Stage, Sequence[Task]]] = deque()
        self._solo_out = 0
        self._deaths: dict[int, int] = {}
        self._out: dict[int, Dispatch] = {}
        self._out_of: Counter[int] = Counter()
        self._serial = 0
        self.waiting = 0

    @property
    def out(self) -> int:
        """How many chunks are out."""
        return len(self._out)

    @property
    def idle(self) -> bool:
        return not (self._out or self.waiting)

    def pace_of(self, stage: Stage) -> Pace:
        found = self._paces.get(id(stage))
        if found is None:
            found = self._paces[id(stage)] = self._pace(stage)
        return found

    def put(self, stage: Stage, tasks: Iterable[Task]) -> None:
        """Let tasks of a stage wait for a worker."""
        entry = self._queues.get(id(stage))
        if entry is None:
            entry = self._queues[id(stage)] = (stage, self._queue())
        queue = entry[1]
        before = len(queue)
        queue.extend(tasks)
        self.waiting += len(queue) - before

    def queued(self, stage: Stage) -> int:
        """How many tasks of a stage wait that have not been out yet."""
        entry = self._queues.get(id(stage))
        return 0 if entry is None else len(entry[1])

    def out_of(self, stage: Stage) -> int:
        """How many chunks of a stage are out."""
        return self._out_of[id(stage)]

    def size(self, stage: Stage, queued: int) -> int:
        """How many tasks the next chunk of a stage should have, where as many are queued.

        Near the end what is left is shared out in ever smaller chunks, two for each worker at a time, so that all end
        together; but none smaller than is worth the way. Batches stay whole.
        """
        pace, batch = self.pace_of(stage), stage.batch
        size = pace.size
        if self.to_come is not None:
            size = min(size, max(pace.least, -(-(queued + self.to_come) // (2 * self.workers))))
        return max(batch, size - size % batch) if batch else max(1, size)

    def take(self) -> Dispatch | None:
        """The next chunk for a worker, or None when nothing may go out now."""
        if self._out and (self._solo or self._solo_out in self._out):
            return None
        while self._solo:
            stage, tasks = self._solo.popleft()
            self.waiting -= 1
            tasks = self._living(tasks)
            if tasks:
                dispatch = self._send(stage, tasks)
                self._solo_out = dispatch.id
                return dispatch
        while (found := self._next()) is not None:
            stage, tasks = found
            if tasks:
                return self._send(stage, tasks)
        return None

    def _next(self) -> tuple[Stage, Sequence[Task]] | None:
        """The tasks that are next, perhaps none of them wanted any more; None when nothing may go out now."""
        for at, (stage, _) in enumerate(self._split):
            if self._is_free(stage):
                return stage, self._drawn_part(at)
        # The latest stage that has work comes first: items finish before new ones begin.
        for stage, queue in reversed(self._queues.values()):
            if len(queue) and self._is_free(stage):
                tasks = queue.draw(min(len(queue), self.size(stage, len(queue))))
                self.waiting -= len(tasks)
                return stage, self._living(tasks)
        return None

    def _is_free(self, stage: Stage) -> bool:
        """Whether one more chunk of the stage may be out."""
        return stage.at_most is None or self._out_of[id(stage)] < stage.at_most

    def _drawn_part(self, at: int) -> Sequence[Task]:
        """Take a part of a chunk that was lost or came back."""
        _, tasks = self._split[at]
        del self._split[at]
        self.waiting -= len(tasks)
        return self._living(tasks)

    def _living(self, tasks: Sequence[Task]) -> Sequence[Task]:
        return tasks if self.living is None else self.living(tasks)

    def _send(self, stage: Stage, tasks: Sequence[Task]) -> Dispatch:
        self._serial += 1
        self.pace_of(stage).weigh(tasks[0].values)
        self._out_of[id(stage)] += 1
        dispatch = self._out[self._serial] = Dispatch(self._serial, stage, tasks)
        return dispatch

    def _over(self, dispatch_id: int) -> Dispatch | None:
        """A chunk is not out any more; None if it was not."""
        dispatch = self._out.pop(dispatch_id, None)
        if dispatch is not None:
            self._out_of[id(dispatch.stage)] -= 1
        return dispatch

    def dispatched(self, dispatch_id: int) -> Dispatch | None:
        """The chunk that is out under this id."""
        return self._out.get(dispatch_id)

    def done(self, dispatch_id: int, seconds: float) -> Dispatch | None:
        """A chunk came back; None if it was not out any more."""
        dispatch = self._over(dispatch_id)
        if dispatch is not None:
            self.pace_of(dispatch.stage).record(len(dispatch.tasks), seconds)
            if self._deaths:
                for task in dispatch.tasks:
                    self._deaths.pop(task.index, None)
        return dispatch

    def lost(self, dispatch_id: int) -> Task | None:
        """A chunk's worker died while it ran. Gives the task to blame, if it is certain by now."""
        dispatch = self._over(dispatch_id)
        if dispatch is None:
            return None
        stage, tasks = dispatch.stage, dispatch.tasks
        self.pace_of(stage).slow_down()
        if len(tasks) > 1:
            self._halve(stage, tasks)
            return None
        task = tasks[0]
        deaths = self._deaths[task.index] = self._deaths.get(task.index, 0) + 1
        if deaths > DEATHS_BEFORE_SOLO:
            del self._deaths[task.index]
            return task
        if deaths == DEATHS_BEFORE_SOLO:
            self._solo.append((stage, tasks))
        else:
            self._split.append((stage, tasks))
        self.waiting += 1
        return None

    def divide(self, dispatch_id: int) -> Task | None:
        """A chunk could not be carried there or back as a whole: try its halves. Gives the task if it was alone."""
        dispatch = self._over(dispatch_id)
        if dispatch is None:
            return None
        if len(dispatch.tasks) == 1:
            return dispatch.tasks[0]
        self._halve(dispatch.stage, dispatch.tasks)
        return None

    def returned(self, dispatch_id: int) -> None:
        """A chunk comes back unbegun: it waits again, and nobody is suspected."""
        dispatch = self._over(dispatch_id)
        if dispatch is None:
            return
        if dispatch_id == self._solo_out:
            self._solo.append((dispatch.stage, dispatch.tasks))
        else:
            self._split.append((dispatch.stage, dispatch.tasks))
        self.waiting += len(dispatch.tasks)

    def _halve(self, stage: Stage, tasks: Sequence[Task]) -> None:
        middle = len(tasks) // 2
        self._split.extend([(stage, tasks[:middle]), (stage, tasks[middle:])])
        self.waiting += len(tasks)
