"""One row on its way through caches: what is known of it, what is kept already, and what is left to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from time import time
from typing import TYPE_CHECKING, Any

from hypernodes._blueprint import Blueprint
from hypernodes._cache import found_in, keep_in
from hypernodes._plan import MapStep, Step
from hypernodes._record import Record, deliver
from hypernodes._task import LEFT

if TYPE_CHECKING:
    from hypernodes._memo import Memo

Key = bytes | None

__all__ = ["Recall"]


class Recall:
    """One row on its way: what is known of it, and which steps are next."""

    __slots__ = ("_later", "_missed", "keyed", "keys", "memo", "values")

    def __init__(self, memo: Memo, values: dict[int, Any], keys: dict[int, Key]) -> None:
        self.memo, self.values, self.keys = memo, values, keys
        self.keyed: dict[int, Key] = {}
        self._missed: set[int] = set()
        self._later: int | None = None

    def next(self) -> tuple[Blueprint, list[Any]] | None:
        """What to run now, and the values it takes; None when every wanted output is there."""
        self._derive()
        run, first_unknown = self._needed()
        self._later = first_unknown
        if not run:
            return None
        # What comes after a step that cannot be looked up yet waits with it, so that the earliest failure stays first.
        steps = tuple(sorted(at for at in run if first_unknown is None or at < first_unknown))
        variant = self.memo.variant(steps)
        return variant.blueprint, [self.values[slot] for slot in variant.reads]

    def later_gathers(self) -> Iterable[int]:
        """The batch nodes that the row may have to come to after what is to run now."""
        return () if self._later is None else chain.from_iterable(self.memo.gathers[self._later :])

    def outputs(self) -> tuple[Any, ...]:
        """The wanted outputs."""
        return tuple([self.values[slot] for slot in self.memo.wanted])

    def learn(self, made: Mapping[int, Any]) -> None:
        """Take in what was made, and keep what is to be kept."""
        memo, values = self.memo, self.values
        left = [slot for slot, value in made.items() if value is LEFT]
        if left:
            for slot in left:
                memo.leave(slot)
            made = {slot: value for slot, value in made.items() if value is not LEFT}
        values.update(made)
        for at in dict.fromkeys([memo.maker[slot] for slot in made]):
            key = self.keyed.get(at)
            cache = memo.caches[at]
            writes = memo.steps[at].writes
            if key is not None and cache is not None and all(slot in made for slot in writes):
                keep_in(cache, key.hex(), tuple([made[slot] for slot in writes]), memo.note(at, self.keys))

    def inner_keys(self, step: MapStep) -> dict[int, Key]:
        """The keys of those inputs of a mapped pipeline that all its rows share."""
        shared = enumerate(zip(step.inner.inputs, step.sources, strict=True))
        return {
            slot: self.keys[source]
            for position, ((_, slot), source) in shared
            if position not in step.mapped and self.keys.get(source) is not None
        }

    # -- keys

    def _derive(self) -> None:
        """Find the keys of all steps, as far as they are known by now."""
        memo, keys, values, keyed = self.memo, self.keys, self.values, self.keyed
        for at in memo.ordered:
            if at in keyed:
                continue
            for _, slot in memo.fields[at]:
                if slot not in keys:
                    if slot in values:
                        keys[slot] = memo.digest(slot, values[slot])
                    elif slot in memo.bound:
                        keys[slot] = None
            if memo.caches[at] is None:
                memo.derive(keys, (at,))
                continue
            try:
                found = memo.step_key(at, keys)
            except KeyError:
                continue
            keyed[at] = found
            if found is not None:
                for position, slot in enumerate(memo.steps[at].writes):
                    keys.setdefault(slot, found + b"%d" % position)

    # -- looking up

    def _needed(self) -> tuple[set[int], int | None]:
        """The steps that have to run, walking back from the wanted outputs, and the first that cannot be told yet."""
        memo, values = self.memo, self.values
        run: set[int] = set()
        unknown: set[int] = set()
        todo = [slot for slot in memo.wanted if slot not in values]
        while todo:
            slot = todo.pop()
            if slot in values:
                continue
            at = memo.maker[slot]
            if at in run or at in unknown:
                continue
            step = memo.steps[at]
            if memo.caches[at] is not None and at not in self._missed:
                if at not in self.keyed:
                    unknown.add(at)
                    todo += self._unknown_sources(at)
                    continue
                if self._found(at, step):
                    continue
            run.add(at)
            todo += [source for source in step.sources if source not in values]
        return run, min(unknown, default=None)

    def _found(self, at: int, step: Step | MapStep) -> bool:
        key, cache = self.keyed[at], self.memo.caches[at]
        assert cache is not None
        found = None if key is None else found_in(cache, key.hex())
        if found is None or not isinstance(found.value, tuple) or len(found.value) != len(step.writes):
            self._missed.add(at)
            return False
        for slot, value in zip(step.writes, found.value, strict=True):
            self.values.setdefault(slot, value)
        if isinstance(step, Step) and step.span is not None:
            deliver([Record(self.values[step.span], step.path, time(), 0.0, "cached", "", "")])
        return True

    def _unknown_sources(self, at: int) -> list[int]:
        """The values without a key that the key of this step hangs on."""
        memo = self.memo
        found: list[int] = []
        seen: set[int] = set()
        todo = [slot for _, slot in memo.fields[at]]
        while todo:
            slot = todo.pop()
            if slot in seen or slot in self.keys or slot in self.values:
                continue
            seen.add(slot)
            maker = memo.maker[slot]
            if memo.caches[maker] is None or maker in self.keyed:
                found.append(slot)
            else:
                todo += [source for _, source in memo.fields[maker]]
        return found
