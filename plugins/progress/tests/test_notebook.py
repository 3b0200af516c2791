"""A run in a notebook: what is displayed, by the protocol of IPython's `display`."""

from __future__ import annotations

import itertools
import sys
import threading
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from event_story import Story

from hypernodes import ProgressCallback
from hypernodes_progress._notebook import NotebookView, html_of
from hypernodes_progress._picture import Note, Row


class Notebook:
    """Keeps what would stand below the cell; `shown` is set whenever that changes."""

    def __init__(self) -> None:
        self.cells: list[dict[str, str]] = []
        self.changed = threading.Condition()

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Notebook:
        assert raw
        assert display_id
        self.update(bundle, raw=True)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        with self.changed:
            self.cells.append(bundle)
            self.changed.notify_all()

    def until(self, text: str) -> str:
        with self.changed:
            assert self.changed.wait_for(lambda: text in self.cells[-1]["text/html"], 30), self.cells[-1]
            return self.cells[-1]["text/html"]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """As in a notebook's kernel: IPython is loaded and its shell has a kernel."""
    made = Notebook()
    ipython, displays = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    displays.display = made.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return made


def test_a_table_is_updated_in_place_and_stays(notebook: Notebook) -> None:
    story = Story(ProgressCallback(), "corpus", kind="map", total=4)
    assert isinstance(story.tell, NotebookView)
    with story.start() as root:
        root.item(0).end()
        root.item(1).end("error", "ValueError")
        page = notebook.until("2/4")
        assert "1 failed" in page
        assert "width:50.0%" in page
    assert "corpus: ended ok in " in notebook.cells[-1]["text/html"]
    assert notebook.cells[-1]["text/plain"].startswith("corpus: ended ok in ")
    assert "hypernodes-progress" not in [thread.name for thread in threading.enumerate()]


def test_nothing_is_displayed_twice(notebook: Notebook) -> None:
    with Story(ProgressCallback(), "corpus", kind="map", total=4).start() as root:
        root.item(0).end()
        notebook.until("1/4")
    pages = [cell["text/html"] for cell in notebook.cells]
    assert all(before != after for before, after in itertools.pairwise(pages))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "'><img src=x onerror=y>", '" onload="z', "&lt;b&gt;"]
)
def test_names_never_become_markup(notebook: Notebook, hostile: str) -> None:
    story = Story(ProgressCallback(), hostile, kind="map", total=2)
    with story.start() as root, root.item(0) as item:
        item.nested(hostile).node("n", place=hostile).end()
    html = notebook.cells[-1]["text/html"]
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.names == {"div", "table", "tr", "td", "span"}
    assert tags.attributes <= {"style", "role", "aria-valuenow", "aria-valuemin", "aria-valuemax"}


def test_a_row_says_all_that_a_terminals_row_says() -> None:
    row = Row(
        "failed", "main", 1, frozenset(), False, 0.25, "1/4", "2.0/s", "0:03 left", "0:01", (Note("1 failed", "bad"),)
    )
    page = html_of([row])
    for text in ("main", "width:25.0%", "1/4", "2.0/s", "0:03 left", "0:01", "1 failed", "✗"):
        assert text in page


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    story = Story(ProgressCallback(), "corpus")
    assert not isinstance(story.tell, NotebookView)


def test_the_real_ipython_takes_what_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    quiet = Config({"HistoryManager": {"enabled": False}})  # a history has a file and a thread
    shell = InteractiveShell.instance(config=quiet)
    try:
        monkeypatch.setattr(shell, "kernel", object(), raising=False)
        with capture_output() as captured, Story(ProgressCallback(), "corpus", kind="map", total=1).start() as root:
            root.item(0).end()
        first, *others = captured.outputs
        assert "0/1" in first._repr_html_()
        assert "corpus: ended ok in " in others[-1]._repr_html_()
    finally:
        InteractiveShell.clear_instance()
