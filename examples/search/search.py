"""A search engine over the documentation of Python's standard library.

    python search.py "how do I parse dates"
    python search.py "how do I parse dates" --backend local:multiprocess

Functions for one module, one docstring, one query; pipelines put them together; `--backend` says where and how
they run.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus import load, module_names, outline, python_version
from ranking import Hit, make_index, rank
from text import clean, lexicon, summarize, tokenize

from hypernodes import HypernodesError, LocalBackend, Pipeline
from hypernodes.plugin import Backend
from hypernodes.testing import SubprocessBackend

document = Pipeline(nodes=[lexicon, clean, summarize, tokenize], name="document")

each_document = document.as_node(
    input_mapping={"names": "name", "docs": "doc"},
    output_mapping={"summary": "summaries", "terms": "terms"},
    map_over=["names", "docs"],
)
module = Pipeline(nodes=[load, outline, each_document], name="module")

each_module = module.as_node(
    input_mapping={"modules": "module"},
    map_over="modules",
)
search = Pipeline(nodes=[lexicon, each_module, make_index, rank], name="search")

PARTS = ["names", "summaries", "terms"]
"""What `module` makes for the index."""


class Answer(NamedTuple):
    hits: list[Hit]
    modules: int
    documents: int
    seconds: float


def answer(
    query: str,
    *,
    backend: Backend,
    modules: Sequence[str],
    top: int = 5,
    cache: str | None = None,
    progress: Callable[[int, int], None] = lambda read, documents: None,
) -> Answer:
    """Read the modules and answer the query. `progress` is told how many modules are read and documents found.

    With a folder as `cache` what was read and indexed once is not read again.
    """
    begun = time.perf_counter()
    shelves: dict[str, list[Any]] = {part: [] for part in PARTS}
    documents = 0
    with backend:
        reading = module.with_options(backend=backend, cache=cache)
        results = reading.map_iter(({"module": one} for one in modules), output_nodes=PARTS)
        for read, found in enumerate(results, start=1):
            for part in PARTS:
                shelves[part].append(found[part])
            documents += len(found["names"])
            progress(read, documents)
        # `search` would read all modules itself; what is already there is given to it, and only the rest runs.
        answering = search.with_options(backend=backend, cache=cache)
        hits = answering.run(shelves, query=query, top=top, output_name="hits")
    return Answer(hits, len(modules), documents, time.perf_counter() - begun)


def backend_of(text: str) -> Backend:
    """The backend that `--backend` names: a place, or a place and an engine with a colon between them."""
    place, _, engine = text.partition(":")
    if place == "local":
        return LocalBackend(engine=engine or None)
    if place == "subprocess":
        # A fresh interpreter knows installed packages alone: like any other machine it must be given this folder.
        return SubprocessBackend(engine=engine or None, paths=(str(Path(__file__).resolve().parent),))
    raise argparse.ArgumentTypeError(
        f"there is no place '{place}'; give local, local:threaded, local:multiprocess or subprocess"
    )


def positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number above zero")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Search the documentation of Python's standard library.")
    parser.add_argument("query", nargs="+", help="what to look for, in plain words")
    parser.add_argument("--backend", default="local", help="local, local:threaded, local:multiprocess, subprocess, ...")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="how many results (default: 5)")
    parser.add_argument("--cache", metavar="FOLDER", help="keep what was read here, for the next search")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="MODULE", help="read these modules and those below them"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a docstring may hold what the terminal cannot show
    parser = arguments()
    chosen = parser.parse_intermixed_args(argv)
    query = " ".join(chosen.query).strip()
    if not query:
        parser.error("the query is empty; say in a few words what you look for")
    modules = module_names(*chosen.only)
    if not modules:
        parser.error(f"no module of the standard library is called {' or '.join(map(repr, chosen.only))}")
    try:
        backend = backend_of(chosen.backend)
    except (argparse.ArgumentTypeError, HypernodesError) as error:
        parser.error(f"--backend {chosen.backend}: {error}")
    line = ProgressLine(len(modules))
    try:
        found = answer(query, backend=backend, modules=modules, top=chosen.top, cache=chosen.cache, progress=line.show)
    except KeyboardInterrupt:
        line.clear()
        print("stopped", file=sys.stderr)
        return 130
    line.clear()
    print_answer(query, found)
    print(search.with_backend(backend).explain(output_name="hits"))
    print("\nThe same file elsewhere: --backend local:threaded, --backend local:multiprocess, --backend subprocess.")
    return 0 if found.hits else 1


class ProgressLine:
    """One line at the bottom of a terminal that is written over; nothing where there is no terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.live = sys.stderr.isatty()

    def show(self, read: int, documents: int) -> None:
        if self.live:
            filled = 30 * read // self.total
            bar = "━" * filled + "╌" * (30 - filled)
            print(f"\r{bar} {read}/{self.total} modules, {documents} docstrings", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def print_answer(query: str, found: Answer) -> None:
    bold, dim, plain = (
        ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "", "")
    )
    width = min(shutil.get_terminal_size().columns, 110)
    print(
        f"{found.documents} docstrings in {found.modules} modules of Python {python_version()}, "
        f"read, indexed and searched in {found.seconds:.1f} s\n"
    )
    if not found.hits:
        print(f"nothing found: no word of {query!r} occurs in them\n")
    for place, hit in enumerate(found.hits, start=1):
        print(f"{place:3}. {bold}{hit.name}{plain}  {dim}{hit.score:.2f}{plain}")
        print(textwrap.indent(textwrap.shorten(hit.summary, width - 5, placeholder=" ..."), " " * 5))
    print()


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
