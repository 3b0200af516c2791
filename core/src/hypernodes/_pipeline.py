"""A pipeline: nodes wired by name, run for one item or many, on the backend that it names or inherits."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from os import PathLike
from types import FunctionType
from typing import TYPE_CHECKING, Any

from hypernodes._backend import Backend
from hypernodes._cache import Cache
from hypernodes._cache_address import checked_cache
from hypernodes._calls import Columns, Wanted, check_items, merged, wanted
from hypernodes._compile import any_node, compile_plan, uses_scope
from hypernodes._errors import GraphError, NodeDefinitionError, PluginError, did_you_mean, quoted
from hypernodes._events import Callback, Listener
from hypernodes._graph import Graph
from hypernodes._late import importing
from hypernodes._limits import check_count, check_flag, check_seconds
from hypernodes._local import LocalBackend, shares_memory
from hypernodes._map_call import MapCall
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._prepared import Prepared
from hypernodes._quota import quotas_of
from hypernodes._settings import INHERIT, Inherit, checked_callbacks
from hypernodes._types import check_types as _check

if TYPE_CHECKING:
    import os

    from hypernodes._diagram import Diagram
    from hypernodes._explain import Explanation
    from hypernodes._picture import Picture
    from hypernodes._why import Lookups

__all__ = ["Pipeline"]

MOST_PREPARED = 256
"""Distinct calls - which inputs, which outputs - that stay compiled."""

MOST_SHOWN = 200
"""Nodes of a pipeline that a notebook draws without being asked to."""


class Pipeline:
    """Nodes wired by the names of their outputs and parameters.

    `nodes` are functions made nodes by `@node` (plain functions are taken as they are), pipelines, or pipelines under
    other names (`as_node`). `name` names it in paths, messages and traces. `backend` says where and how it runs;
    without one a nested pipeline runs where its parent does, the outermost one after another in this process. `cache`
    keeps the results of its nodes: a `Cache`, the path of a folder, an address that a plugin opens, or None for none.
    `callbacks` hear of every run: `Callback`s and functions of an `Event`; `[]` for none. What it does not name it has
    from the pipeline around it.
    `check_types=False` switches the comparison of annotations off.

    `timeout` bounds each run of it in seconds, in a map each item by itself, from when its first node could run; the
    earliest deadline around a node holds. `retries` and `retry_delay` are for the nodes that do not name them.
    `keep_inputs=True` lets a `Failure` keep what its node was called with. What is left out here is inherited.

    `limits` declares limits for the nodes that name them with `@node(limit=...)`: a whole number is how many calls may
    run at once, text such as `"100/minute"` how many may begin in any such time. They hold for all such nodes in this
    pipeline and those nested in it, over one whole call; a name that is declared again inside counts by itself there.

    A pipeline never changes. Raises a `GraphError` that says what is wrong: two makers of one output, a cycle, types
    that cannot fit, something among the nodes that is none.
    """

    def __init__(
        self,
        nodes: Sequence[Any],
        *,
        name: str = "pipeline",
        backend: Backend | None = None,
        cache: Cache | str | PathLike[str] | Inherit | None = INHERIT,
        callbacks: Sequence[Callback | Listener] | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        retry_delay: float | None = None,
        keep_inputs: bool | None = None,
        limits: Mapping[str, int | str] | None = None,
        check_types: bool = True,
    ) -> None:
        if not isinstance(name, str) or not name:  # type: ignore[redundant-expr]
            raise NodeDefinitionError(f"a pipeline's name is a string, not {name!r}")
        if backend is not None and not isinstance(backend, Backend):
            raise NodeDefinitionError(_not_a_backend(name, backend))
        self._name, self._backend = name, backend
        self._cache = checked_cache(name, cache)
        owner = f"pipeline '{name}'"
        self._timeout = None if timeout is None else check_seconds(owner, "timeout", timeout)
        self._retries = None if retries is None else check_count(owner, "retries", retries)
        self._retry_delay = None if retry_delay is None else check_seconds(owner, "retry_delay", retry_delay, least=0.0)
        self._keep_inputs = None if keep_inputs is None else check_flag(owner, "keep_inputs", keep_inputs)
        quotas_of(owner, limits)
        self._limits = None if limits is None else dict(limits)
        self._callbacks = None if callbacks is None else tuple(checked_callbacks(name, callbacks))
        self._graph = Graph(name, [_as_node(name, node) for node in _listed(name, nodes)])
        if check_types:
            _check(self._graph)
        self._scoped = any_node(self, uses_scope)
        self._batched = any_node(self, _is_batch)
        self._meeting: bool | None = None
        self._runs: dict[Any, Callable[[dict[str, Any]], Any]] = {}
        self._plans: dict[Any, Prepared] = {}

    # -- what it is

    @property
    def name(self) -> str:
        return self._name

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def backend(self) -> Backend | None:
        """The backend this pipeline names; None where it stays with its parent."""
        return self._backend

    @property
    def cache(self) -> Any:
        """The cache this pipeline names, None where it switches caching off, `INHERIT` where it says nothing."""
        return self._cache

    @property
    def callbacks(self) -> tuple[Callback | Listener, ...] | None:
        """The callbacks this pipeline names, none where it switches them off; None where it says nothing."""
        return self._callbacks

    @property
    def timeout(self) -> float | None:
        """The seconds that each run of this pipeline may take; None where only those around it count."""
        return self._timeout

    @property
    def retries(self) -> int | None:
        """How often nodes that do not say so themselves are tried again; None where this pipeline says nothing."""
        return self._retries

    @property
    def retry_delay(self) -> float | None:
        """The pause before the first retry in seconds, as for `retries`."""
        return self._retry_delay

    @property
    def keep_inputs(self) -> bool | None:
        """Whether failures keep what their nodes were called with; None where this pipeline says nothing."""
        return self._keep_inputs

    @property
    def limits(self) -> dict[str, int | str] | None:
        """The limits this pipeline declares, by name; None where it says nothing."""
        return None if self._limits is None else dict(self._limits)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs: parameters that no node makes."""
        return tuple(self._graph.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of all outputs, in the order of the nodes."""
        return self._graph.outputs

    def __repr__(self) -> str:
        count = len(self._graph.nodes)
        place = f", on {self._backend!r}" if self._backend is not None else ""
        return f"<pipeline '{self._name}': {count} node{'' if count == 1 else 's'}{place}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """As a flat list of its nested pipelines, the innermost first: pickling must not go as deep as the nesting."""
        return _rebuild, (_flattened(self),)

    def with_backend(self, backend: Backend | None) -> Pipeline:
        """The same pipeline on another backend; nested pipelines keep their own."""
        return self.with_options(backend=backend)

    def with_options(self, **options: Any) -> Pipeline:
        """The same pipeline with other options than its nodes; nested pipelines keep their own."""
        own = {**_portable_options(self), "callbacks": self._callbacks}
        unknown = next((name for name in options if name not in own), None)
        if unknown is not None:
            raise NodeDefinitionError(
                f"pipeline '{self._name}': with_options() takes no {unknown!r}{did_you_mean(unknown, own)}; "
                f"it takes {quoted(own)}"
            )
        return Pipeline(self._graph.nodes, check_types=False, **{**own, **options})

    def as_node(
        self,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        *,
        map_over: str | Sequence[str] | None = None,
        map_mode: str = "zip",
        name: str | None = None,
    ) -> NestedPipeline:
        """This pipeline as a node of another.

        `input_mapping` goes from outer to inner names, `output_mapping` from inner to outer ones; unmapped names stay
        as they are. `map_over` names inputs, as the outer pipeline sees them, that take lists: the pipeline runs
        once for each element (`map_mode="zip"`) or each combination (`"product"`), and every output becomes a list.
        """
        return NestedPipeline(
            self,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            map_over=map_over,
            map_mode=map_mode,
            name=name,
        )

    def explain(
        self,
        inputs: Iterable[str] | None = None,
        *,
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
    ) -> Explanation:
        """Where each node of a call would run and which pipeline chose that, what would cross borders, and what could
        not be pickled where it must be. Nothing runs and no place is opened.

        `inputs` are the inputs the call would give, as names or as a dict; without them, those that are required.
        """
        from hypernodes._explain import explain

        given = inputs
        if given is None:
            given = [name for name, parameter in self._graph.inputs.items() if parameter.required]
        prepared = self._prepare(tuple(given), wanted(self._graph, output_name, output_nodes))
        return explain(prepared.plan)

    def why_miss(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Lookups:
        """What the caches have for a call of `run` with these inputs, node by node, and for each miss which component
        of its key differs from the nearest result of that node that is kept. Nothing runs.
        """
        values = merged(self._name, inputs, kwargs)
        return self._prepare(tuple(values), wanted(self._graph, output_name, output_nodes)).look_up(values)

    def visualize(
        self, depth: int | None = 1, filename: str | os.PathLike[str] | None = None, orient: str = "TB"
    ) -> Picture:
        """A picture of this pipeline: a notebook shows it, and `filename` is where it is saved at once.

        `depth=1` shows the pipeline's own nodes, each further level opens the pipelines nested there, `None` opens all.
        The suffix of `filename` says the form: `.svg`, `.png`, `.dot`, `.mmd` or `.html`. `orient` is `"TB"` (top to
        bottom) or `"LR"` (left to right). Raises `GraphError` for other values.
        """
        from hypernodes._diagram import diagram_of
        from hypernodes._picture import Picture, check_orient

        picture = Picture(diagram_of(self, depth), check_orient(self._name, orient))
        if filename is not None:
            picture.save(filename)
        return picture

    def _diagram(self) -> Diagram:
        from hypernodes._diagram import diagram_of

        return diagram_of(self, None)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: the picture, where a plugin draws it and it is not huge."""
        shown = {"text/plain": repr(self)}
        if len(self._graph.nodes) <= MOST_SHOWN:
            try:
                shown["image/svg+xml"] = self.visualize().svg
            except PluginError:
                # Only the picture is missing then, and whoever asks for it with `visualize` is told why.
                return shown
        return shown

    # -- one item

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run once: `run({"x": 1})`, `run(inputs={"x": 1})` and `run(x=1)` are the same.

        Returns a dict with every output of every node; with `output_nodes=` just those; with `output_name=` that one
        value by itself. Only what is needed for them runs. An input that names an output overrides it: its producer
        does not run. `progress=True` shows how far it is.

        Raises a `GraphError` before any node runs if inputs or outputs do not fit, and otherwise what a node raised,
        with notes that say where.
        """
        values = kwargs if inputs is None else merged(self._name, inputs, kwargs)
        if progress:
            want = wanted(self._graph, output_name, output_nodes)
            return self._prepare(tuple(values), want, watched=True).run(values, (_display(),))
        if output_nodes is None:
            key: Any = (output_name, *values)
        else:
            key = (None, wanted(self._graph, output_name, output_nodes).names, *values)
        try:
            call = self._runs.get(key)
        except TypeError:
            # Only output_name can be unhashable, and then it is no name: what is wrong with it is said below.
            call = None
        if call is None:
            call = self._prepare_run(key, values, output_name, output_nodes)
        return call(values)

    async def arun(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> Any:
        """`run` from a running event loop, which it never blocks: plain functions wait in threads."""
        values = merged(self._name, inputs, kwargs)
        want = wanted(self._graph, output_name, output_nodes)
        prepared = self._prepare(tuple(values), want, watched=progress)
        if not prepared.watched:
            return await prepared.arun(values, None)
        with prepared.watch("pipeline", extra=(_display(),) if progress else ()) as watch:
            return await prepared.arun(values, watch)

    # -- many items

    def map(
        self,
        items: Iterable[Mapping[str, Any]] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: str = "zip",
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        on_error: str = "raise",
        progress: bool = False,
    ) -> Any:
        """Run once for each item.

        Rows in, rows out: `map([{"x": 1}, {"x": 2}], inputs={"k": 3})` merges each dict over the shared inputs and
        returns a list of dicts, or of bare values with `output_name=`. Columns in, columns out:
        `map(inputs={"x": [1, 2], "k": 3}, map_over="x")` returns a dict of lists, or one bare list; several names in
        `map_over` are zipped, or combined with `map_mode="product"`. `progress=True` shows how far it is.

        Results come in the order of the items. With `on_error="raise"` the first failing item, in that order, raises;
        with `"return"` a `Failure` stands in its place and the others are untouched.
        """
        call = self._map_call(items, inputs, map_over, map_mode, output_name, output_nodes, on_error, progress)
        return call.collect()

    def map_iter(
        self,
        items: Iterable[Mapping[str, Any]] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: str = "zip",
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        on_error: str = "raise",
        progress: bool = False,
        ordered: bool = True,
    ) -> Generator[Any, None, None]:
        """`map` as a stream: one result for each item, as rows; items are drawn only a little ahead of what is taken.

        Works on an endless generator in bounded memory. `ordered=False` gives results as they are ready. Closing the
        iterator stops what is under way.
        """
        call = self._map_call(items, inputs, map_over, map_mode, output_name, output_nodes, on_error, progress)
        return call.stream(ordered)

    async def amap(
        self,
        items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: str = "zip",
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        on_error: str = "raise",
        progress: bool = False,
    ) -> Any:
        """`map` from a running event loop, which it never blocks. `items` may be an async iterable."""
        options = (map_over, map_mode, output_name, output_nodes, on_error, progress)
        call = self._map_call(items, inputs, *options, asynchronous=True)
        async with aclosing(call.aresults(ordered=True)) as results:
            return call.shaped([call.settled(result) async for result in results])

    def amap_iter(
        self,
        items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: str = "zip",
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        on_error: str = "raise",
        progress: bool = False,
        ordered: bool = True,
    ) -> AsyncGenerator[Any, None]:
        """`map_iter` from a running event loop, which it never blocks. `items` may be an async iterable."""
        options = (map_over, map_mode, output_name, output_nodes, on_error, progress)
        call = self._map_call(items, inputs, *options, asynchronous=True)
        return call.astream(ordered)

    # -- compiling

    def _prepare_run(
        self, key: Any, values: dict[str, Any], output_name: str | None, output_nodes: Sequence[str] | None
    ) -> Callable[[dict[str, Any]], Any]:
        prepared = self._prepare(tuple(values), wanted(self._graph, output_name, output_nodes))
        plain = prepared.inline is not None and not prepared.plan.scoped
        call = prepared.inline.caller() if prepared.inline is not None and plain else prepared.run
        if len(self._runs) >= MOST_PREPARED:
            self._runs.clear()
        self._runs[key] = call
        return call

    def _prepare(
        self, given: tuple[str, ...], want: Wanted, *, watched: bool = False, shared: Collection[str] = ()
    ) -> Prepared:
        with importing("hypernodes._observers"):  # a run is the first to need plugins, and imports their manifests too
            from hypernodes import _observers

            watched = watched or _observers.subscribed()
        alike = frozenset(shared if self._batched else ())
        key = (frozenset(given), want, watched, alike)
        prepared = self._plans.get(key)
        if prepared is None:
            self._graph.check_inputs(given)
            plan = compile_plan(self, sorted(given), want.names, LocalBackend(), watched=watched, shared=alike)
            if len(self._plans) >= MOST_PREPARED:
                self._plans.clear()
            prepared = self._plans[key] = Prepared(plan, want, {"diagram": self._diagram}, self._meets)
        return prepared

    def _map_call(
        self,
        items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | None,
        inputs: Mapping[str, Any] | None,
        map_over: str | Sequence[str] | None,
        map_mode: str,
        output_name: str | None,
        output_nodes: Sequence[str] | None,
        on_error: str,
        progress: bool,
        *,
        asynchronous: bool = False,
    ) -> MapCall:
        if on_error not in ("raise", "return"):
            raise ValueError(
                f"pipeline '{self._name}': on_error={on_error!r}{did_you_mean(on_error, ('raise', 'return'))}; "
                "give 'raise' or 'return'"
            )
        want = wanted(self._graph, output_name, output_nodes)
        shared = merged(self._name, inputs, {})
        self._graph.check_inputs(shared)

        extra = (_display(),) if progress else ()

        def prepare(given: tuple[str, ...], shared: Collection[str]) -> Prepared:
            return self._prepare(given, want, watched=progress, shared=shared)

        if items is None:
            if map_over is None:
                raise GraphError(
                    f"pipeline '{self._name}': map() needs rows, map([{{...}}, ...]), or columns, "
                    "map(inputs={'x': [...]}, map_over='x')"
                )
            return MapCall(
                self._name,
                prepare,
                want,
                on_error == "return",
                extra=extra,
                columns=Columns(self._graph, shared, map_over, map_mode),
                scoped=self._scoped,
                meets=self._meets,
            )
        if map_over is not None:
            raise GraphError(f"pipeline '{self._name}': map() takes rows (items) or columns (map_over=), not both")
        if not (asynchronous and isinstance(items, AsyncIterable)):
            items = check_items(self._name, items)
        return MapCall(
            self._name,
            prepare,
            want,
            on_error == "return",
            extra=extra,
            items=items,
            shared=shared,
            scoped=self._scoped,
            meets=self._meets,
        )

    def _meets(self) -> bool:
        """Whether processes may have to meet, as some nodes count against limits and some leave this process."""
        if self._meeting is None:
            apart = any(backend is not None and not shares_memory(backend) for backend in _backends(self))
            self._meeting = apart and any_node(self, _is_counted)
        return self._meeting


_Reference = tuple[int, dict[str, Any]]
_Flat = list[tuple[dict[str, Any], list[GraphNode | _Reference]]]


def _flattened(root: Pipeline) -> _Flat:
    """Options and nodes of each pipeline; a nested one stands in as its position and how it is nested.

    Callbacks stay in the process they were made in.
    """
    flat: _Flat = []
    position: dict[int, int] = {}
    todo = [root]
    while todo:
        pipeline = todo[-1]
        nested = [node.pipeline for node in pipeline.graph.nodes if isinstance(node, NestedPipeline)]
        waiting = [inner for inner in nested if id(inner) not in position]
        if waiting:
            todo += waiting  # type: ignore[arg-type]
            continue
        todo.pop()
        if id(pipeline) in position:
            continue
        position[id(pipeline)] = len(flat)
        nodes = [
            (position[id(node.pipeline)], node.options) if isinstance(node, NestedPipeline) else node
            for node in pipeline.graph.nodes
        ]
        flat.append(({**_portable_options(pipeline), "callbacks": pipeline.callbacks and None}, nodes))
    return flat


def _portable_options(pipeline: Pipeline) -> dict[str, Any]:
    names = ("name", "backend", "cache", "timeout", "retries", "retry_delay", "keep_inputs", "limits")
    return {name: getattr(pipeline, name) for name in names}


def _rebuild(flat: _Flat) -> Pipeline:
    built: list[Pipeline] = []
    for options, nodes in flat:
        found = [node if isinstance(node, GraphNode) else built[node[0]].as_node(**node[1]) for node in nodes]
        built.append(Pipeline(found, check_types=False, **options))
    return built[-1]


def _listed(name: str, nodes: object) -> Sequence[Any]:
    if isinstance(nodes, GraphNode | Pipeline | FunctionType):
        raise NodeDefinitionError(
            f"pipeline '{name}': nodes takes a list; write nodes=[{getattr(nodes, 'name', '...')}]"
        )
    if isinstance(nodes, str | Mapping) or not isinstance(nodes, Iterable):
        raise NodeDefinitionError(f"pipeline '{name}': nodes takes a list of nodes, not {nodes!r}")
    found = list(nodes)
    if not found:
        raise NodeDefinitionError(f"pipeline '{name}' has no nodes; give it at least one")
    return found


def _as_node(name: str, node: object) -> GraphNode:
    if isinstance(node, GraphNode):
        return node
    if isinstance(node, Pipeline):
        return node.as_node()
    if isinstance(node, FunctionType):
        return Node(node)
    raise NodeDefinitionError(
        f"pipeline '{name}': {node!r} among its nodes is no node; decorate a function with @node, or nest a Pipeline"
    )


def _is_batch(node: GraphNode) -> bool:
    return isinstance(node, Node) and node.batching is not None


def _is_counted(node: GraphNode) -> bool:
    return isinstance(node, Node) and bool(node.limit or node.resources)


def _backends(root: Pipeline) -> Iterator[Backend | None]:
    """The backend of each pipeline that is nested somewhere in this one, and its own."""
    todo, seen = [root], {id(root)}
    while todo:
        pipeline = todo.pop()
        yield pipeline.backend
        for node in pipeline.graph.nodes:
            if isinstance(node, NestedPipeline) and id(node.pipeline) not in seen:
                seen.add(id(node.pipeline))
                todo.append(node.pipeline)  # type: ignore[arg-type]


def _display() -> Callback:
    with importing("hypernodes._observers"):
        from hypernodes import _observers
    return _observers.progress_display()


def _not_a_backend(name: str, backend: object) -> str:
    if isinstance(backend, type):
        return f"pipeline '{name}': backend={backend.__name__} is a class; call it: backend={backend.__name__}()"
    return f"pipeline '{name}': backend={backend!r} is no backend; give one, such as LocalBackend(engine='threaded')"
