"""The scheduler of whole rows of one stage: they stay in runs, and nothing is made for a single row.

It keeps the ledger's promises as `Scheduler` does, and is as pure: no clock, no threads, no I/O. A row costs the
calling process some hundredths of a microsecond here, where a task, an owner and an outcome of its own cost about one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypernodes._engine import Feed
from hypernodes._failure import describe
from hypernodes._ledger import Dispatch, Ledger
from hypernodes._pace import Pace
from hypernodes._runs import Run, RunQueue
from hypernodes._schedule import common_path
from hypernodes._task import Batch, Reply, Stage, Task

__all__ = ["Line"]


class Line:
    """Runs of rows in, chunks out, replies in, batches out.

    `workers` is how many chunks can run at once. `width` bounds how many rows may be under way together; None leaves
    it to the pace of the work, of which `pace` makes the rule.
    """

    def __init__(
        self, stage: Stage, *, workers: int, pace: Callable[[Stage], Pace], width: int | None = None, place: str = ""
    ) -> None:
        self.stage, self.workers, self.width, self.place = stage, workers, width, place
        self.ledger = Ledger(workers, pace, queue=RunQueue)
        self.ledger.to_come = None
        self._pace = self.ledger.pace_of(stage)
        self._batches: list[Batch] = []
        self._stopped_at: int | None = None
        self._open = 0

    # -- what the driver asks

    @property
    def open(self) -> int:
        """How many rows are under way."""
        return self._open

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing is out and every outcome has been collected."""
        return self._open == 0 and not self._batches

    def room(self) -> int:
        """How many more rows it would take now: what the next chunk lacks."""
        if self._stopped_at is not None:
            return 0
        if self.width is not None:
            return max(0, self.width - self._open)
        queued = self.ledger.queued(self.stage)
        return max(0, self.ledger.size(self.stage, queued) - self.ledger.waiting)

    def ahead(self) -> int:
        """How many outcomes may wait for an earlier one before no more rows are drawn."""
        return 4 * self.workers * max(self._pace.size, self.stage.batch)

    def draw(self, feed: Feed, room: int) -> None:
        """Admit up to `room` rows of a feed, and note how many it says will follow."""
        if room > 0 and not feed.ended:
            self.admit(feed.take_run(room, self.stage.batch))
        self.ledger.to_come = 0 if feed.ended else feed.left

    def admit(self, run: Run) -> None:
        """Let rows wait for a worker; they follow those admitted before."""
        self._open += run.rows.height
        self.ledger.put(self.stage, run)

    def take(self) -> Dispatch | None:
        """The next chunk for a worker, or None.

        A batch that is not full waits, as long as something is out and more rows may come.
        """
        ledger, batch = self.ledger, self.stage.batch
        if batch and ledger.out and ledger.to_come != 0 and self._stopped_at is None:
            queued = ledger.queued(self.stage)
            if queued == ledger.waiting and 0 < queued < batch:
                return None
        return ledger.take()

    def batches(self) -> list[Batch]:
        """The rows that came to an end since the last call, in the order in which they did."""
        done, self._batches = self._batches, []
        return done

    def stop(self, after: int) -> None:
        """Take no more rows, and drop those with a higher index than `after` that are not out yet."""
        self._stopped_at = after if self._stopped_at is None else min(after, self._stopped_at)
        self.ledger.living = self._living

    def unwanted(self, dispatch_id: int) -> bool:
        """Whether nobody waits for anything in a chunk that is out."""
        dispatch = self.ledger.dispatched(dispatch_id)
        if dispatch is None or self._stopped_at is None:
            return False
        return dispatch.tasks[0].index > self._stopped_at

    # -- what the driver tells

    def done(self, dispatch_id: int, reply: Reply) -> None:
        """A chunk came back."""
        dispatch = self.ledger.done(dispatch_id, reply.seconds)
        if dispatch is not None:
            self._over(dispatch.tasks, Batch(dispatch.tasks[0].index, reply.values, reply.failures))

    def lost(self, dispatch_id: int, error: BaseException) -> None:
        """The worker of a chunk died while it ran it."""
        task = self.ledger.lost(dispatch_id)
        if task is not None:
            self._blame(task, error)

    def refused(self, dispatch_id: int, error_of: Callable[[Stage, Task], BaseException]) -> None:
        """A chunk could not be carried there or back; it is divided until the row at fault is alone."""
        task = self.ledger.divide(dispatch_id)
        if task is not None:
            self._blame(task, error_of(self.stage, task))

    def returned(self, dispatch_id: int) -> None:
        """A chunk comes back unbegun."""
        self.ledger.returned(dispatch_id)

    def _blame(self, task: Task, error: BaseException) -> None:
        path = common_path(self.stage)
        failure = describe(error, path, (None,) * len(path), self.place)
        self._over((task,), Batch(task.index, [None], {0: (failure, 0)}))

    def _over(self, tasks: Sequence[Task], batch: Batch) -> None:
        self._open -= len(tasks)
        self._batches.append(batch)

    def _living(self, tasks: Sequence[Task]) -> Sequence[Task]:
        assert isinstance(tasks, Run)
        assert self._stopped_at is not None
        living = tasks.up_to(self._stopped_at)
        self._open -= len(tasks) - len(living)
        return living
