"""The corpus: the standard library of this very Python, read as text. Nothing of it is executed."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import sysconfig
import threading
import tokenize
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from hypernodes import node

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

ROOT = Path(sysconfig.get_path("stdlib"))

COMPILED = ("array", "builtins", "gc", "itertools", "math", "sys", "time", "zlib")
"""Modules written in C have no source to read; these may be imported without side effects."""

OUTSIDE = {
    *("__phello__", "antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "ntpath"),
    *("_pyrepl", "lib-dynload", "pydoc_data", "site-packages", "test", "tests", "this", "turtledemo"),
}
"""Folders and modules that document nothing a user would ask for."""

KNOWN_AS = {"_collections_abc": "collections.abc", "posixpath": "os.path"}
"""Where documentation and users name a module otherwise than the file does."""


def module_names(*prefixes: str) -> list[str]:
    """The modules to read, sorted; with prefixes only those, such as `"email"`, and what lies below them."""
    found = set(COMPILED)
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if OUTSIDE.isdisjoint(parts) and not any(part.startswith("config-") for part in parts):
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if parts and not any(part.startswith("_") for part in parts[:-1]) and _public(".".join(parts)):
                found.add(".".join(parts))
    wanted = tuple(f"{prefix}." for prefix in prefixes) or ("",)
    return sorted(name for name in found if f"{_public(name)}.".startswith(wanted))


@node(output_name="source")
def load(module: str) -> str | None:
    """The source text of one module; None for one that is compiled into Python."""
    place = ROOT.joinpath(*module.split("."))
    for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if file.exists():
            with tokenize.open(file) as text:
                return text.read()
    return None


_one_at_a_time = threading.Lock()


def _parsed(source: str) -> ast.Module:
    """The syntax tree. CPython up to 3.12 may raise a SystemError when two threads parse at once."""
    with _one_at_a_time:
        return ast.parse(source)


@node(output_name=("names", "docs"))
def outline(module: str, source: str | None) -> tuple[list[str], list[str]]:
    """The qualified names of everything public with a docstring in one module, and the docstrings."""
    if source is None:
        pairs = _in_compiled(module)
    else:
        known, tree = _public(module) or module, _parsed(source)
        pairs = chain(_in_source(known, tree), _handed_on(known, tree))
    docs: dict[str, str] = {}
    for name, doc in pairs:
        docs.setdefault(name, doc)  # of several definitions, such as a property's, the first tells most
    return list(docs), list(docs.values())


def _in_source(name: str, tree: ast.Module | Definition) -> Iterator[tuple[str, str]]:
    doc = ast.get_docstring(tree)
    if doc:
        yield name, doc
    if isinstance(tree, ast.Module | ast.ClassDef):
        for inner in _definitions(tree.body):
            if not inner.name.startswith("_"):
                yield from _in_source(f"{name}.{inner.name}", inner)


def _handed_on(name: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module takes from a private one and lists as its own: `email.utils.parsedate` is written elsewhere."""
    own = _listed(tree)
    for statement in tree.body if own else ():
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            source = load(statement.module) if statement.module.rpartition(".")[2].startswith("_") else None
            taken = own & {alias.name for alias in statement.names if alias.asname is None}
            for inner in _definitions(_parsed(source).body) if source is not None and taken else ():
                if inner.name in taken:
                    yield from _in_source(f"{name}.{inner.name}", inner)


def _listed(tree: ast.Module) -> set[str]:
    """The names in a module's `__all__`, where that is a plain list of strings."""
    names: set[str] = set()
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name("__all__")], value=ast.List(elements) | ast.Tuple(elements)):
                names |= {str(one.value) for one in elements if isinstance(one, ast.Constant)}
    return names


def _definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Classes and functions of a body, those under `if` and `try` included."""
    for statement in body:
        if isinstance(statement, Definition):
            yield statement
        elif isinstance(statement, ast.If | ast.Try):
            yield from _definitions(statement.body)
            yield from _definitions(statement.orelse)


def _in_compiled(module: str) -> Iterator[tuple[str, str]]:
    found = importlib.import_module(module)
    prefix = "" if module == "builtins" else f"{module}."
    yield module, inspect.getdoc(found) or module
    for name, value in sorted(vars(found).items()):
        doc = inspect.getdoc(value) if callable(value) and not name.startswith("_") else None
        if doc:
            yield f"{prefix}{name}", doc
        if doc and inspect.isclass(value) and not issubclass(value, BaseException):
            methods = sorted(vars(value).items())
            yield from (
                (f"{prefix}{name}.{method}", inspect.getdoc(code) or "")
                for method, code in methods
                if callable(code) and not method.startswith("_") and inspect.getdoc(code)
            )


def _public(module: str) -> str | None:
    """The name users know a module by; None for a private one. `_pydatetime` is where `datetime` is written."""
    known = KNOWN_AS.get(module, module.removeprefix("_py"))
    return None if known.rpartition(".")[2].startswith("_") else known


def python_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))
