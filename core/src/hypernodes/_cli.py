"""The command line: what is installed and what fits together, and running a pipeline over a file of items.

Results alone go to standard output; errors, and whatever pipelines and plugins print, go to standard error.
Exit codes: 0 done, 1 the run or an item of it failed, 2 wrong usage, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from hypernodes._cli_text import Abort, ReaderGone, safe
from hypernodes._version import __version__

__all__ = ["main"]

DONE, FAILED, USAGE, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are `sys.argv[1:]` unless given."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return DONE
    try:
        with _results() as out:
            return _call(chosen, out)
    except ReaderGone:
        return UNREAD
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED)
    except Abort as problem:
        _trace(chosen, problem.__cause__)
        return _report(str(problem), problem.code)
    except Exception as problem:
        from hypernodes._cli_text import code_of, sentence

        _trace(chosen, problem)
        return _report(sentence(problem), code_of(problem))


def _call(chosen: argparse.Namespace, out: TextIO) -> int:
    if chosen.command in ("run", "explain") or getattr(chosen, "what", "") == "why":
        from hypernodes import _cli_run

        command = chosen.command if chosen.command != "cache" else "why"
        return {"run": _cli_run.run, "explain": _cli_run.explain, "why": _cli_run.why}[command](chosen, out)
    if chosen.command == "cache":
        from hypernodes import _cli_cache

        return {"stats": _cli_cache.stats, "clear": _cli_cache.clear, "verify": _cli_cache.verify}[chosen.what](
            chosen, out
        )
    from hypernodes import _cli_list

    return _cli_list.show(chosen.command, chosen.json, out)


def _report(problem: str, code: int) -> int:
    sys.stderr.write(f"hypernodes: {problem}\n")
    return code


def _trace(chosen: argparse.Namespace, problem: BaseException | None) -> None:
    if chosen.traceback and problem is not None:
        import traceback

        sys.stderr.write(safe("".join(traceback.format_exception(problem))))


@contextmanager
def _results() -> Iterator[TextIO]:
    """Standard output for results alone: `print`, and file descriptor 1 of child processes, go to standard error."""
    now: TextIO = sys.stdout
    if now is not sys.__stdout__:  # somebody else, such as a test, has put a stream of their own there
        with redirect_stdout(sys.stderr):
            yield now
        return
    now.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    # A lone surrogate in a JSON string becomes \udc80, which is how JSON writes it.
    out = open(os.dup(kept), "w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115
    try:
        with redirect_stdout(sys.stderr):
            yield out
    finally:
        try:
            out.close()
        except BrokenPipeError:
            raise ReaderGone from None
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _parser() -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--traceback", action="store_true", help="show tracebacks of errors")
    parser = argparse.ArgumentParser(
        prog="hypernodes", description="Write functions for one item, compose them, choose where and how they run."
    )
    parser.add_argument("--version", action="version", version=f"hypernodes {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in (
        ("engines", "the installed engines, and which backends run them"),
        ("backends", "the installed backends, and which engines they run"),
        ("plugins", "the installed plugins, and which of them failed to load"),
        ("doctor", "everything about this installation, with tracebacks; exit code 1 if something is broken"),
    ):
        listing = commands.add_parser(name, help=summary, description=summary, parents=[everywhere])
        listing.add_argument("--json", action="store_true", help="for programs")

    summary = "say for every node where and how it would run"
    explain = commands.add_parser("explain", help=summary, description=summary, parents=[everywhere])
    _add_target(explain)
    explain.add_argument("--inputs", metavar="A,B", help="the names of the inputs that would be given")
    explain.add_argument("--output", metavar="NAME", action="append", help="only what this output needs; repeatable")

    summary = "run a pipeline once, or over every item of a file"
    run = commands.add_parser("run", help=summary, description=summary, parents=[everywhere])
    _add_target(run)
    _add_input(run, "an input, as JSON or as plain text; with --map, one that all items share; repeatable")
    run.add_argument(
        "--map", metavar="FILE", help="one run an item of this .jsonl or .csv file; - is standard input, as JSON Lines"
    )
    run.add_argument("--output", metavar="NAME", action="append", help="only this output; repeatable")
    run.add_argument(
        "--backend", metavar="NAME[:ENGINE]", help="instead of the pipeline's own, for example local:threaded"
    )
    run.add_argument("--cache", metavar="PATH", help="keep results in this cache, instead of the pipeline's own")
    run.add_argument("--progress", action="store_true", help="show on standard error how far it is")
    run.add_argument("--workers", metavar="N", type=_positive, help="how much may run at once; goes with --backend")
    run.add_argument(
        "--on-error",
        choices=("raise", "return"),
        default="raise",
        help="with --map: stop at the first failing item, or write an error in its place and go on",
    )
    run.add_argument("--out", metavar="FILE", help="write results here, not to standard output")
    _add_cache(commands, everywhere)
    return parser


def _add_cache(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    summary = "look after a cache: what is in it, what is wrong with it, and dropping entries"
    cache = commands.add_parser("cache", help=summary, description=summary)
    kinds = cache.add_subparsers(dest="what", metavar="COMMAND", required=True)
    for name, summary in (
        ("stats", "how many entries there are, how large they are, and of which nodes"),
        ("clear", "drop entries"),
        ("verify", "read every entry and report those that are damaged; exit code 1 if any remains"),
    ):
        kind = kinds.add_parser(name, help=summary, description=summary, parents=[everywhere])
        kind.add_argument(
            "address", metavar="PATH", help="the cache's folder, or an address such as s3://bucket/prefix"
        )
        kind.add_argument("--json", action="store_true", help="for programs")
        if name == "clear":
            kind.add_argument(
                "--older-than", metavar="AGE", type=_age, help="only what was not used for 45s, 30m, 12h, 7d"
            )
            kind.add_argument("--node", metavar="NAME", help="only results of this node")
            kind.add_argument("--yes", action="store_true", help="do not ask")
        if name == "verify":
            kind.add_argument("--delete", action="store_true", help="drop damaged entries")
    summary = "say for every node of a call whether its result is kept, and if not, what is new in its key"
    why = kinds.add_parser("why", help=summary, description=summary, parents=[everywhere])
    _add_target(why)
    _add_input(why, "an input, as JSON or as plain text; repeatable")
    why.add_argument("--output", metavar="NAME", action="append", help="only what this output needs; repeatable")
    why.add_argument("--cache", metavar="PATH", help="look into this cache, instead of the pipeline's own")


def _add_input(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--input", metavar="NAME=VALUE", action="append", default=[], help=summary)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="MODULE:PIPELINE", help="the pipeline, for example shop.jobs:encode")
    parser.add_argument("--file", action="store_true", help="the part before the colon is a path to a .py file")
    parser.add_argument("--app-dir", metavar="DIR", help="look for modules here too; nowhere else is added")


def _age(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not an age such as 45s, 30m, 12h or 7d")
    return float(number) * units[unit]


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 up")
    return int(text)
