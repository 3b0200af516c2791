"""What the command line writes: results as JSON, tables, and errors in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

__all__ = ["Abort", "ReaderGone", "code_of", "emit", "json_of", "safe", "sentence", "table"]

_LONGEST = 10_000


class Abort(Exception):
    """Ends the command with this sentence and exit code; `__cause__` is what --traceback shows."""

    def __init__(self, problem: str, code: int = 2) -> None:
        super().__init__(problem)
        self.code = code


class ReaderGone(Exception):
    """Whoever read standard output has closed it; there is nobody left to tell."""


def emit(out: TextIO, text: str) -> None:
    """Write a line and pass it on at once."""
    try:
        out.write(text + "\n")
        out.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def json_of(values: dict[str, Any], where: str) -> str:
    """One line of JSON. Raises `Abort` naming the output at fault; `where` says which item it belongs to."""
    parts = []
    for name, value in values.items():
        try:
            parts.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
        except (TypeError, ValueError, RecursionError) as error:
            others = ", ".join(f"'{other}'" for other in values if other != name)
            raise Abort(
                f"output '{name}'{where} cannot be written as JSON ({type(value).__qualname__}: {one_line(error)}); "
                f"choose others with --output" + (f": {others}" if others else ""),
                code=1,
            ) from error
    return "{" + ", ".join(parts) + "}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells in aligned columns, the first row being the heading."""
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def safe(text: str) -> str:
    """Text with its control characters escaped, so that it can only be read and not steer a terminal."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii") for char in text
    )


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, cut to a length that logs can bear."""
    try:
        lines = str(error).splitlines()
    except Exception as unreadable:
        lines = [f"its message cannot be read ({type(unreadable).__name__})"]
    text = safe("; ".join(line.strip() for line in lines if line.strip()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def sentence(error: BaseException) -> str:
    """An error as one sentence: its type if it is the user's own, its message, and where it happened."""
    from hypernodes._errors import HypernodesError

    said = one_line(error)
    if not isinstance(error, HypernodesError):
        said = f"{type(error).__qualname__}: {said}" if said else type(error).__qualname__
    notes = [safe(note) for note in getattr(error, "__notes__", ()) if "\n" not in note]
    return "; ".join([said, *notes])


def code_of(error: BaseException) -> int:
    """2 for a mistake in what was asked for, found before anything ran; 1 for everything else."""
    from hypernodes import _errors

    mistakes = (
        _errors.UnknownInputError,
        _errors.UnknownOutputError,
        _errors.MissingInputError,
        _errors.UnknownNameError,
        _errors.IncompatibleEngineError,
    )
    return 2 if isinstance(error, mistakes) else 1
