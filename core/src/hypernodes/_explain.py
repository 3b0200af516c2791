"""A call explained before it runs: where every node would run, who chose that, what would cross and what could not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypernodes._backend import Backend, engine_of, engine_spec_of, label
from hypernodes._gate import limits_of
from hypernodes._local import LocalBackend, strategy_of
from hypernodes._plan import HIDDEN, MapStep, Plan, Step, leaves

__all__ = ["Explanation", "Placement", "explain"]

_COLUMNS = (
    "node",
    "runs on",
    "chosen by",
    "reads",
    "makes",
    "timeout",
    "retries",
    "limits",
    "demands",
    "cache",
    "callbacks",
    "resources",
)
_ALWAYS = 5
"""Columns that are shown even where nothing stands in them."""


@dataclass(frozen=True)
class Placement:
    """One node of the plan: its path, its backend with engine and modes, and which pipeline chose the backend.

    `chosen_by` is `""` where no pipeline named a backend. `mapped` counts the maps that the node is under. `timeout` is
    the shortest timeout, in seconds, of the pipelines around it, with the pipeline that chose it; `node_timeout` the
    node's own. `retries` is how often it is tried again, by the choice of `retries_chosen_by`: a pipeline, or itself.
    `limits` are those it counts against, each with its rule and who declares it, `demand` is what it uses of the place.
    `cache` is what keeps its results, `""` where nothing does, and `callbacks` who hears of it; each with the pipeline
    that chose it. `resources` are what it is given by name, each with the pipeline that provides it.
    """

    path: tuple[str, ...]
    place: str
    backend: Backend
    engine: str
    chosen_by: str
    node_execution: str
    map_execution: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    mapped: int
    unsendable: str = ""
    cache: str = ""
    cache_chosen_by: str = ""
    callbacks: tuple[str, ...] = ()
    callbacks_chosen_by: str = ""
    timeout: float | None = None
    timeout_chosen_by: str = ""
    node_timeout: float | None = None
    retries: int = 0
    retries_chosen_by: str = ""
    resources: tuple[tuple[str, str], ...] = ()
    limits: tuple[str, ...] = ()
    demand: str = ""


@dataclass(frozen=True)
class Explanation:
    """What a call would do. `str()` of it is a table to read; the rest is data.

    `crossings` counts the values that would leave the place they are in, for one item; all local backends are one
    place to them. `workers` says for each place how much would run at once, `sketches` how its engine would lay the
    work out, where it tells.
    """

    pipeline: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Placement, ...]
    crossings: int
    workers: dict[str, str]
    sketches: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> tuple[str, ...]:
        """The distinct places, in the order in which they are first needed."""
        return tuple(dict.fromkeys(node.place for node in self.nodes))

    def __str__(self) -> str:
        rows = [_COLUMNS, *(_row(node) for node in self.nodes)]
        # Columns that would say nothing are left out.
        shown = [at for at in range(len(_COLUMNS)) if at < _ALWAYS or any(row[at] for row in rows[1:])]
        rows = [tuple([row[at] for at in shown]) for row in rows]
        widths = [max(len(row[at]) for row in rows) for at in range(len(shown))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        count = len(self.nodes)
        crossed = (
            f"{self.crossings} value{'' if self.crossings == 1 else 's'} cross{'es' if self.crossings == 1 else ''}"
        )
        head = [
            f"pipeline '{self.pipeline}': {', '.join(self.inputs) or 'no inputs'} -> {', '.join(self.outputs)}",
            f"{_several(count, 'node')} in {_several(len(self.places), 'place')}; {crossed} a border for each item",
            "",
        ]
        tail = [f"{place}: {bound}" for place, bound in self.workers.items()]
        faults = [f"cannot be sent: {node.unsendable}" for node in self.nodes if node.unsendable]
        sketches = [f"\n{place} lays it out as\n{text.rstrip()}" for place, text in self.sketches.items()]
        return "\n".join([*head, *lines, "", *tail, *faults, *sketches])


def explain(plan: Plan) -> Explanation:
    """Explain a compiled plan. Nodes that would have to be pickled are pickled, to see whether they can be."""
    nodes = tuple(_placed(plan))
    return Explanation(
        pipeline=plan.path[0],
        inputs=tuple(name for name, _ in plan.inputs if name not in HIDDEN),
        outputs=tuple(name for name, _ in plan.outputs),
        nodes=nodes,
        crossings=_crossings(plan, plan.places, _HOME),
        workers={label(backend): _workers(backend, _steps_at(plan, at)) for at, backend in _used(plan)},
        sketches={label(backend): text for at, backend in _used(plan) if (text := _sketch(plan, at, backend))},
    )


def _used(plan: Plan) -> Iterator[tuple[int, Any]]:
    """The places that nodes run in, in the order in which they are first needed."""
    for at in dict.fromkeys(step.place for step in leaves(plan)):
        yield at, plan.places[at]


def _sketch(plan: Plan, place: int, backend: Any) -> str:
    """What the place's engine tells of the steps that it would be given."""
    from hypernodes._task import Stage

    steps = [step for step in plan.steps if (step.first_place if isinstance(step, MapStep) else step.place) == place]
    return engine_of(backend).sketch(Stage(plan.path[0], steps, [], [])) if steps else ""


