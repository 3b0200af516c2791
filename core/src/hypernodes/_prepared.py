"""A call's plan and the road it takes: inline where it runs one after another here, else through the hub."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from hypernodes._backend import label
from hypernodes._calls import Wanted, row_getter
from hypernodes._engine import Feed
from hypernodes._failure import raise_failure
from hypernodes._inline import Inline
from hypernodes._late import importing
from hypernodes._local import core_engine
from hypernodes._plan import Plan
from hypernodes._task import Batch

if TYPE_CHECKING:
    from hypernodes._hub import Route

__all__ = ["Prepared"]


class Prepared:
    """A plan and the road it takes: inline where it runs one after another here, else through the hub."""

    def __init__(self, plan: Plan, want: Wanted) -> None:
        self.plan, self.wanted = plan, want
        self.names = tuple(name for name, _ in plan.inputs)
        self.row = row_getter(self.names)
        places = {step.place for step in plan.steps}
        self.inline: Inline | None = None
        crosses = any(getattr(step, "crosses", False) for step in plan.steps)
        if len(places) <= 1 and not crosses:
            backend = plan.places[places.pop() if places else 0]
            if core_engine(backend) == "sequential":
                self.inline = Inline(plan, want, label(backend))
        self._route: Route | None = None

    @property
    def route(self) -> Route:
        """The road through the hub, laid when it is first taken."""
        if self._route is None:
            with importing("hypernodes._hub"):
                from hypernodes._hub import Route

            self._route = Route(self.plan)
        return self._route

    def run(self, values: dict[str, Any]) -> Any:
        """Run once through the hub."""
        for batch in self.batches(Feed([self.row(values)])):
            return self.only(batch)
        raise AssertionError("a run of one item gave no outcome")

    def only(self, batch: Batch) -> Any:
        """The result of a run, which is a batch of one row; raises its failure."""
        if batch.failures:
            raise_failure(batch.failures[0][0])
        return self.wanted.shape(batch.values[0] or ())

    def batches(self, feed: Feed) -> Generator[Batch, None, None]:
        """What comes of the rows as it is ready; in a thread of their own where an event loop is running here."""
        with importing("hypernodes._loops"):
            from hypernodes._loops import is_loop_running

        if is_loop_running():
            from hypernodes._bridge import from_thread

            return from_thread(lambda: self.route.batches(feed))
        return self.route.batches(feed)
