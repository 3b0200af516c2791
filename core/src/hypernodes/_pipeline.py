"""A pipeline: nodes wired by name, run for one item or many, on the backend that it names or inherits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

from hypernodes._backend import Backend
from hypernodes._calls import Columns, Wanted, check_items, merged, not_a_row, row_runs, wanted
from hypernodes._engine import Feed
from hypernodes._errors import GraphError, NodeDefinitionError, did_you_mean
from hypernodes._failure import Failure, raise_failure
from hypernodes._graph import Graph
from hypernodes._inline import Inline
from hypernodes._local import LocalBackend
from hypernodes._nest import NestedPipeline
from hypernodes._node import GraphNode, Node
from hypernodes._plan import Plan, compile_plan
from hypernodes._types import check_types as _check

if TYPE_CHECKING:
    from hypernodes._explain import Explanation

__all__ = ["Pipeline"]

MOST_PREPARED = 256
"""Distinct calls - which inputs, which outputs - that stay compiled."""


class Pipeline:
    """Nodes wired by the names of their outputs and parameters.

    `nodes` are functions made nodes by `@node` (plain functions are taken as they are), pipelines, or pipelines under
    other names (`as_node`). `name` names it in paths, messages and traces. `backend` says where and how it runs;
    without one a nested pipeline runs where its parent does, the outermost one after another in this process.
    `check_types=False` switches the comparison of annotations off.

    A pipeline never changes. Raises a `GraphError` that says what is wrong: two makers of one output, a cycle, types
    that cannot fit, something among the nodes that is none.
    """

    def __init__(
        self,
        nodes: Sequence[Any],
        *,
        name: str = "pipeline",
        backend: Backend | None = None,
        check_types: bool = True,
    ) -> None:
        if not isinstance(name, str) or not name:  # type: ignore[redundant-expr]
            raise NodeDefinitionError(f"a pipeline's name is a string, not {name!r}")
        if backend is not None and not isinstance(backend, Backend):
            raise NodeDefinitionError(_not_a_backend(name, backend))
        self._name, self._backend, self._check_types = name, backend, check_types
        self._graph = Graph(name, [_as_node(name, node) for node in _listed(name, nodes)])
        if check_types:
            _check(self._graph)
        self._runs: dict[Any, Callable[[dict[str, Any]], Any]] = {}
        self._plans: dict[Any, _Prepared] = {}

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

    def with_backend(self, backend: Backend | None) -> Pipeline:
        """The same pipeline on another backend; nested pipelines keep their own."""
        return Pipeline(self._graph.nodes, name=self._name, backend=backend, check_types=False)

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

    # -- one item

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run once: `run({"x": 1})`, `run(inputs={"x": 1})` and `run(x=1)` are the same.

        Returns a dict with every output of every node; with `output_nodes=` just those; with `output_name=` that one
        value by itself. Only what is needed for them runs. An input that names an output overrides it: its producer
        does not run.

        Raises a `GraphError` before any node runs if inputs or outputs do not fit, and otherwise what a node raised,
        with notes that say where.
        """
        values = kwargs if inputs is None else merged(self._name, inputs, kwargs)
        key: Any = (output_name, *values) if output_nodes is None else (None, tuple(output_nodes), *values)
        call = self._runs.get(key)
        if call is None:
            call = self._prepare_run(key, values, output_name, output_nodes)
        return call(values)

    async def arun(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_name: str | None = None,
        output_nodes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """`run` from a running event loop, which it never blocks: plain functions wait in threads."""
        values = merged(self._name, inputs, kwargs)
        prepared = self._prepare(tuple(values), wanted(self._graph, output_name, output_nodes))
        feed = Feed([prepared.row(values)])
        async for batch in prepared.route.aoutcomes(feed):
            for outcome in batch:
                if outcome.failure is not None:
                    raise_failure(outcome.failure)
                return prepared.wanted.shape(outcome.values)
        raise feed.error or AssertionError("a run of one item gave no outcome")

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
    ) -> Any:
        """Run once for each item.

        Rows in, rows out: `map([{"x": 1}, {"x": 2}], inputs={"k": 3})` merges each dict over the shared inputs and
        returns a list of dicts, or of bare values with `output_name=`. Columns in, columns out:
        `map(inputs={"x": [1, 2], "k": 3}, map_over="x")` returns a dict of lists, or one bare list; several names in
        `map_over` are zipped, or combined with `map_mode="product"`.

        Results come in the order of the items. With `on_error="raise"` the first failing item, in that order, raises;
        with `"return"` a `Failure` stands in its place and the others are untouched.
        """
        call = self._map_call(items, inputs, map_over, map_mode, output_name, output_nodes, on_error)
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
        ordered: bool = True,
    ) -> Generator[Any, None, None]:
        """`map` as a stream: one result for each item, as rows; items are drawn only a little ahead of what is taken.

        Works on an endless generator in bounded memory. `ordered=False` gives results as they are ready. Closing the
        iterator stops what is under way.
        """
        call = self._map_call(items, inputs, map_over, map_mode, output_name, output_nodes, on_error)
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
    ) -> Any:
        """`map` from a running event loop, which it never blocks. `items` may be an async iterable."""
        call = self._map_call(items, inputs, map_over, map_mode, output_name, output_nodes, on_error, asynchronous=True)
        return call.shaped([result async for result in call.astream(ordered=True)])

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
        ordered: bool = True,
    ) -> AsyncGenerator[Any, None]:
        """`map_iter` from a running event loop, which it never blocks. `items` may be an async iterable."""
        call = self._map_call(items, inputs, map_over, map_mode, output_name, output_nodes, on_error, asynchronous=True)
        return call.astream(ordered)

    # -- compiling

    def _prepare_run(
        self, key: Any, values: dict[str, Any], output_name: str | None, output_nodes: Sequence[str] | None
    ) -> Callable[[dict[str, Any]], Any]:
        prepared = self._prepare(tuple(values), wanted(self._graph, output_name, output_nodes))
        call = prepared.inline.caller() if prepared.inline is not None else prepared.run
        if len(self._runs) >= MOST_PREPARED:
            self._runs.clear()
        self._runs[key] = call
        return call

    def _prepare(self, given: tuple[str, ...], want: Wanted) -> _Prepared:
        key = (frozenset(given), want)
        prepared = self._plans.get(key)
        if prepared is None:
            self._graph.check_inputs(given)
            plan = compile_plan(self, sorted(given), want.names, LocalBackend())
            if len(self._plans) >= MOST_PREPARED:
                self._plans.clear()
            prepared = self._plans[key] = _Prepared(plan, want)
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
        *,
        asynchronous: bool = False,
    ) -> _MapCall:
        if on_error not in ("raise", "return"):
            raise ValueError(
                f"pipeline '{self._name}': on_error={on_error!r}{did_you_mean(on_error, ('raise', 'return'))}; "
                "give 'raise' or 'return'"
            )
        want = wanted(self._graph, output_name, output_nodes)
        shared = merged(self._name, inputs, {})
        self._graph.check_inputs(shared)
        if items is None:
            if map_over is None:
                raise GraphError(
                    f"pipeline '{self._name}': map() needs rows, map([{{...}}, ...]), or columns, "
                    "map(inputs={'x': [...]}, map_over='x')"
                )
            return _MapCall(self, want, on_error == "return", columns=Columns(self._graph, shared, map_over, map_mode))
        if map_over is not None:
            raise GraphError(f"pipeline '{self._name}': map() takes rows (items) or columns (map_over=), not both")
        if not (asynchronous and isinstance(items, AsyncIterable)):
            items = check_items(self._name, items)
        return _MapCall(self, want, on_error == "return", items=items, shared=shared)


