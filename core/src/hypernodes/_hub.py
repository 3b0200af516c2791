"""The hub: the process where the user called `run` opens every place and moves the values between them.

A plan that stays in one place is handed to that place's engine whole. A plan that crosses borders is cut into stages,
one lane for each; rows flow through the lanes independently, so that a slow place overlaps with the others, and what
leaves one place comes home before it goes to the next. Backends, sessions and credentials never leave this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Container, Generator, Hashable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from hypernodes._blueprint import Blueprint, cut
from hypernodes._bridge import batches_from_thread
from hypernodes._cache_address import open_cache
from hypernodes._engine import Feed
from hypernodes._engines import AsyncEngine, on_own_loop
from hypernodes._execute import execute
from hypernodes._lanes import Lanes
from hypernodes._local import LocalBackend, core_engine, strategy_of
from hypernodes._memo import Memo, caches_of
from hypernodes._overlap import overlap
from hypernodes._places import Told, using
from hypernodes._plan import MapStep, Plan, Step, leaves
from hypernodes._strategy import stands_apart
from hypernodes._task import Batch, Stage

__all__ = ["Route"]


class Route:
    """How the rows of one plan travel: through one place, or through lanes between several."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.caches = [None if one.cache is None else open_cache(one.cache) for one in plan.settings]
        self.memos: list[Memo] = []
        self._inner: dict[int, Blueprint] = {}
        self._alone: dict[Hashable, Stage] = {}
        self._strategies: dict[int, str] = {}
        self.sole = self._sole()
        self.sole_strategy = "stream" if self.sole is None else strategy_of(self.sole, leaves(plan))
        self.here = self.sole if self.sole is not None and core_engine(self.sole) is not None else None
        self.blueprint = self._cut(plan)
        self.single = self.blueprint.single

    def _sole(self) -> LocalBackend | None:
        """The local backend of a plan that it runs from end to end; `here` is the same if the engine is core's."""
        places = {step.place for step in leaves(self.plan)}
        backend = self.plan.places[places.pop()] if len(places) == 1 else None
        return backend if isinstance(backend, LocalBackend) else None

    def _cut(self, plan: Plan) -> Blueprint:
        """The plan as units, or with a memo that cuts for each row what it has to run."""
        maps = {at: step for at, step in enumerate(plan.steps) if isinstance(step, MapStep) and self._is_fan(step)}
        inner = {at: self._inner_of(step) for at, step in maps.items()}
        if any(caches_of(plan, self.caches)):
            memos = {at: blueprint.memo for at, blueprint in inner.items() if blueprint.memo is not None}
            memo = Memo(plan, self.caches, partial(self._cut_steps, plan.path[-1], cached=True), memos)
            self.memos.append(memo)
            return Blueprint((), [slot for _, slot in plan.inputs], [slot for _, slot in plan.outputs], memo)
        return self._cut_steps(plan.path[-1], plan.steps, plan.inputs, plan.outputs)

    def _cut_steps(
        self,
        name: str,
        steps: Sequence[Step | MapStep],
        inputs: Sequence[tuple[str, int]],
        outputs: Sequence[tuple[str, int]],
        spare: frozenset[int] = frozenset(),
        *,
        cached: bool = False,
    ) -> Blueprint:
        def key_of(step: Step | MapStep) -> int | None:
            # In this process each result comes to the cache as soon as it is there.
            return None if cached and core_engine(self.plan.places[step.place]) is not None else step.place

        def is_apart(step: Step) -> bool:
            # Rows of which different parts are kept come here by different ways, and still share batches.
            return cached and stands_apart(step) and self.strategy(step.place) != "item"

        return cut(
            name,
            steps,
            inputs,
            outputs,
            fine=False,
            is_fan=self._is_fan,
            key_of=key_of,
            inner_of=self._inner_of,
            salvages=cached,
            spare=spare,
            in_order=self.sole is not None and self.sole.node_execution == "sequential",
            is_apart=is_apart,
            shared=self._alone,
        )

    def strategy(self, place: int) -> str:
        """How the items of a map go through the part of the plan that runs in one place."""
        found = self._strategies.get(place)
        if found is None:
            steps = [step for step in leaves(self.plan) if step.place == place]
            found = self._strategies[place] = strategy_of(self.plan.places[place], steps)
        return found

    def _is_fan(self, step: MapStep) -> bool:
        """Whether the rows of a mapped pipeline are the hub's to see to: some leave the place, or some are cached."""
        return (
            step.crosses
            or any(caches_of(step.inner, self.caches))
            or any(isinstance(inner, MapStep) and self._is_fan(inner) for inner in step.inner.steps)
        )

    def _inner_of(self, step: MapStep) -> Blueprint:
        found = self._inner.get(id(step.inner))
        if found is None:
            found = self._inner[id(step.inner)] = self._cut(step.inner)
        return found

    def memo_of(self, step: MapStep) -> Memo | None:
        """The memo of a mapped pipeline whose rows are cached."""
        blueprint = self._inner.get(id(step.inner))
        return None if blueprint is None else blueprint.memo

    @contextlib.contextmanager
    def recalling(self, steady: Container[str] | None = None) -> Iterator[None]:
        """Have the memos look at the code of the nodes for one call, and let go of its values afterwards.

        `steady` names the inputs that nobody changes from row to row, as in a `Feed`.
        """
        with contextlib.ExitStack() as stack:
            for memo in self.memos:
                memo.begin(steady if memo.plan is self.plan else None)
                stack.callback(memo.end)
            yield

    def recalled(self, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The outputs of a row that the caches have whole, else None."""
        memo = self.blueprint.memo
        if memo is None:
            return None
        begun: list[Memo] = []
        try:
            for one in self.memos:
                one.begin()
                begun.append(one)
            found: tuple[Any, ...] | None = memo.recalled(row)
        finally:
            for one in begun:
                one.end()
        return found

    def forget(self, row: tuple[Any, ...]) -> None:
        """Let go of what `recalled` found for a row."""
        if self.blueprint.memo is not None:
            self.blueprint.memo.forget(row)

    def batches(self, feed: Feed, told: Told | None = None) -> Generator[Batch, None, None]:
        """Run the rows; what comes of them comes in the order in which it is ready. `told` hears of places."""
        if not self.plan.steps:
            for task in feed:
                yield Batch(task.index, [tuple([task.values[slot] for _, slot in self.plan.outputs])], {})
            if feed.error is not None:
                raise feed.error
            return
        if not feed.peek():
            if feed.error is not None:
                raise feed.error
            return
        if self.single is None and self.here is not None and core_engine(self.here) == "async":
            with using(self.here, told) as place, self.recalling(feed.steady):
                assert isinstance(place.engine, AsyncEngine)
                yield from on_own_loop(place.engine.on_loop(self.blueprint, feed, place.site, self.sole_strategy))
        elif self.single is not None:
            with using(self.plan.places[self.single.steps[0].place], told) as place:
                yield from execute(place, self.single, feed)
        else:
            with self.recalling(feed.steady):
                yield from Lanes(self, told).batches(feed)

    async def abatches(self, feed: Feed, told: Told | None = None) -> AsyncGenerator[list[Batch], None]:
        """The same on the running loop: coroutine nodes are awaited on it where the plan's engine allows."""
        if self.here is not None and self.plan.steps:
            with using(self.here, told) as place, self.recalling(feed.steady):
                blueprint = self.blueprint
                if isinstance(place.engine, AsyncEngine) and self.single is not None:
                    batches = place.engine.abatches(self.single, feed, place.site)
                elif isinstance(place.engine, AsyncEngine):
                    batches = place.engine.on_loop(blueprint, feed, place.site, self.sole_strategy)
                else:
                    staged = self.sole_strategy == "stage"
                    batches = overlap(blueprint, feed, limit=1, items=False, place=place.label, staged=staged)
                async with aclosing(batches):
                    async for batch in batches:
                        yield batch
                return
        async with aclosing(batches_from_thread(lambda: self.batches(feed, told))) as found:
            async for batch in found:
                yield batch
