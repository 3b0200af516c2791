"""Inputs as they are typed on a command line or stand in a file: JSON, or plain text by a node's annotation."""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Generator, Iterable
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

from hypernodes._cli_text import Abort, one_line, safe

if TYPE_CHECKING:
    from hypernodes._pipeline import Pipeline

__all__ = ["inputs_of", "rows_of", "value_of"]


def inputs_of(pipeline: Pipeline, given: Iterable[str]) -> dict[str, Any]:
    """The values of `--input NAME=VALUE` arguments."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise Abort(f"--input '{safe(text)}' is not NAME=VALUE")
        if name in values:
            raise Abort(f"--input gives '{name}' twice")
        values[name] = value_of(name, value, annotation_of(pipeline, name))
    return values


def value_of(name: str, text: str, annotation: object) -> Any:
    """What a text means for an input with this annotation.

    `str` takes it as it stands, unless it is a JSON string in its quotes. `Path` makes a path of it. Anything else
    reads it as JSON; what is no JSON is a plain string, unless the annotation is a type that rules that out.
    `X | None` is `X`, and `null` is None. Raises `Abort` when the text cannot be of that type.
    """
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        if text == "null" and len(members) < len(typing.get_args(annotation)):
            return None
        annotation = members[0] if len(members) == 1 else None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if annotation in (bool, int, float, list, tuple, dict, type(None)) or typing.get_origin(annotation) in (
            list,
            tuple,
            dict,
        ):
            raise Abort(
                f"input '{name}' takes {_label(annotation)}, and '{_short(text)}' is not that in JSON"
            ) from None
        value = text
    if annotation in (str, Path) and not isinstance(value, str):
        value = text
    if annotation is Path:
        return Path(value)
    if annotation is float and type(value) is int:
        return float(value)
    if annotation in (bool, int, float) and type(value) is not annotation:
        raise Abort(f"input '{name}' takes {_label(annotation)}, and '{_short(text)}' is not that in JSON")
    return value


def annotation_of(pipeline: Pipeline, name: str) -> object:
    """The annotation of an input at the first node that takes it; None when there is none to go by."""
    from hypernodes._nest import NestedPipeline
    from hypernodes._node import Node
    from hypernodes._resource import Resource

    for node in pipeline.graph.nodes:
        if all(parameter.name != name for parameter in node.parameters):
            continue
        if isinstance(node, Resource):
            continue
        if isinstance(node, Node):
            try:
                return typing.get_type_hints(node.func).get(name)
            except Exception:
                return None
        if isinstance(node, NestedPipeline) and name not in node.map_over:
            return annotation_of(typing.cast("Pipeline", node.pipeline), node.inner_names[name])
        return None
    return None


def rows_of(pipeline: Pipeline, source: str) -> Generator[dict[str, Any], None, None]:
    """The items of a .jsonl or .csv file, or of JSON Lines on standard input for `-`, read one at a time."""
    if source == "-":
        with open(sys.stdin.fileno(), encoding="utf-8-sig", closefd=False) as lines:
            yield from _json_lines(lines, "standard input")
        return
    kind = Path(source).suffix.lower()
    if kind not in (".jsonl", ".ndjson", ".csv"):
        raise Abort(f"--map '{safe(source)}' is not a .jsonl or .csv file, and not - for standard input")
    try:
        lines = open(source, encoding="utf-8-sig", newline="")  # noqa: SIM115
    except OSError as error:
        raise Abort(f"--map '{safe(source)}' cannot be read: {one_line(error)}") from error
    with lines:
        yield from _csv_rows(pipeline, lines, source) if kind == ".csv" else _json_lines(lines, source)


def _json_lines(lines: Iterable[str], source: str) -> Generator[dict[str, Any], None, None]:
    for number, line in enumerate(_decoded(lines, source), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Abort(f"line {number} of {source} is not JSON: {one_line(error)}") from None
        if not isinstance(row, dict):
            raise Abort(f'line {number} of {source} is not a JSON object such as {{"text": "a"}}: \'{_short(line)}\'')
        yield row


def _csv_rows(pipeline: Pipeline, lines: Iterable[str], source: str) -> Generator[dict[str, Any], None, None]:
    import csv

    reader = csv.DictReader(_decoded(lines, source), strict=True)
    try:
        annotations = {name: annotation_of(pipeline, name) for name in reader.fieldnames or ()}
        if len(annotations) != len(reader.fieldnames or ()):
            raise Abort(f"the heading of {source} names a column twice")
        for row in reader:
            if None in row or None in row.values():
                raise Abort(f"line {reader.line_num} of {source} has another number of fields than its heading")
            try:
                yield {name: value_of(name, text, annotations[name]) for name, text in row.items()}
            except Abort as problem:
                raise Abort(f"line {reader.line_num} of {source}: {problem}") from None
    except csv.Error as error:
        raise Abort(f"line {reader.line_num} of {source} is not CSV: {one_line(error)}") from error


def _decoded(lines: Iterable[str], source: str) -> Generator[str, None, None]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise Abort(f"{source} is not UTF-8: {one_line(error)}") from error


def _label(annotation: object) -> str:
    return annotation.__name__ if type(annotation) is type else str(annotation)


def _short(text: str) -> str:
    text = safe(text.strip())
    return text if len(text) <= 80 else f"{text[:80]}..."
