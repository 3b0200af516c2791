"""How the items of a map go through a pipeline with batch nodes: whole, stage by stage, or in a stream."""

from __future__ import annotations

from collections.abc import Iterable

from hypernodes._errors import IncompatibleEngineError, did_you_mean, quoted
from hypernodes._plan import MapStep, Plan, Step, leaves

__all__ = ["STRATEGIES", "check_strategy", "chosen_strategy", "stands_apart"]

STRATEGIES = ("item", "stage", "stream")
"""`"item"`: a chunk of items goes through the whole pipeline in one worker, and batches form within the chunk.
`"stage"`: nothing of a later part begins before the earlier part is done for all items under way.
`"stream"`: the parts overlap; a batch goes out when it is full, or when nothing can fill it any more."""


def check_strategy(owner: str, strategy: object, modes: tuple[str, ...], engine: str) -> None:
    """Raise `IncompatibleEngineError` (a ValueError) for a strategy that does not exist, or that nobody asks for.

    `modes` are those that the engine takes: one that takes none schedules nodes and items itself.
    """
    if strategy is None:
        return
    if strategy not in STRATEGIES:
        raise IncompatibleEngineError(
            f"{owner}: map_strategy={strategy!r}{did_you_mean(strategy, STRATEGIES)}; "
            f"the strategies are {quoted(STRATEGIES)}"
        )
    if not modes:
        raise IncompatibleEngineError(
            f"{owner}: map_strategy={strategy!r} cannot be combined with engine '{engine}', which schedules nodes and "
            "items itself; leave map_strategy out"
        )


def stands_apart(step: Step) -> bool:
    """Whether a step is a part of the pipeline by itself: its calls are batches, or are counted."""
    return step.lists is not None or bool(step.gates)


def chosen_strategy(steps: Iterable[Step | MapStep], named: str | None, *, shares_memory: bool, overlaps: bool) -> str:
    """The strategy of these steps in one place: the one that is named, or what suits them.

    Without batch nodes items go through whole. Where values stay in this process a stream costs nothing and lets the
    parts overlap, and where nothing overlaps one part after another has the largest batches. Where values would have to
    travel between the parts, items go through whole, unless calls are counted: workers would stand and wait.
    """
    if named is not None:
        return named
    batched = [step for step in _leaves(steps) if step.lists is not None]
    if not batched:
        return "item"
    if not shares_memory:
        return "stream" if any(step.gates or step.needs for step in batched) else "item"
    return "stream" if overlaps else "stage"


def _leaves(steps: Iterable[Step | MapStep]) -> Iterable[Step]:
    return leaves(Plan((), (), (), tuple(steps), ()))
