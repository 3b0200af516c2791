"""Which unit goes out next: the ledger of a scheduler whose rows are cut into units, with batches that fill up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from hypernodes._ledger import Ledger, TaskQueue, Waiting
from hypernodes._pace import Pace
from hypernodes._task import Stage, Task

__all__ = ["Lineup"]


class Lineup(Ledger):
    """A ledger where a stage's batch waits while it is not full and `fills` says that rows may still come to it.

    `fits` says whether tasks may be out together with what is out. Among stages with ranks (by the id of their first
    step) none goes out while one of a lower rank has work, if `staged`.
    """

    def __init__(
        self,
        workers: int,
        pace: Callable[[Stage], Pace],
        living: Callable[[Sequence[Task]], Sequence[Task]],
        *,
        fills: Callable[[Stage], bool],
        fits: Callable[[Sequence[Task]], bool] | None = None,
        ranks: Mapping[int, int],
        staged: bool = False,
    ) -> None:
        super().__init__(workers, pace, living)
        self.fills, self.fits, self.ranks, self.staged = fills, fits, ranks, staged

    def rank(self, stage: Stage) -> int:
        return self.ranks.get(id(stage.steps[0]), 0)

    def size(self, stage: Stage, queued: int) -> int:
        """How many tasks the next chunk should have: a worker's share of what waits, as nobody knows what will follow.

        Even the smallest items are shared out: they may be waiting for one another.
        """
        batch = stage.batch
        size = min(self.pace_of(stage).size, -(-queued // self.workers))
        return max(batch, size - size % batch) if batch else max(1, size)

    def tasks_out(self) -> Iterator[Task]:
        return itertools.chain.from_iterable(dispatch.tasks for dispatch in self._out.values())

    def has_work(self) -> bool:
        """Whether anything waits that has not to wait for others to fill a batch."""
        return bool(self._split or self._solo) or any(
            len(queue) >= max(1, stage.batch) for stage, queue in self._queues.values()
        )

    def close_batch(self) -> None:
        """Nothing else can go out: let the earliest batch that is not full go."""
        partly = [stage for stage, queue in self._queues.values() if queue]
        if partly:
            stage = min(partly, key=self.rank)
            _, queue = self._queues[id(stage)]
            self._split.append((stage, queue.draw(len(queue))))

    def _next(self) -> tuple[Stage, Sequence[Task]] | None:
        lowest = self._lowest() if self.staged else None
        for at, (stage, tasks) in enumerate(self._split):
            if self._may_go(stage, lowest) and (self.fits is None or self.fits(tasks)):
                return stage, self._drawn_part(at)
        waiting = reversed(self._queues.values())
        if self.ranks and not self.staged:
            # Parts that each run few calls at a time overlap only if none of them takes up all workers.
            waiting = iter(sorted(waiting, key=self._share))
        for stage, queue in waiting:
            if queue and self._may_go(stage, lowest):
                assert isinstance(queue, TaskQueue)
                drawn = self._draw(stage, queue)
                if drawn is not None:
                    return stage, drawn
        return None

    def _share(self, entry: tuple[Stage, Waiting]) -> int:
        return self._out_of[id(entry[0])]

    def _may_go(self, stage: Stage, lowest: int | None) -> bool:
        return self._is_free(stage) and (lowest is None or self.rank(stage) <= lowest)

    def _lowest(self) -> int:
        """The rank of the earliest stage that has work."""
        stages = [stage for stage, queue in self._queues.values() if queue]
        stages += [stage for stage, _ in (*self._split, *self._solo)]
        stages += [dispatch.stage for dispatch in self._out.values()]
        return min(map(self.rank, stages), default=0)

    def _draw(self, stage: Stage, queue: TaskQueue) -> list[Task] | None:
        """The next tasks of a stage that are still wanted, None where they have to wait."""
        queued, batch = len(queue), stage.batch
        size = min(queued, self.size(stage, queued))
        if batch:
            size -= size % batch if size > batch else 0
            if size < batch and self.fills(stage):
                return None
        if self.fits is not None and not self.fits(list(itertools.islice(queue, size))):
            return None
        tasks: list[Task] = []
        while queue and len(tasks) < size:
            drawn = queue.draw(min(size - len(tasks), len(queue)))
            self.waiting -= len(drawn)
            tasks += self._living(drawn)
        if tasks and len(tasks) < batch and self.fills(stage):
            # Some of what filled the batch is not wanted any more.
            queue.extendleft(reversed(tasks))
            self.waiting += len(tasks)
            return None
        return tasks
