"""The core is built in floors, and imports only point down. This file is the table.

A module may import its own floor and those below. Imports inside functions count; imports for type checkers do not.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "core" / "src" / "hypernodes"

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        *("_errors", "_specs", "_names", "_context", "_events", "_failure", "_pace", "_settings", "_whole", "_blobs"),
        *("_version", "_worker", "_cache", "_signing", "_entry", "_files", "_late", "_limits", "_batching"),
        *("_demand", "_scope", "_quota", "_machine", "_keep"),
    ),
    (
        *("_node", "_nest", "_types", "_graph", "_plan", "_compile", "_modes", "_digest", "_digest_kinds"),
        *("_digest_arrays", "_digest_arrow", "_origin", "_held", "_bytecode", "_library", "_class_parts"),
        *("_code", "_tally", "_progress_lines", "_logging", "_clock", "_typetext", "_gate", "_resource"),
        *("_answer", "_gated", "_counts", "_shared_counts", "_waiting", "_flow"),
    ),
    (
        *("_guard", "hookspecs", "_manifest", "_discovery", "_registry", "_pairing", "_observers", "_record"),
        *("_program", "_rows", "_task", "_table", "_runs", "_supply", "_layout", "_blocks", "_columns", "_blueprint"),
        *("_ledger", "_lineup", "_strategy", "_loops", "_calls", "_bridge", "_diagnose", "_pickling"),
        *("_bytes_cache", "_disk", "_memory", "_cache_address", "_replay", "_picture", "_batch_call"),
        *("_acquire", "_own_time", "_payload", "_shared", "_stoppable"),
    ),
    ("_memo", "_recall", "_engine", "_backend", "_places", "_hops"),
    (
        *(
            "_wire",
            "_schedule",
            "_frames",
            "_turns",
            "_line",
            "_drive",
            "_overlap",
            "_threads",
            "_executor",
            "_engines",
            "_local",
        ),
        *("_far", "_inline", "_arows", "_diagram"),
    ),
    ("_hub", "_lanes", "_execute", "_watch"),
    ("_pipeline", "_map_call", "_prepared", "_explain", "_why"),
    (
        *("__init__", "plugin", "testing", "__main__", "_cli", "_cli_list", "_cli_run", "_cli_text"),
        *("_cli_values", "_cli_cache"),
    ),
)
FLOOR_OF = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
PLAIN = 1  # up to this floor nothing but the standard library
DECLARED = {"pluggy", "cloudpickle"}


class Import(NamedTuple):
    line: int
    target: str  # the first module below `hypernodes`, or `__init__`; elsewhere the top package's name
    ours: bool
    late: bool  # inside a function


def module_of(file: Path) -> str:
    """The name in the table: a package's files all stand where the package stands."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def dotted(file: Path) -> str:
    parts = ("hypernodes", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    return name in FLOOR_OF or (SOURCE / f"{name}.py").exists() or (SOURCE / name).is_dir()


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports_of(source: str, name: str, is_package: bool = False) -> Iterator[Import]:
    """Every import in a module of this dotted name, except those meant for type checkers alone."""

    def resolve(line: int, module: str, late: bool) -> Import:
        first, *rest = module.split(".")
        if first != "hypernodes":
            return Import(line, first, ours=False, late=late)
        return Import(line, rest[0] if rest and is_module(rest[0]) else "__init__", ours=True, late=late)

    def walk(parent: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, ast.If) and is_type_checking(child.test):
                for other in child.orelse:
                    yield from walk(ast.Module(body=[other], type_ignores=[]), late)
            elif isinstance(child, ast.Import):
                yield from (resolve(child.lineno, alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parts = name.split(".")
                    here = parts[: len(parts) - child.level + is_package]
                    base = ".".join(filter(None, [*here, base]))
                names = [f"{base}.{alias.name}" if base == "hypernodes" else base for alias in child.names]
                yield from (resolve(child.lineno, module, late) for module in dict.fromkeys(names))
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, late or inside)

    yield from walk(ast.parse(source), late=False)


def imports_in(file: Path) -> list[Import]:
    return list(imports_of(file.read_text(encoding="utf-8"), dotted(file), file.name == "__init__.py"))


FILES = sorted(SOURCE.rglob("*.py"))
PLACED = [file for file in FILES if module_of(file) in FLOOR_OF]


def name_of(file: Path) -> str:
    return str(file.relative_to(SOURCE))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_has_its_floor(file: Path) -> None:
    assert module_of(file) in FLOOR_OF, (
        f"core/src/hypernodes/{module_of(file)} is on no floor: add it to FLOORS in tests/test_floors.py, "
        "on the lowest floor that its imports allow, and to the list of floors in CONTRIBUTING.md"
    )


@pytest.mark.parametrize("file", PLACED, ids=name_of)
def test_imports_only_point_down(file: Path) -> None:
    floor = FLOOR_OF[module_of(file)]
    for found in imports_in(file):
        if found.ours and found.target in FLOOR_OF:
            assert FLOOR_OF[found.target] <= floor, (
                f"{file.name}:{found.line} on floor {floor} imports {found.target} of floor {FLOOR_OF[found.target]}"
            )


@pytest.mark.parametrize("file", PLACED, ids=name_of)
def test_low_floors_stand_on_the_standard_library_alone(file: Path) -> None:
    floor = FLOOR_OF[module_of(file)]
    allowed = sys.stdlib_module_names | (DECLARED if floor > PLAIN else set())
    allowed |= {"pytest", "hypothesis"} if module_of(file) == "testing" else set()
    for found in imports_in(file):
        # above, a library that may be absent can be looked at inside a function, where its absence is handled
        if not found.ours and (floor <= PLAIN or not found.late):
            assert found.target in allowed, f"{file.name}:{found.line} on floor {floor} imports {found.target}"


def test_contributing_shows_the_same_floors() -> None:
    text = (SOURCE.parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = {
        int(floor): set(re.findall(r"`(\w+)`", names)) for floor, names in re.findall(r"\| (\d) \| (.*?) \|", text)
    }
    assert shown == {floor: set(modules) for floor, modules in enumerate(FLOORS)}


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {module: set() for module in FLOOR_OF}
    for file in PLACED:
        early = {found.target for found in imports_in(file) if found.ours and not found.late}
        arrows[module_of(file)] |= early - {module_of(file)}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as circle:
        pytest.fail("modules import each other: " + " > ".join(circle.args[1]))


# --- the finder itself ---


@pytest.mark.parametrize(
    ("source", "targets"),
    [
        ("from hypernodes._errors import GraphError", ["_errors"]),
        ("import hypernodes._errors", ["_errors"]),
        ("from hypernodes import _errors", ["_errors"]),
        ("from . import _errors", ["_errors"]),
        ("from ._errors import GraphError", ["_errors"]),
        ("from hypernodes import Pipeline", ["__init__"]),
        ("import hypernodes", ["__init__"]),
        ("def f():\n    from hypernodes._specs import EngineSpec", ["_specs"]),
        ("class A:\n    async def f(self):\n        import hypernodes._specs", ["_specs"]),
        ("if TYPE_CHECKING:\n    from hypernodes._errors import GraphError", []),
        ("if typing.TYPE_CHECKING:\n    import hypernodes\nelse:\n    import hypernodes._errors", ["_errors"]),
        ("try:\n    import pluggy\nexcept ImportError:\n    import hypernodes._errors", ["_errors"]),
    ],
)
def test_the_finder_sees_imports_in_every_form(source: str, targets: list[str]) -> None:
    assert [found.target for found in imports_of(source, "hypernodes._x") if found.ours] == targets


@pytest.mark.parametrize(
    ("source", "name", "is_package", "target"),
    [
        ("from .. import _errors", "hypernodes.testing.places", False, "_errors"),
        ("from .._errors import GraphError", "hypernodes.testing.places", False, "_errors"),
        ("from .._errors import GraphError", "hypernodes.testing", True, "_errors"),
        ("from .places import Place", "hypernodes.testing", True, "testing"),
    ],
)
def test_the_finder_resolves_relative_imports(source: str, name: str, is_package: bool, target: str) -> None:
    assert [found.target for found in imports_of(source, name, is_package)] == [target]