class _Prepared:
    """A plan and the road it takes: inline where it runs one after another here, else through the hub."""

    def __init__(self, plan: Plan, want: Wanted) -> None:
        from hypernodes._backend import engine_spec_of, label

        self.plan, self.wanted = plan, want
        self.names = tuple(name for name, _ in plan.inputs)
        places = {step.place for step in plan.steps}
        self.inline: Inline | None = None
        crosses = any(getattr(step, "crosses", False) for step in plan.steps)
        if len(places) <= 1 and not crosses:
            backend = plan.places[places.pop() if places else 0]
            if isinstance(backend, LocalBackend) and engine_spec_of(backend).name == "sequential":
                self.inline = Inline(plan, want, label(backend))
        self._route: Any = None

    @property
    def route(self) -> Any:
        if self._route is None:
            from hypernodes._hub import Route

            self._route = Route(self.plan)
        return self._route

    def row(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([values[name] for name in self.names])

    def run(self, values: dict[str, Any]) -> Any:
        """Run once through the hub."""
        for outcome in self.outcomes(Feed([self.row(values)])):
            if outcome.failure is not None:
                raise_failure(outcome.failure)
            return self.wanted.shape(outcome.values)
        raise AssertionError("a run of one item gave no outcome")

    def outcomes(self, feed: Feed) -> Any:
        from hypernodes._loops import is_loop_running

        if is_loop_running():
            from hypernodes._bridge import from_thread

            return from_thread(lambda: self.route.outcomes(feed))
        return self.route.outcomes(feed)


class _MapCall:
    """One call of a map, checked: where its rows come from, what is wanted, in which form."""

    def __init__(
        self,
        pipeline: Pipeline,
        want: Wanted,
        keeps_failures: bool,
        *,
        items: Iterable[Any] | AsyncIterable[Any] | None = None,
        columns: Columns | None = None,
        shared: dict[str, Any] | None = None,
    ) -> None:
        self.pipeline, self.wanted, self.keeps_failures = pipeline, want, keeps_failures
        self.columns, self.items = columns, items
        self.shared = columns.shared if columns is not None else shared or {}
        # What is wrong with the first row, or with the columns, is said before any node runs.
        if columns is not None:
            self.first = pipeline._prepare((*self.shared, *columns.names), want)
        elif isinstance(items, list | tuple) and items:
            if not isinstance(items[0], Mapping):
                raise not_a_row(pipeline.name, 0, items[0])
            self.first = pipeline._prepare(tuple({**self.shared, **items[0]}), want)

    def collect(self) -> Any:
        results: list[Any] = []
        if self.columns is not None:
            prepared = self.first
            if prepared.inline is not None and not self.keeps_failures:
                prepared.inline.rows(self.columns.rows, results, self.shared, self.columns.names, "columns")
                return self.shaped(results)
        elif not self.keeps_failures and self._collect_inline(results):
            return results
        results.extend(self.stream(ordered=True, skip=len(results)))
        return self.shaped(results)

    def _collect_inline(self, results: list[Any]) -> bool:
        """Run rows in generated loops; False, with the results so far, where some other road must go on."""
        assert isinstance(self.items, Iterable)
        rows = iter(self.items)
        row = next(rows, None)
        while row is not None:
            if not isinstance(row, Mapping):
                raise not_a_row(self.pipeline.name, len(results), row)
            keys = tuple(row)
            prepared = self.pipeline._prepare(tuple({**self.shared, **row}), self.wanted)
            if prepared.inline is None:
                self.items = _chain(row, rows)
                return False
            shared = {name: value for name, value in self.shared.items() if name not in row}
            done = len(results)
            try:
                row = prepared.inline.rows(_chain(row, rows), results, shared, keys, "rows")
            except Exception as error:
                _shift(error, done)
                raise
        return True

    def shaped(self, results: list[Any]) -> Any:
        """Rows as they are; for columns one list for each output."""
        if self.columns is None or self.wanted.bare:
            return results
        return {
            name: [result if isinstance(result, Failure) else result[name] for result in results]
            for name in self.wanted.names
        }

    def stream(self, ordered: bool, skip: int = 0) -> Generator[Any, None, None]:
        base = skip
        for prepared, rows in self._runs():
            count = 0
            if prepared.inline is not None:
                shaped = (dict(zip(prepared.names, row, strict=True)) for row in rows)
                for result in prepared.inline.each(shaped):
                    count += 1
                    yield self._settled(result, base)
            else:
                for result in self._through_hub(prepared, rows, ordered):
                    count += 1
                    yield self._settled(result, base)
            base += count

    def _through_hub(self, prepared: _Prepared, rows: Iterator[tuple[Any, ...]], ordered: bool) -> Iterator[Any]:
        from hypernodes._hub import in_order

        feed = Feed(rows)
        outcomes = prepared.outcomes(feed)
        try:
            for outcome in in_order(outcomes, feed, stop_at_failure=not self.keeps_failures) if ordered else outcomes:
                yield self._shape(outcome, prepared)
        finally:
            outcomes.close()

    async def astream(self, ordered: bool) -> AsyncGenerator[Any, None]:
        from hypernodes._hub import Turns

        if isinstance(self.items, AsyncIterable):
            async for result in self._astream_rows(self.items, ordered):
                yield result
            return
        base = 0
        for prepared, rows in self._runs():
            feed = Feed(rows)
            turns = Turns(feed, stop_at_failure=not self.keeps_failures)
            batches = prepared.route.aoutcomes(feed)
            count = 0
            try:
                async for batch in batches:
                    for outcome in batch:
                        for ready in turns.ready(outcome) if ordered else (outcome,):
                            count += 1
                            yield self._settled(self._shape(ready, prepared), base)
            finally:
                await batches.aclose()
            base += count

    async def _astream_rows(self, items: AsyncIterable[Any], ordered: bool) -> AsyncGenerator[Any, None]:
        from hypernodes._arows import AsyncRows
        from hypernodes._hub import Turns

        rows = AsyncRows(self.pipeline.name, items)
        first = await rows.first()
        if first is None:
            return
        prepared = self.pipeline._prepare(tuple({**self.shared, **first}), self.wanted)
        shared = self.shared
        feed = rows.start(lambda row: prepared.row({**shared, **row}))
        turns = Turns(feed, stop_at_failure=not self.keeps_failures)
        batches = prepared.route.aoutcomes(feed)
        try:
            async for batch in batches:
                for outcome in batch:
                    for ready in turns.ready(outcome) if ordered else (outcome,):
                        rows.delivered()
                        yield self._settled(self._shape(ready, prepared), 0)
        finally:
            await batches.aclose()
            await rows.close()

    def _runs(self) -> Iterator[tuple[_Prepared, Iterator[tuple[Any, ...]]]]:
        """The rows in runs that share one plan, as tuples in the order of the plan's inputs."""
        if self.columns is not None:
            names = self.columns.names
            shared = self.shared
            prepared = self.first
            yield (
                prepared,
                (prepared.row({**shared, **dict(zip(names, row, strict=True))}) for row in self.columns.rows),
            )
            return
        assert isinstance(self.items, Iterable)
        for keys, rows in row_runs(self.pipeline.name, self.items):
            prepared = self.pipeline._prepare(tuple({**self.shared, **dict.fromkeys(keys)}), self.wanted)
            shared = self.shared
            row_of = prepared.row
            yield prepared, (row_of({**shared, **row}) for row in rows) if shared else map(row_of, rows)

    @staticmethod
    def _shape(outcome: Any, prepared: _Prepared) -> Any:
        if outcome.failure is not None:
            return outcome.failure.at(outcome.index)
        return prepared.wanted.shape(outcome.values)

    def _settled(self, result: Any, base: int) -> Any:
        if isinstance(result, Failure):
            if base and result.item is not None:
                result = result.at(result.item + base)
            if not self.keeps_failures:
                raise_failure(result)
        return result


def _chain(row: Any, rows: Iterator[Any]) -> Iterator[Any]:
    import itertools

    return itertools.chain((row,), rows)


def _shift(error: Exception, done: int) -> None:
    """Count items from the start of the map where an earlier run of rows had other keys."""
    from hypernodes._failure import failure_of

    failure = failure_of(error)
    if done and failure is not None and failure.items[0] is not None:
        error.__notes__.remove(f"in {failure.where}" + (f", on {failure.place}" if failure.place else ""))
        raise_failure(failure.at(failure.items[0] + done))


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


def _not_a_backend(name: str, backend: object) -> str:
    if isinstance(backend, type):
        return f"pipeline '{name}': backend={backend.__name__} is a class; call it: backend={backend.__name__}()"
    return f"pipeline '{name}': backend={backend!r} is no backend; give one, such as LocalBackend(engine='threaded')"
