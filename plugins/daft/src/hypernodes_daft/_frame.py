"""Data in, data out: a pipeline over a dataframe or files, as a lazy dataframe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypernodes import LocalBackend, Pipeline
from hypernodes_daft import _runner
from hypernodes_daft._arrays import joined, joined_type, part
from hypernodes_daft._body import Body, Reference, Resources
from hypernodes_daft._check import compare
from hypernodes_daft._cut import Island, Native, cut
from hypernodes_daft._engine import DaftEngine
from hypernodes_daft._native import expressions_of
from hypernodes_daft._source import opened
from hypernodes_daft._types import ColumnType, column_types

__all__ = ["map_frame"]

FAILURE = "failure"
"""The column that tells why a row failed, where rows may fail."""
OURS = "hypernodes_"
ROW = f"{OURS}row"
ROWS_OF_BATCH = 8192
"""Rows that Python gets at once: a call for 8192 rows costs 2 ms beside what it does, and both cores have some."""


def map_frame(
    pipeline: Pipeline,
    source: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    output_nodes: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    types: Mapping[str, Any] | None = None,
    on_error: str = "raise",
    batch_size: int = ROWS_OF_BATCH,
    native: bool = True,
    check_native: int = 0,
    format: str | None = None,  # noqa: A002
) -> Any:
    """Run a pipeline for each row of a Daft dataframe, or of files, and give back a lazy Daft dataframe.

    Nothing runs and no row is read before that dataframe is collected, shown or written. `source` is a
    `daft.DataFrame`, or the path, glob or address of Parquet, CSV or JSON files; `format` says which where the name
    does not. Columns that the pipeline takes are its inputs; `inputs` are those that all rows share. The result has
    the columns of the source that are named in `keep`, and one for each output, or each of `output_nodes`.

    A column is typed where its node is annotated with exactly `str`, `int`, `float`, `bool` or `bytes`, or one of them
    or None, or where `types` says so; each value is then checked. Any other holds Python objects as they are. Nodes
    under `@native` are computed as Daft expressions, unless `native=False`; `check_native=k` compares them with their
    functions for k rows of each batch. What lies between runs in Python, `batch_size` rows at once.

    With `on_error="return"` failed rows have None in all outputs, and a column `failure` tells why; else the first
    failing row of a batch raises the user's own exception when the dataframe is computed.
    """
    daft = _runner.native()
    _check_options(pipeline, on_error, batch_size, check_native)
    frame = opened(daft, source, format)
    if isinstance(output_nodes, str):
        raise TypeError(
            f"map_frame: output_nodes={output_nodes!r}; give a list of outputs: output_nodes=[{output_nodes!r}]"
        )
    wanted = list(dict.fromkeys(pipeline.output_names if output_nodes is None else output_nodes))
    pipeline.graph.check_outputs(wanted)
    shared = dict(inputs or {})
    pipeline.graph.check_inputs(shared)
    columns = [name for name in frame.column_names if name in pipeline.input_names]
    _check_columns(pipeline, frame, keep, wanted, on_error)
    pipeline.explain([*columns, *shared], output_nodes=wanted)  # says what is missing
    laid = _Laid(daft, pipeline, frame, shared, column_types(daft, pipeline, types or {}), on_error, batch_size)
    for piece in cut(pipeline, wanted, native=native):
        if isinstance(piece, Native):
            laid.compute(piece, check_native)
        else:
            laid.call(piece)
    return laid.frame.select(*keep, *wanted, *([FAILURE] if on_error == "return" else []))


class _Laid:
    """The dataframe under construction."""

    def __init__(
        self,
        daft: Any,
        pipeline: Pipeline,
        frame: Any,
        shared: Mapping[str, Any],
        types: Mapping[str, ColumnType],
        on_error: str,
        batch_size: int,
    ) -> None:
        self.daft, self.pipeline, self.shared, self.types = daft, _placed(pipeline), shared, types
        self.keeps_failures, self.batch_size = on_error == "return", batch_size
        self.resources = Resources()
        text = daft.DataType.string()
        self.text = ColumnType(str, True, text)
        self.frame = frame.with_column(FAILURE, daft.lit(None).cast(text)) if self.keeps_failures else frame

    def compute(self, piece: Native, check: int) -> None:
        """Add the columns of a node that Daft computes."""
        node, daft = piece.node, self.daft
        schema, inputs = self.frame.schema(), {}
        there = [name for name in (p.name for p in node.parameters) if name in self.frame.column_names]
        for name in there:
            if schema[name].dtype.is_python():
                raise TypeError(
                    f"the native form of node '{node.name}' takes '{name}', which is a column of Python objects; "
                    f"annotate the node that makes it, or give types={{{name!r}: str}} or another type"
                )
            inputs[name] = daft.col(name)
        shared = {p.name: self.shared[p.name] for p in node.parameters if p.name in self.shared and p.name not in there}
        inputs |= {name: _literal(daft, node.name, name, value) for name, value in shared.items()}
        made = expressions_of(daft, node, inputs)
        frame = self.frame.with_columns(made)
        schema = frame.schema()
        for name in made:
            found, kind = schema[name].dtype, self.types[name]
            if kind.is_python or found == kind.dtype:
                continue
            if kind.kind is not int or not found.is_integer():
                raise TypeError(
                    f"the native form of node '{node.name}' makes '{name}' a column of {found}, and its annotation "
                    f"says {kind}; cast the expression, or correct the annotation"
                )
            frame = frame.with_column(name, daft.col(name).cast(kind.dtype))
        self.frame = frame
        if check:
            self._check(node, list(made), there, shared, check)

    def call(self, piece: Island) -> None:
        """Add the columns of what runs in Python."""
        daft, makes = self.daft, list(piece.makes)
        reads = [name for name in piece.reads if name in self.frame.column_names]
        shared = {name: self.shared[name] for name in piece.reads if name in self.shared and name not in reads}
        body = Body(self.pipeline, reads, makes, shared, self.keeps_failures, self.resources)
        keeps_failures, kinds = self.keeps_failures, [(name, self._kind(name)) for name in makes]
        if keeps_failures:
            kinds.append((FAILURE, self.text))

        # Daft holds this as long as the dataframe: were the dataframe in turn within its reach, neither would ever go.
        def call(rows: Any, *columns: Any) -> Any:
            numbers = rows.to_pylist()
            lists = [column.to_pylist() for column in columns]
            reasons = lists.pop(0) if keeps_failures else [None] * len(numbers)
            made, told = body(numbers, reasons, lists)
            values = [*made, told] if keeps_failures else made
            return joined(daft, [(*kind, column) for kind, column in zip(kinds, values, strict=True)], numbers)

        whole = joined_type(daft, kinds)
        reference = Reference(f"{self.pipeline.name}: {', '.join(makes)}", call)
        sources = [self._numbered(), *([FAILURE] if keeps_failures else []), *reads]
        together = f"{OURS}{'_'.join(makes)}"
        frame = self.frame.with_column(together, self._function(reference, whole, sources))
        for at, (name, kind) in enumerate(kinds):
            if whole.is_python():
                pick = Reference(name, part(daft, at, name, kind))
                value = self._function(pick, kind.dtype or daft.DataType.python(), [together])
            else:
                value = daft.col(together).get(name)
            frame = frame.with_column(name, value)
        self.frame = frame.exclude(together)

    def _check(self, node: Any, makes: list[str], reads: list[str], shared: Mapping[str, Any], most: int) -> None:
        """Let the node's first column go through a comparison, which leaves it as it is."""
        pipeline, resources = self.pipeline, self.resources

        def check(rows: Any, first: Any, *columns: Any) -> Any:
            lists = [column.to_pylist() for column in (first, *columns)]
            made, inputs = lists[: len(makes)], lists[len(makes) :]
            numbers = rows.to_pylist()
            compare(pipeline, node.name, makes, reads, shared, numbers, made, inputs, most, resources)
            return first

        kind = self.frame.schema()[makes[0]].dtype
        function = self._function(Reference(f"check {node.name}", check), kind, [self._numbered(), *makes, *reads])
        self.frame = self.frame.with_column(makes[0], function)

    def _kind(self, name: str) -> ColumnType:
        kind = self.types[name]
        return kind._replace(optional=True) if self.keeps_failures else kind

    def _function(self, reference: Reference, returned: Any, columns: Sequence[str]) -> Any:
        function = self.daft.func.batch(return_dtype=returned, batch_size=self.batch_size)(reference)
        return function(*map(self.daft.col, columns))

    def _numbered(self) -> str:
        """The column of row numbers, by which errors name their row."""
        if ROW not in self.frame.column_names:
            self.frame = self.frame.with_column(ROW, self.daft.functions.monotonically_increasing_id())
        return ROW