def _steps_at(plan: Plan, place: int) -> list[Step]:
    return [step for step in leaves(plan) if step.place == place]


def _placed(plan: Plan) -> Iterator[Placement]:
    todo: list[tuple[Step | MapStep, int]] = [(step, 0) for step in reversed(plan.steps)]
    while todo:
        step, mapped = todo.pop()
        if isinstance(step, MapStep):
            todo += [(inner, mapped + 1) for inner in reversed(step.inner.steps)]
            continue
        if step.is_clock:
            continue
        backend, setting = plan.places[step.place], plan.settings[step.setting]
        kept = setting.cache is not None and step.node.cache
        yield Placement(
            path=step.path,
            place=label(backend),
            backend=backend,
            engine=engine_spec_of(backend).name,
            chosen_by=setting.place_origin,
            node_execution=backend.node_execution,
            map_execution=backend.map_execution,
            inputs=tuple(name for name, _ in step.inputs),
            outputs=step.node.outputs,
            mapped=mapped,
            unsendable=_unsendable(step, backend),
            timeout=setting.timeout,
            timeout_chosen_by=setting.timeout_origin,
            node_timeout=step.node.timeout,
            retries=step.retry.times if step.retry else 0,
            retries_chosen_by=setting.retries_origin if step.node.retries is None else step.node.name,
            limits=tuple(
                f"{quota.name}: {quota.rule} ({quota.origin})"
                for quota in limits_of(step.node, step.path, setting, backend)
            ),
            demand=str(step.node.resources) if any(step.node.resources or ()) else "",
            cache=_named(setting.cache) if kept else "",
            cache_chosen_by=setting.cache_origin if kept else "",
            callbacks=tuple(_named(callback) for callback in setting.callbacks),
            callbacks_chosen_by=setting.callbacks_origin if setting.callbacks else "",
            resources=tuple((name, need.provider) for name, need in step.needs),
        )


def _named(thing: Any) -> str:
    """A cache by its address or its repr, a function by its name."""
    name = getattr(thing, "__qualname__", None)
    return name if isinstance(name, str) else str(thing) if isinstance(thing, str) else repr(thing)


_HOME = -1


def _crossings(plan: Plan, places: tuple[Any, ...], home: int) -> int:
    """Values that enter a step from elsewhere, and wanted ones that must come home; counted once for each place."""
    made_at = {slot: home for name, slot in plan.inputs if name not in HIDDEN}
    crossed: set[tuple[int, int]] = set()
    inner = 0
    for step in plan.steps:
        at = step.inner.steps[0].place if isinstance(step, MapStep) and step.inner.steps else step.place
        place = _HOME if isinstance(places[at], LocalBackend) else at
        if isinstance(step, Step) and step.is_clock:
            continue
        crossed.update((slot, place) for slot in step.sources if made_at.get(slot, place) != place)
        made_at.update(dict.fromkeys(step.writes, place))
        if isinstance(step, MapStep) and step.crosses:
            inner += _crossings(step.inner, places, place)
    crossed.update((slot, home) for _, slot in plan.outputs if made_at[slot] != home)
    return len(crossed) + inner


def _workers(backend: Any, steps: Sequence[Step]) -> str:
    spec = engine_spec_of(backend)
    workers = engine_of(backend).workers(backend.max_workers)
    bound = f"at most {workers} at once" if workers else "as many at once as it sees fit"
    modes = f"nodes {backend.node_execution or 'sequential'}, items {backend.map_execution or 'sequential'}"
    named = getattr(backend, "map_strategy", None)
    if named is not None or any(step.lists is not None for step in steps):
        modes += f", map strategy {strategy_of(backend, steps)} ({'chosen by core' if named is None else 'named'})"
    about = backend.about()
    return "; ".join([spec.summary or spec.name, modes, bound, *([about] if about else [])])


def _unsendable(step: Step, backend: Backend) -> str:
    if isinstance(backend, LocalBackend) and engine_of(backend).shares_memory:
        return ""
    from hypernodes._errors import UnsendableError
    from hypernodes._task import Stage
    from hypernodes._wire import pack_stage

    try:
        pack_stage(Stage(step.path[0], [step], [], []))
    except UnsendableError as error:
        return str(error)
    return ""


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _row(node: Placement) -> tuple[str, ...]:
    name = " > ".join(node.path[1:]) + (
        " (mapped)" if node.mapped == 1 else f" (mapped {node.mapped}x)" if node.mapped else ""
    )
    return (
        name,
        node.place,
        node.chosen_by or "default",
        ", ".join(node.inputs),
        ", ".join(node.outputs),
        _bounds(node),
        f"{node.retries} ({node.retries_chosen_by})" if node.retries else "",
        "; ".join(node.limits),
        node.demand,
        f"{node.cache} ({node.cache_chosen_by})" if node.cache else "",
        f"{', '.join(node.callbacks)} ({node.callbacks_chosen_by})" if node.callbacks else "",
        ", ".join(f"{name} ({provider})" for name, provider in node.resources),
    )


def _bounds(node: Placement) -> str:
    own = [] if node.node_timeout is None else [f"{node.node_timeout:g} s"]
    around = [] if node.timeout is None else [f"{node.timeout:g} s ({node.timeout_chosen_by})"]
    return ", ".join(own + around)
