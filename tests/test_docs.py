"""The documentation is true: its code runs, its commands work, its names and links exist.

A page is one program. Its python blocks run in the order of the page, in one namespace, as a script in an interpreter
of its own; blank lines stand for the prose, so that a traceback shows the line of the page. A block with
`title="name"` is a file: it is written into the page's folder before anything runs. A `pyproject.toml` among them
counts as installed. In bash blocks the lines that begin with `hypernodes` or `pytest` are run there afterwards;
a `text output` block after them is what they print.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hypernodes import hookspecs

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

FENCE = re.compile(r"^```(.*)$")
TITLE = re.compile(r'title="([^"]+)"')
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
COMMANDS = {
    "hypernodes": [sys.executable, "-m", "hypernodes"],
    "pytest": [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error"],
}


class Block(NamedTuple):
    info: str
    line: int  # of its first line of content, counted from 1
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def title(self) -> str | None:
        found = TITLE.search(self.info)
        return found and found[1]


def blocks_of(text: str) -> Iterator[Block]:
    inside: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and inside is None:
            inside, lines = (fence[1].strip(), number + 1), []
        elif fence and inside is not None:
            yield Block(*inside, "\n".join(lines) + "\n")
            inside = None
        elif inside is not None:
            lines.append(line)
    assert inside is None, f"the block that begins in line {inside} never ends"


def script_of(blocks: list[Block]) -> str:
    """The page's python blocks as one script in which each line has the number that it has on the page."""
    lines: list[str] = []
    for block in blocks:
        if block.language == "python" and block.title is None:
            lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    for entry in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(entry, ast.Try) and not entry.orelse and entry.handlers:
            # A block that shows an error is wrong when there is none.
            last = entry.body[-1].end_lineno
            assert last is not None
            lines[last - 1] += f'; raise AssertionError("line {last} raised nothing")'
    return "\n".join([*lines, ""])


def write_files(blocks: list[Block], folder: Path) -> None:
    for block in blocks:
        if block.title is not None:
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    if (folder / "pyproject.toml").exists():
        pretend_installed(folder)


def pretend_installed(folder: Path) -> None:
    """Write what an installer writes about the page's package, beside its sources."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    info = folder / "src" / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = [
        "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(groups) + "\n", encoding="utf-8")


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(folder / "src")
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def commands_of(block: Block) -> list[list[str]]:
    words = [shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines()]
    return [[*COMMANDS[line[0]], *line[1:]] for line in words if line and line[0] in COMMANDS]


def name_of(page: Path) -> str:
    return page.name


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_every_page_runs(page: Path, tmp_path: Path) -> None:
    blocks = list(blocks_of(page.read_text(encoding="utf-8")))
    write_files(blocks, tmp_path)
    script = script_of(blocks)
    if script.strip():
        (tmp_path / f"{page.stem.replace('-', '_')}_md.py").write_text(script, encoding="utf-8")
        ran = call([sys.executable, "-W", "error", f"{page.stem.replace('-', '_')}_md.py"], tmp_path)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    printed = ""
    for block in blocks:
        if block.language == "bash":
            printed = ""
            for command in commands_of(block):
                done = call(command, tmp_path)
                expected = 1 if "# exit code 1" in block.text else 0
                assert done.returncode == expected, f"{shlex.join(command[2:])}\n{done.stdout}{done.stderr}"
                printed += done.stdout
        elif block.info == "text output":
            assert printed == block.text


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name} links to {link}, which is no heading there"


def test_every_page_is_reached_from_the_index() -> None:
    linked = set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= linked


def test_every_hook_has_a_heading_with_its_arguments() -> None:
    source = ast.parse(Path(hookspecs.__file__).read_text(encoding="utf-8"))
    functions = {entry.name: entry for entry in source.body if isinstance(entry, ast.FunctionDef)}
    expected = [f"{name}({', '.join(arg.arg for arg in functions[name].args.args)})" for name in hookspecs.NAMES]
    shown = re.findall(r"^## `(.*)`$", (DOCS / "hooks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == expected


@pytest.mark.parametrize("module", ["hypernodes", "hypernodes.plugin", "hypernodes.testing"])
def test_every_public_name_is_in_the_reference(module: str) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## `{module}`\n")[2].partition("\n## ")[0]
    names: list[str] = importlib.import_module(module).__all__
    missing = [name for name in names if not re.search(rf"`{re.escape(name)}[`(]", section)]
    assert not missing, f"docs/api.md says nothing of {', '.join(missing)} under {module}"


def test_every_test_that_a_guarantee_names_exists() -> None:
    named = re.findall(r"`([\w/.-]+\.py)`::`(\w+)`", (DOCS / "guarantees.md").read_text(encoding="utf-8"))
    assert named
    for path, name in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"\bdef {name}\(", source), f"docs/guarantees.md names {path}::{name}"


def test_the_error_tree_of_the_docs_is_the_one_of_the_code() -> None:
    from hypernodes import _errors

    assert _errors.__doc__ is not None
    tree = _errors.__doc__.split("\n\n")[1]
    names = re.findall(r"\b\w+Error\b", tree)
    shown = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert [name for name in names if name not in shown] == []


# --- the reader of pages itself ---


def test_blocks_keep_the_line_numbers_of_their_page() -> None:
    page = 'one\n\n```python\na = 1\n```\n\n```python title="b.py"\nnot this\n```\ntext\n```python\nassert a\n```\n'
    blocks = list(blocks_of(page))
    assert script_of(blocks).splitlines() == ["", "", "", "a = 1", *[""] * 7, "assert a"]
    assert [block.title for block in blocks] == [None, "b.py", None]


@pytest.mark.parametrize("code", ["assert 1 == 2", "try: pass\nexcept ValueError:\n    pass"])
def test_a_wrong_block_fails(code: str, tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text(f"# Wrong\n\n```python\n{code}\n```\n")
    (tmp_path / "run").mkdir()
    with pytest.raises(AssertionError, match="line 4"):
        test_every_block_of_every_page_runs(page, tmp_path / "run")