def _placed(pipeline: Pipeline) -> Pipeline:
    """The pipeline as it runs inside a dataframe: on its own backend, or in Daft's process where it names none."""
    return pipeline.with_backend(LocalBackend(engine=DaftEngine())) if pipeline.backend is None else pipeline


def _literal(daft: Any, node: str, name: str, value: Any) -> Any:
    if type(value) in (str, int, float, bool, bytes, type(None)):
        return daft.lit(value)
    raise TypeError(
        f"the native form of node '{node}' takes the input '{name}', a {type(value).__name__}, which is no literal of "
        "Daft's; give str, int, float, bool, bytes or None, or use the function: map_frame(..., native=False)"
    )


def _check_options(pipeline: object, on_error: str, batch_size: object, check_native: object) -> None:
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"map_frame takes a Pipeline first, not {pipeline!r:.60}")
    if on_error not in ("raise", "return"):
        raise ValueError(f"map_frame: on_error={on_error!r}; give 'raise' or 'return'")
    for option, count, least in (("batch_size", batch_size, 1), ("check_native", check_native, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(f"map_frame: {option}={count!r}; give a whole number, {least} or more")


def _check_columns(pipeline: Pipeline, frame: Any, keep: Sequence[str], wanted: Sequence[str], on_error: str) -> None:
    """Refuse columns whose names mean two things."""
    if isinstance(keep, str):
        raise TypeError(f"map_frame: keep={keep!r}; give a list of columns: keep=[{keep!r}]")
    there = frame.column_names
    for name in keep:
        if name not in there:
            raise ValueError(f"map_frame: keep names {name!r}, which is no column of the source: {', '.join(there)}")
    twice = next((name for name in keep if list(keep).count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"map_frame: keep names {twice!r} twice")
    made = [name for name in there if name in pipeline.output_names]
    if made:
        raise ValueError(
            f"the source has a column {made[0]!r}, and pipeline '{pipeline.name}' makes an output of that name; rename "
            f"the column, or leave it out: frame.exclude({made[0]!r})"
        )
    ours = [name for name in (*there, *pipeline.output_names) if name.startswith(OURS)]
    if ours:
        raise ValueError(f"the name {ours[0]!r} begins with '{OURS}', which is kept for columns in between; rename it")
    if on_error == "return" and FAILURE in (*keep, *wanted, *pipeline.input_names):
        raise ValueError(f"with on_error='return' the result has a column '{FAILURE}' of its own; rename yours")
