"""Why a cache would not be used: what of a result's key differs from those of the results that are kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypernodes._cache import Cache, found_in
from hypernodes._errors import quoted
from hypernodes._hub import Route
from hypernodes._memo import Memo
from hypernodes._plan import MapStep, Step
from hypernodes._recall import Recall
from hypernodes._rows import map_rows

__all__ = ["Lookup", "Lookups", "look_up"]

NOTES_READ = 1000
"""How many of a node's newest entries are compared."""

MOST_SHOWN = 40


@dataclass(frozen=True)
class Lookup:
    """What a cache has for one node of a call.

    `state` is `"hit"`, `"miss"`, `"unkeyable"` (the result has no sound key and is never kept) or `"unknown"` (its key
    hangs on a result that is not kept, so it is known only when that was made). `differs` names the components of the
    key that differ from the nearest entry of that node: `helper 'normalise'`, `input 'text'`.
    """

    path: tuple[str, ...]
    items: tuple[int | None, ...]
    state: str
    reason: str
    differs: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = " > ".join(
            name if index is None else f"{name} (item {index})"
            for name, index in zip(self.path, self.items, strict=True)
        )
        return f"{where}: {self.state}" + (f", {self.reason}" if self.reason else "")


class Lookups(tuple[Lookup, ...]):
    """The look-ups of a call, in the order of its nodes; `str()` of it is a list to read."""

    __slots__ = ()

    @property
    def misses(self) -> tuple[Lookup, ...]:
        """Those that are no hits."""
        return tuple(one for one in self if one.state != "hit")

    def __str__(self) -> str:
        lines = [str(one) for one in self[:MOST_SHOWN]]
        if len(self) > MOST_SHOWN:
            lines.append(f"... and {len(self) - MOST_SHOWN} more")
        return "\n".join(lines) or "no result of this call is cached: name a cache, Pipeline(cache='.cache')"


def look_up(route: Route, values: tuple[Any, ...]) -> Lookups:
    """What the caches have for one row of a call. Nothing runs, and nothing is kept."""
    root = route.blueprint.memo
    with route.recalling():
        return Lookups(_row(root, root.row(values), {}) if root is not None else _maps(route, values))


def _maps(route: Route, values: tuple[Any, ...]) -> Iterator[Lookup]:
    """Mapped pipelines with a cache in a plan without one, as far as their lists are among the inputs."""
    given = dict(zip((slot for _, slot in route.plan.inputs), values, strict=True))
    for step in route.plan.steps:
        if isinstance(step, MapStep) and (memo := route.memo_of(step)) is not None:
            yield from _inner(memo, step, given, None, {})


def _row(memo: Memo, recall: Recall, items: dict[int, int]) -> Iterator[Lookup]:
    recall.next()
    for at, step in enumerate(memo.steps):
        if isinstance(step, MapStep):
            inner = memo.inner.get(at)
            if inner is not None:
                yield from _inner(inner, step, recall.values, recall, items)
        elif memo.caches[at] is not None:
            state, reason, differs = _state(memo, recall, at, step)
            own = tuple(items.get(depth) for depth in range(len(step.path)))
            yield Lookup(step.path, own, state, reason, differs)


def _inner(
    memo: Memo, step: MapStep, values: Mapping[int, Any], around: Recall | None, items: dict[int, int]
) -> Iterator[Lookup]:
    if any(source not in values for source in step.sources):
        own = tuple(items.get(depth) for depth in range(len(step.path)))
        yield Lookup(step.path, own, "unknown", "the lists it is mapped over are not made yet")
        return
    keys = {} if around is None else around.inner_keys(step)
    for index, row in enumerate(map_rows(step, [values[source] for source in step.sources])):
        yield from _row(memo, memo.row(row, keys), {**items, len(step.path) - 1: index})


def _state(memo: Memo, recall: Recall, at: int, step: Step) -> tuple[str, str, tuple[str, ...]]:
    cache = memo.caches[at]
    assert cache is not None
    if at not in recall.keyed:
        reads = {slot: name for name, slot in step.inputs if slot not in recall.keys}
        return "unknown", f"it reads {quoted(reads.values())}, which is known only when it was made", ()
    key = recall.keyed[at]
    if key is None:
        return "unkeyable", "its code or something it reads has no content that could be told", ()
    if found_in(cache, key.hex()) is not None:
        return "hit", "", ()
    return "miss", *_difference(cache, step, memo.note(at, recall.keys))


def _difference(cache: Cache, step: Step, wanted: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What differs from the nearest of the node's newest entries, the newest where several are as near."""
    own = _components(wanted["code"], wanted["inputs"])
    nearest: tuple[str, ...] | None = None
    for note in itertools.islice(cache.notes(step.node.name), NOTES_READ):
        differs = tuple(_differing(own, _components(note.code, note.inputs)))
        if nearest is None or len(differs) < len(nearest):
            nearest = differs
    if nearest is None:
        return f"no result of node '{step.node.name}' is kept yet", ()
    if not nearest:
        return "its entry is known but cannot be read any more", ()
    return f"new in its key: {', '.join(nearest)}", nearest


def _components(code: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**code, **{f"input '{name}'": key for name, key in inputs.items()}}


def _differing(own: Mapping[str, Any], kept: Mapping[str, Any]) -> Iterator[str]:
    for name in {**own, **kept}:
        if own.get(name) != kept.get(name):
            yield name if name in own and name in kept else f"{name} ({'added' if name in own else 'gone'})"
