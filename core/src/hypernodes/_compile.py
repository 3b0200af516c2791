"""Compiling: a pipeline and a choice of inputs and outputs become a plan of the steps that are needed.

Nothing here recurses over nodes or nesting, except into plans of mapped pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from hypernodes._clock import CLOCK, Clock
from hypernodes._errors import GraphError, MissingInputError, quoted
from hypernodes._gate import gates_of
from hypernodes._graph import Graph, missing_inputs
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._plan import HIDDEN, SCOPE, SPAN, MapStep, Plan, Step
from hypernodes._resource import Need, Resource
from hypernodes._settings import INHERIT, Bounds, Setting

__all__ = ["Planned", "any_node", "compile_plan", "uses_scope"]


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


class Barred(NamedTuple):
    """A resource that nobody may ask for: what the user is told if somebody does."""

    why: str
    kind: type[GraphError] = GraphError


Named = int | Need | Barred
"""What a name stands for: the slot of a value, or a resource."""


class _Frame:
    """One pipeline while its nodes are being laid out."""

    __slots__ = ("children", "names", "nest", "parent", "path", "provided", "setting")

    def __init__(
        self,
        pipeline: Planned,
        path: tuple[str, ...],
        setting: int,
        names: dict[str, Named],
        parent: _Frame | None = None,
        nest: NestedPipeline | None = None,
    ) -> None:
        self.children: Iterator[GraphNode] = iter(pipeline.graph.order)
        self.path, self.setting, self.names = path, setting, names
        self.parent, self.nest = parent, nest
        # Names that stand for resources, or for what is given instead of one: a batch has one of each.
        self.provided = {node.name for node in pipeline.graph.nodes if isinstance(node, Resource)}
        if parent is not None and nest is not None:
            self.provided |= _provided(nest, parent)


def _provided(nest: NestedPipeline, frame: _Frame) -> set[str]:
    """What a nested pipeline calls the resources that are around it."""
    return {inner for outer, inner in nest.inner_names.items() if outer in frame.provided}


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

    __slots__ = ("needs", "nest", "path", "provided", "reads", "setting", "slots")

    def __init__(
        self,
        nest: NestedPipeline,
        path: tuple[str, ...],
        setting: int,
        reads: dict[str, Named],
        slots: dict[str, int],
        provided: set[str],
    ) -> None:
        self.provided = provided
        self.nest, self.path, self.setting, self.slots = nest, path, setting, slots
        self.reads = {name: at for name, at in reads.items() if isinstance(at, int)}
        self.needs = {name: need for name, need in reads.items() if not isinstance(need, int)}


def compile_plan(
    pipeline: Planned,
    given: Iterable[str],
    wanted: Iterable[str],
    default_backend: Any,
    *,
    watched: bool = False,
    shared: Container[str] = (),
) -> Plan:
    """The plan that makes `wanted` from `given`, with only the steps that are needed upstream.

    A given name that a node makes overrides it: its producer runs only if something else needs it. The steps that
    callbacks hear of read `SPAN`, with `watched` all steps do; it is then the last of the plan's inputs, after `SCOPE`
    where a step needs or counts something. `shared` are those given names whose value is the same for all items.
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
    ).bounded_by(pipeline, (pipeline.name,))
    places = [default_backend if pipeline.backend is None else pipeline.backend]
    compiler = _Compiler(places, root)
    names = tuple(given)
    if any_node(pipeline, uses_scope):
        names += (SCOPE,)
    if compiler.hears(pipeline):
        names += (SPAN,)
    alike = {name for name in names if name in shared}
    plan = compiler.plan(pipeline, (pipeline.name,), 0, names, tuple(wanted), root.timeout is not None, alike)
    return plan._replace(places=tuple(places), settings=tuple(compiler.settings), levels=tuple(compiler.levels.items()))


def any_node(pipeline: Planned, is_one: Callable[[GraphNode], object]) -> bool:
    """Whether any node of this pipeline, or of one nested in it, is one of those."""
    todo, seen = [pipeline], {id(pipeline)}
    while todo:
        for node in todo.pop().graph.nodes:
            if isinstance(node, NestedPipeline):
                if id(node.pipeline) not in seen:
                    seen.add(id(node.pipeline))
                    todo.append(node.pipeline)
            elif is_one(node):
                return True
    return False


def uses_scope(node: GraphNode) -> bool:
    """Whether the node may need or count something for the whole call."""
    return isinstance(node, Resource) or (isinstance(node, Node) and bool(node.limit or node.resources))


