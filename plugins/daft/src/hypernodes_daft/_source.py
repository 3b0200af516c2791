"""What a pipeline reads: a dataframe, or files by path, glob or address."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["opened"]

_FORMATS = {
    "parquet": ("parquet", "pq"),
    "csv": ("csv",),
    "json": ("json", "jsonl", "ndjson"),
}
_PACKED = (".gz", ".zst", ".bz2", ".xz")


def opened(daft: Any, source: Any, format: str | None) -> Any:  # noqa: A002
    """The source as a lazy dataframe. Raises `TypeError` or `ValueError` for what is none."""
    if isinstance(source, daft.DataFrame):
        if format is not None:
            raise ValueError(f"format={format!r} says how files are read, and the source is a dataframe")
        return source
    paths = [source] if isinstance(source, str | os.PathLike) else source
    if not isinstance(paths, list | tuple) or not paths or not all(isinstance(one, str | os.PathLike) for one in paths):
        raise TypeError(
            "map_frame takes a Daft dataframe, or the path, glob or address of files, such as 'data/*.parquet', or a "
            f"list of them; not {source!r:.60}. Lists of dicts go to pipeline.map"
        )
    names = [os.fspath(one) for one in paths]
    found = {_format_of(name) for name in names} if format is None else {format}
    kind = found.pop() if len(found) == 1 else None
    if kind not in _FORMATS:
        raise ValueError(
            f"{', '.join(map(repr, names))}: the name does not say whether this is Parquet, CSV or JSON; give "
            "format='parquet', 'csv' or 'json'"
            if format is None
            else f"format={format!r}; give 'parquet', 'csv' or 'json'"
        )
    read = {"parquet": daft.read_parquet, "csv": daft.read_csv, "json": daft.read_json}[kind]
    return read(names)


def _format_of(name: str) -> str | None:
    plain = name.lower().rstrip("*")
    for ending in _PACKED:
        plain = plain.removesuffix(ending)
    suffix = plain.rpartition("/")[2].rpartition(".")[2]
    return next((kind for kind, suffixes in _FORMATS.items() if suffix in suffixes), None)
