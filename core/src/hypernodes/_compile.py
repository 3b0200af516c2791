"""Compiling: a pipeline and a choice of inputs and outputs become a plan of the steps that are needed.

Nothing here recurses over nodes or nesting, except into plans of mapped pipelines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from hypernodes._clock import CLOCK, Clock
from hypernodes._graph import Graph, missing_inputs
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._plan import HIDDEN, SPAN, MapStep, Plan, Step
from hypernodes._settings import INHERIT, Bounds, Setting

__all__ = ["Planned", "compile_plan"]


class Planned(Bounds, Protocol):
    """What compiling needs to know of a pipeline."""

    @property
    def name(self) -> str: ...
    @property
    def graph(self) -> Graph: ...
    @property
    def backend(self) -> Any: ...
    @property
    def cache(self) -> Any: ...
    @property
    def callbacks(self) -> tuple[Any, ...] | None: ...


class _Frame:
    """One pipeline while its nodes are being laid out."""

    __slots__ = ("children", "names", "nest", "parent", "path", "setting")

    def __init__(
        self,
        pipeline: Planned,
        path: tuple[str, ...],
        setting: int,
        names: dict[str, int],
        parent: _Frame | None = None,
        nest: NestedPipeline | None = None,
    ) -> None:
        self.children: Iterator[GraphNode] = iter(pipeline.graph.order)
        self.path, self.setting, self.names = path, setting, names
        self.parent, self.nest = parent, nest


class _Timed:
    """What is known of each clock while steps are gone through from the last: by whom, and of what, it is read."""

    __slots__ = ("_first", "_read")

    def __init__(self) -> None:
        self._first: dict[int, tuple[tuple[str, ...], int]] = {}
        self._read: dict[int, set[int]] = {}

    def note(self, step: Step | MapStep) -> None:
        clock = step.clock
        if clock is None:
            return
        self._first[clock] = (step.path, step.first_place if isinstance(step, MapStep) else step.place)
        read = self._read.setdefault(clock, set())
        read.update(step.sources)
        if isinstance(step, Step):
            read.update(step.after)

    def placed(self, clock: Step) -> Step:
        """The step of a clock where the first step under it runs, after what feeds the steps under it."""
        (slot,) = clock.writes
        path, place = self._first[slot]
        return clock._replace(path=path, place=place, after=tuple(at for at in clock.after if at in self._read[slot]))


class _Mapped:
    """A mapped nested pipeline before its inner plan is known: which outputs are needed is found out first."""

    __slots__ = ("nest", "path", "reads", "setting", "slots")

    def __init__(
        self,
        nest: NestedPipeline,
        path: tuple[str, ...],
        setting: int,
        reads: dict[str, int],
        slots: dict[str, int],
    ) -> None:
        self.nest, self.path, self.setting, self.reads, self.slots = nest, path, setting, reads, slots


def compile_plan(
    pipeline: Planned,
    given: Iterable[str],
    wanted: Iterable[str],
    default_backend: Any,
    *,
    watched: bool = False,
) -> Plan:
    """The plan that makes `wanted` from `given`, with only the steps that are needed upstream.

    A given name that a node makes overrides it: its producer runs only if something else needs it. The steps that
    callbacks hear of read `SPAN`, with `watched` all steps do; it is then the last of the plan's inputs.
    Raises `MissingInputError` for all needed inputs that are not given, at once.
    """
    own = pipeline.callbacks
    root = Setting(
        place=0,
        place_origin="" if pipeline.backend is None else pipeline.name,
        cache=None if pipeline.cache is INHERIT else pipeline.cache,
        cache_origin="" if pipeline.cache is INHERIT else pipeline.name,
        callbacks=own or (),
        callbacks_origin="" if own is None else pipeline.name,
        heard=watched or bool(own),
    ).bounded_by(pipeline, pipeline.name)
    places = [default_backend if pipeline.backend is None else pipeline.backend]
    compiler = _Compiler(places, root)
    names = (*given, SPAN) if compiler.hears(pipeline) else tuple(given)
    plan = compiler.plan(pipeline, (pipeline.name,), 0, names, tuple(wanted), root.timeout is not None)
    return plan._replace(places=tuple(places), settings=tuple(compiler.settings), levels=tuple(compiler.levels.items()))


class _Compiler:
    """Lays out one plan after another over one table of places and one of settings."""

    def __init__(self, places: list[Any], root: Setting) -> None:
        self.places, self.settings = places, [root]
        self.levels: dict[tuple[str, ...], int] = {}

    def hears(self, pipeline: Planned) -> bool:
        """Whether any callback hears of this pipeline or one nested in it."""
        if self.settings[0].heard:
            return True
        todo, seen = [pipeline], {id(pipeline)}
        while todo:
            for node in todo.pop().graph.nodes:
                if isinstance(node, NestedPipeline) and id(node.pipeline) not in seen:
                    if node.pipeline.callbacks:
                        return True
                    seen.add(id(node.pipeline))
                    todo.append(node.pipeline)
        return False

    def _setting(self, nest: NestedPipeline, around: int) -> int:
        """The setting of a nested pipeline: what it names, and the rest from the pipeline around it.

        For its place, inherited means stay here, explicit means go there. Equal backends are one place.
        """
        pipeline, found = nest.pipeline, self.settings[around]
        if pipeline.backend is not None:
            found = found._replace(place=self._place(pipeline.backend), place_origin=nest.name)
        if pipeline.cache is not INHERIT:
            found = found._replace(cache=pipeline.cache, cache_origin=nest.name)
        if pipeline.callbacks is not None:
            heard = found.heard or bool(pipeline.callbacks)
            found = found._replace(callbacks=pipeline.callbacks, callbacks_origin=nest.name, heard=heard)
        found = found.bounded_by(pipeline, nest.name)
        if found is self.settings[around]:
            return around
        self.settings.append(found)
        return len(self.settings) - 1

    def _place(self, backend: Any) -> int:
        for at, known in enumerate(self.places):
            if type(known) is type(backend) and known == backend:
                return at
        self.places.append(backend)
        return len(self.places) - 1

    def plan(
        self,
        pipeline: Planned,
        path: tuple[str, ...],
        setting: int,
        given: tuple[str, ...],
        wanted: tuple[str, ...],
        timed: bool,
    ) -> Plan:
        """The plan of one pipeline with those nested in it; `timed` says that a clock of its own starts with it."""
        slots = len(given)
        names = {name: slot for slot, name in enumerate(given)}
        root = frame = _Frame(pipeline, path, setting, names)
        self.levels[path] = setting
        laid: list[Step | _Mapped] = []
        if timed:
            slots = self._start_clock(frame, laid, slots)
        while True:
            node = next(frame.children, None)
            if node is None:
                if frame.parent is None:
                    break
                self._close(frame)
                frame = frame.parent
            elif isinstance(node, NestedPipeline):
                inner_path = (*frame.path, node.name)
                reads = {inner: frame.names[outer] for outer, inner in node.inner_names.items() if outer in frame.names}
                # In this order: whoever watches finds the span in the last place.
                reads |= {name: frame.names[name] for name in (CLOCK, SPAN) if name in frame.names}
                if node.map_over:
                    made = {}
                    for inner in node.outer_names:
                        made[inner], slots = slots, slots + 1
                    laid.append(_Mapped(node, inner_path, frame.setting, reads, made))
                    self._bind(frame, {node.outer_names[inner]: slot for inner, slot in made.items()})
                else:
                    inner_setting = self._setting(node, frame.setting)
                    self.levels[inner_path] = inner_setting
                    timed = self._starts_clock(inner_setting, frame.setting)
                    frame = _Frame(node.pipeline, inner_path, inner_setting, reads, frame, node)
                    if timed:
                        slots = self._start_clock(frame, laid, slots)
            else:
                assert isinstance(node, Node)
                known = frame.names
                found = tuple([(p.name, known[p.name]) for p in node.parameters if p.name in known])
                own = self.settings[frame.setting]
                if CLOCK in known:
                    found += ((CLOCK, known[CLOCK]),)
                if own.heard and SPAN in known:
                    found += ((SPAN, known[SPAN]),)
                writes = tuple(range(slots, slots + len(node.outputs)))
                slots += len(writes)
                retry = own.retry_of(node)
                path_here = (*frame.path, node.name)
                laid.append(Step(node, path_here, found, writes, own.place, frame.setting, retry, own.keep_inputs))
                self._bind(frame, dict(zip(node.outputs, writes, strict=True)))
        outputs = tuple((name, root.names[name]) for name in wanted)
        steps = self._needed(laid, {slot for _, slot in outputs}, path[0], given)
        return Plan(path, tuple((name, slot) for slot, name in enumerate(given)), outputs, steps, ())

    def _starts_clock(self, setting: int, around: int) -> bool:
        return self.settings[setting].timeout != self.settings[around].timeout

    def _start_clock(self, frame: _Frame, laid: list[Step | _Mapped], slot: int) -> int:
        """Begin a pipeline with its clock; the number of the next free slot."""
        names, own = frame.names, self.settings[frame.setting]
        assert own.timeout is not None
        reads = ((CLOCK, names[CLOCK]),) if CLOCK in names else ()
        clock = Clock(own.timeout_origin, own.timeout, bool(reads))
        fed = tuple(names[name] for name in names if name not in HIDDEN) if frame.parent is not None else ()
        laid.append(Step(clock, frame.path, reads, (slot,), own.place, frame.setting, after=fed))
        names[CLOCK] = slot
        return slot + 1

    @staticmethod
    def _bind(frame: _Frame, made: dict[str, int]) -> None:
        """Give names to made values, except where a given input overrides them."""
        names = frame.names
        for name, slot in made.items():
            names.setdefault(name, slot)

    def _close(self, frame: _Frame) -> None:
        nest, parent = frame.nest, frame.parent
        assert nest is not None and parent is not None
        self._bind(parent, {outer: frame.names[inner] for inner, outer in nest.outer_names.items()})

    def _needed(
        self, laid: list[Step | _Mapped], needed: set[int], pipeline: str, given: tuple[str, ...]
    ) -> tuple[Step | MapStep, ...]:
        kept: list[Step | MapStep] = []
        missing: list[tuple[tuple[str, ...], str]] = []
        timed = _Timed()
        for step in reversed(laid):
            if isinstance(step, Step):
                if needed.isdisjoint(step.writes):
                    continue
                if step.is_clock:
                    step = timed.placed(step)
                elif len(step.inputs) < len(step.node.parameters):
                    have = {name for name, _ in step.reads}
                    missing += [(step.path, p.name) for p in step.node.parameters if p.required and p.name not in have]
                needed.update(slot for _, slot in step.reads)
                kept.append(step)
                timed.note(step)
            else:
                outputs = tuple(inner for inner, slot in step.slots.items() if slot in needed)
                if not outputs:
                    continue
                nest = step.nest
                absent = [outer for outer in nest.map_over if nest.inner_names[outer] not in step.reads]
                if absent:
                    missing += [(step.path, outer) for outer in absent]
                    continue
                mapped_step = self._map_step(step, outputs)
                needed.update(mapped_step.sources)
                kept.append(mapped_step)
                timed.note(mapped_step)
        if missing:
            raise missing_inputs(pipeline, missing[::-1], given)
        return tuple(kept[::-1])

    def _map_step(self, step: _Mapped, outputs: tuple[str, ...]) -> MapStep:
        nest = step.nest
        setting = self._setting(nest, step.setting)
        timed = self._starts_clock(setting, step.setting)
        inner = self.plan(nest.pipeline, step.path, setting, tuple(step.reads), outputs, timed)
        over = [nest.inner_names[outer] for outer in nest.map_over]
        used = {slot for inner_step in inner.steps for slot in inner_step.sources}
        used.update(slot for _, slot in inner.outputs)
        # What only pruned nodes would read is not needed from outside either; mapped lists always set the rows.
        inputs = tuple((name, slot) for name, slot in inner.inputs if slot in used or name in over)
        position = {name: at for at, (name, _) in enumerate(inputs)}
        return MapStep(
            path=step.path,
            inner=inner._replace(inputs=inputs),
            sources=tuple(step.reads[name] for name, _ in inputs),
            mapped=tuple(position[name] for name in over),
            names=nest.map_over,
            mode=nest.map_mode,
            writes=tuple(step.slots[name] for name in outputs),
            place=self.settings[step.setting].place,
            setting=setting,
        )
