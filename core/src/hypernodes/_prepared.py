"""A call's plan and the road it takes: inline where it runs one after another here, else through the hub."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hypernodes._backend import label
from hypernodes._calls import Wanted, row_getter
from hypernodes._engine import Feed
from hypernodes._events import Callback, Listener
from hypernodes._failure import Failure, raise_failure, raise_if_it_ends
from hypernodes._hops import places_of
from hypernodes._inline import Inline
from hypernodes._late import importing
from hypernodes._local import core_engine
from hypernodes._plan import SCOPE, SPAN, Plan
from hypernodes._scope import Scope, opened
from hypernodes._task import Batch

if TYPE_CHECKING:
    from hypernodes._hub import Route
    from hypernodes._watch import Watch
    from hypernodes._why import Lookups

__all__ = ["Prepared"]


class Prepared:
    """A plan and the road it takes: inline where it runs one after another here, else through the hub.

    `meets` says whether processes have to meet for what the call counts.
    """

    def __init__(
        self, plan: Plan, want: Wanted, facts: Mapping[str, Any] | None = None, meets: Callable[[], bool] = bool
    ) -> None:
        self.meets = meets
        self.plan, self.wanted, self.facts = plan, want, facts or {}
        self.watched = plan.watched
        self.cached = any(setting.cache is not None for setting in plan.settings)
        self.names = tuple([name for name, _ in plan.inputs if name != SPAN])
        self.row = row_getter(self.names)
        places = {step.place for step in plan.steps}
        self.inline: Inline | None = None
        crosses = any(getattr(step, "crosses", False) for step in plan.steps)
        if len(places) <= 1 and not crosses and not self.watched and not self.cached:
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

    def home(self, failure: Failure) -> Failure:
        """A failure that came home, with the place of each pipeline of its path."""
        return failure.through(self._places)

    @cached_property
    def _places(self) -> dict[tuple[str, ...], str]:
        return places_of(self.plan)

    def watch(self, kind: str, total: int | None = None, extra: Sequence[Callback | Listener] = ()) -> Watch:
        """Who tells listeners of a call of this plan."""
        with importing("hypernodes._watch"):
            from hypernodes._watch import Watch
        return Watch(kind, self.plan, total, self.facts, extra)

    def run(self, values: dict[str, Any], extra: Sequence[Callback | Listener] = ()) -> Any:
        """Run once."""
        if not self.plan.scoped:
            return self._call(values, extra)
        with opened(meets=self.meets()) as scope:
            return self._call({**values, SCOPE: scope}, extra, scope)

    def _call(self, values: dict[str, Any], extra: Sequence[Callback | Listener], scope: Scope | None = None) -> Any:
        if self.inline is not None:
            return self.inline.caller()(values)
        if not self.watched:
            return self._run(self.row(values), None)
        with self.watch("pipeline", extra=extra) as watch:
            watch.belongs(scope)
            return self._run((*self.row(values), watch.span(0)), watch)

    def _run(self, row: tuple[Any, ...], watch: Watch | None) -> Any:
        found = self.route.recalled(row) if self.cached else None
        if found is not None:
            if watch is not None:
                watch.complete()
            return self.wanted.shape(found)
        try:
            with closing(self.batches(Feed([row]), watch)) as batches:
                for batch in batches:
                    if watch is not None:
                        watch.complete()
                    return self.only(batch)
        finally:
            if self.cached:
                self.route.forget(row)
        raise AssertionError("a run of one item gave no outcome")

    async def arun(self, values: dict[str, Any], watch: Watch | None) -> Any:
        """The same on the running event loop."""
        if not self.plan.scoped:
            return await self._acall(values, watch)
        async with opened(meets=self.meets()) as scope:
            if watch is not None:
                watch.belongs(scope)
            return await self._acall({**values, SCOPE: scope}, watch)

    async def _acall(self, values: dict[str, Any], watch: Watch | None) -> Any:
        row = self.row(values)
        feed = Feed([row if watch is None else (*row, watch.span(0))])
        async with aclosing(self.abatches(feed, watch)) as batches:
            async for found in batches:
                if watch is not None:
                    watch.complete()
                return self.only(found[0])
        raise feed.error or AssertionError("a run of one item gave no outcome")

    def look_up(self, values: dict[str, Any]) -> Lookups:
        """What the caches have for a call with these inputs."""
        from hypernodes._why import look_up

        row = self.row({**values, SCOPE: None})
        return look_up(self.route, (*row, ("", ())) if self.watched else row)

    def only(self, batch: Batch) -> Any:
        """The result of a run, which is a batch of one row; raises its failure."""
        if batch.failures:
            failure = self.home(batch.failures[0][0])
            raise_if_it_ends(failure)
            raise_failure(failure)
        return self.wanted.shape(batch.values[0] or ())

    def batches(self, feed: Feed, watch: Watch | None = None, base: int = 0) -> Generator[Batch, None, None]:
        """What comes of the rows as it is ready; in a thread of their own where an event loop is running here.

        `base` rows of the call came before those of the feed.
        """
        with importing("hypernodes._loops"):
            from hypernodes._loops import is_loop_running

        told = None if watch is None else watch.place
        if is_loop_running():
            from hypernodes._bridge import from_thread

            batches = from_thread(lambda: self.route.batches(feed, told))
        else:
            batches = self.route.batches(feed, told)
        return batches if watch is None else _noted(batches, watch, base)

    async def abatches(
        self, feed: Feed, watch: Watch | None = None, base: int = 0
    ) -> AsyncGenerator[list[Batch], None]:
        """The same on the running event loop."""
        async with aclosing(self.route.abatches(feed, None if watch is None else watch.place)) as found:
            async for batches in found:
                if watch is not None:
                    watch.through(batches, base)
                yield batches


def _noted(batches: Generator[Batch, None, None], watch: Watch, base: int) -> Generator[Batch, None, None]:
    with closing(batches):
        for batch in batches:
            watch.through((batch,), base)
            yield batch