class _Compiler:
    """Lays out one plan after another over one table of places and one of settings."""

    def __init__(self, places: list[Any], root: Setting) -> None:
        self.places, self.settings = places, [root]
        self.levels: dict[tuple[str, ...], int] = {}
        # What is wrong with the resources that a node asks for: said if the node runs at all.
        self.barred: dict[tuple[str, ...], Barred] = {}

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

    def _setting(self, nest: NestedPipeline, path: tuple[str, ...], around: int) -> int:
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
        found = found.bounded_by(pipeline, path)
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
        shared: Container[str] = (),
        needs: Mapping[str, Need | Barred] | None = None,
        provided: Iterable[str] = (),
    ) -> Plan:
        """The plan of one pipeline with those nested in it; `timed` says that a clock of its own starts with it.

        `shared` are the inputs that all its items share, `needs` the resources that it has from around it,
        and `provided` all names that stand for such, overridden or not.
        """
        slots = len(given)
        alike = {slot for slot, name in enumerate(given) if name in shared}
        names: dict[str, Named] = {**(needs or {}), **{name: slot for slot, name in enumerate(given)}}
        root = frame = _Frame(pipeline, path, setting, names)
        frame.provided.update(provided)
        self._provide(pipeline.graph, frame)
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
                reads |= {name: frame.names[name] for name in (SCOPE, CLOCK, SPAN) if name in frame.names}
                around = {name: frame.names.get(name) for name in node.pipeline.graph.asked if name not in reads}
                reads |= {name: found for name, found in around.items() if isinstance(found, Need | Barred)}
                if node.map_over:
                    self._check_over(node, frame)
                    made = {}
                    for inner in node.outer_names:
                        made[inner], slots = slots, slots + 1
                    provided = _provided(node, frame)
                    laid.append(_Mapped(node, inner_path, frame.setting, reads, made, provided))
                    self._bind(frame, {node.outer_names[inner]: slot for inner, slot in made.items()})
                else:
                    inner_setting = self._setting(node, inner_path, frame.setting)
                    self.levels[inner_path] = inner_setting
                    timed = self._starts_clock(inner_setting, frame.setting)
                    frame = _Frame(node.pipeline, inner_path, inner_setting, reads, frame, node)
                    self._provide(node.pipeline.graph, frame)
                    if timed:
                        slots = self._start_clock(frame, laid, slots)
            elif isinstance(node, Resource):
                continue
            else:
                assert isinstance(node, Node)
                step = self._step(node, frame, slots, alike)
                slots += len(step.writes)
                laid.append(step)
                self._bind(frame, dict(zip(node.outputs, step.writes, strict=True)))
        found = [(name, root.names[name]) for name in wanted]
        outputs = tuple([(name, slot) for name, slot in found if isinstance(slot, int)])
        steps = self._needed(laid, {slot for _, slot in outputs}, root, given)
        return Plan(path, tuple((name, slot) for slot, name in enumerate(given)), outputs, steps, ())

    def _step(self, node: Node[..., Any], frame: _Frame, slot: int, alike: Container[int]) -> Step:
        """The call of a node, its outputs from `slot` on; `alike` are the slots that all items of the map share."""
        known, own = frame.names, self.settings[frame.setting]
        path = (*frame.path, node.name)
        wired = [(p.name, known[p.name]) for p in node.parameters if p.name in known]
        found = tuple([(name, at) for name, at in wired if isinstance(at, int)])
        needs = tuple([(name, at) for name, at in wired if isinstance(at, Need)])
        barred = next((at for _, at in wired if isinstance(at, Barred)), None) or _only_for_async(node, path, needs)
        if barred is not None:
            self.barred[path] = barred
        lists = None
        if node.batching is not None:
            items = [(name, at) for name, at in found if name not in frame.provided]
            lists = node.batching.over([name for name, _ in items], {name for name, at in items if at in alike})
            # Where an input is missing there are no lists either: that is told of the nodes that are needed.
            whole = all(p.name in known for p in node.parameters if p.required)
            if not lists and len(items) < len(wired) and whole:
                given = [name for name, at in wired if (name, at) not in items]
                why = (
                    f"node '{' > '.join(path)}' takes batches, but nothing comes to it as a list of items: "
                    f"{quoted(given)} {'is' if len(given) == 1 else 'are'} given by a resource"
                )
                self.barred.setdefault(path, Barred(why))
        scoped = bool(needs or node.limit or node.resources)
        hidden = [SCOPE] * scoped + [CLOCK] * (CLOCK in known) + [SPAN] * (own.heard and SPAN in known)
        return Step(
            node,
            path,
            found + tuple([(name, _slot(known[name])) for name in hidden]),
            tuple(range(slot, slot + len(node.outputs))),
            own.place,
            frame.setting,
            own.retry_of(node),
            own.keep_inputs,
            lists=lists,
            needs=needs,
        )

    def _provide(self, graph: Graph, frame: _Frame) -> None:
        """Give their names to the resources of a pipeline, before anything else: so they reach all that is in it."""
        for node in graph.order:
            if isinstance(node, Resource) and node.name not in frame.names:
                frame.names[node.name] = self._need(node, graph, frame)

    @staticmethod
    def _need(resource: Resource, graph: Graph, frame: _Frame) -> Need | Barred:
        """The resource with those that it needs itself; it is built before any item is there, from nothing else."""
        path = (*frame.path, resource.name)
        owner = f"resource '{' > '.join(path)}'"
        needs = []
        for parameter in resource.parameters:
            name, found = parameter.name, frame.names.get(parameter.name)
            if isinstance(found, Barred):
                return found
            if isinstance(found, Need):
                if found.resource.is_async and not resource.is_async:
                    return Barred(
                        f"{owner} takes '{name}', which is built on an event loop, and so only for async functions; "
                        f"make '{resource.name}' an async function or an async generator"
                    )
                needs.append((name, found))
            elif found is not None or name in graph.producers:
                return Barred(
                    f"{owner} takes '{name}', which is an input or an output here and may differ from item to item, "
                    f"while a resource is built once for many of them; rename that parameter, or override "
                    f"'{resource.name}' as well"
                )
            elif parameter.required:
                return Barred(
                    f"{owner} takes '{name}', which nobody provides; give that parameter a default value, or make a "
                    f"resource called '{name}'",
                    MissingInputError,
                )
        return Need(resource, path, tuple(needs))

    @staticmethod
    def _check_over(nest: NestedPipeline, frame: _Frame) -> None:
        for outer in nest.map_over:
            if isinstance(frame.names.get(outer), Need | Barred):
                raise GraphError(
                    f"nested pipeline '{' > '.join((*frame.path, nest.name))}': map_over names '{outer}', which is a "
                    "resource here; it takes lists of items"
                )

    def _starts_clock(self, setting: int, around: int) -> bool:
        return self.settings[setting].timeout != self.settings[around].timeout

    def _start_clock(self, frame: _Frame, laid: list[Step | _Mapped], slot: int) -> int:
        """Begin a pipeline with its clock; the number of the next free slot."""
        names, own = frame.names, self.settings[frame.setting]
        assert own.timeout is not None
        reads = ((CLOCK, _slot(names[CLOCK])),) if CLOCK in names else ()
        clock = Clock(own.timeout_origin, own.timeout, bool(reads))
        around = () if frame.parent is None else [at for name, at in names.items() if name not in HIDDEN]
        fed = tuple([at for at in around if isinstance(at, int)])
        laid.append(Step(clock, frame.path, reads, (slot,), own.place, frame.setting, after=fed))
        names[CLOCK] = slot
        return slot + 1

    @staticmethod
    def _bind(frame: _Frame, made: Mapping[str, Named]) -> None:
        """Give names to made values, except where a given input overrides them."""
        names = frame.names
        for name, slot in made.items():
            names.setdefault(name, slot)

    def _close(self, frame: _Frame) -> None:
        nest, parent = frame.nest, frame.parent
        assert nest is not None and parent is not None
        self._bind(parent, {outer: frame.names[inner] for inner, outer in nest.outer_names.items()})

    def _needed(
        self, laid: list[Step | _Mapped], needed: set[int], root: _Frame, given: tuple[str, ...]
    ) -> tuple[Step | MapStep, ...]:
        kept: list[Step | MapStep] = []
        missing: list[tuple[tuple[str, ...], str]] = []
        timed = _Timed()
        for step in reversed(laid):
            if isinstance(step, Step):
                if needed.isdisjoint(step.writes):
                    continue
                if step.path in self.barred and not step.is_clock:
                    barred = self.barred[step.path]
                    raise barred.kind(barred.why)
                if step.is_clock:
                    step = timed.placed(step)
                elif len(step.inputs) + len(step.needs) < len(step.node.parameters):
                    have = {name for name, _ in (*step.reads, *step.needs)}
                    missing += [(step.path, p.name) for p in step.node.parameters if p.required and p.name not in have]
                needed.update(slot for _, slot in step.reads)
                if step.scope is not None:
                    # Not before: what a call does not need may ask for what this machine does not have.
                    own, place = self.settings[step.setting], self.places[step.place]
                    step = step._replace(gates=gates_of(step.node, step.path, own, place))
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
            known = [name for name in root.names if name not in HIDDEN]
            raise missing_inputs(root.path[0], missing[::-1], [name for name in given if name not in HIDDEN], known)
        return tuple(kept[::-1])

    def _map_step(self, step: _Mapped, outputs: tuple[str, ...]) -> MapStep:
        nest = step.nest
        setting = self._setting(nest, step.path, step.setting)
        timed = self._starts_clock(setting, step.setting)
        over = [nest.inner_names[outer] for outer in nest.map_over]
        shared = set(step.reads).difference(over)
        inner = self.plan(
            nest.pipeline, step.path, setting, tuple(step.reads), outputs, timed, shared, step.needs, step.provided
        )
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


def _only_for_async(node: Node[..., Any], path: tuple[str, ...], needs: tuple[tuple[str, Need], ...]) -> Barred | None:
    """What is wrong where a plain node asks for what is built on an event loop."""
    name = None if node.is_async else next((name for name, need in needs if need.resource.is_async), None)
    if name is None:
        return None
    return Barred(
        f"node '{' > '.join(path)}' is a plain function and takes the resource '{name}', which is built on an event "
        f"loop and only of use there; make the node an async function, or '{name}' a plain one"
    )


def _slot(named: Named) -> int:
    assert isinstance(named, int)
    return named
