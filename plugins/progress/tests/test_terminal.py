"""What stands on a real terminal while a run goes on, and what is left there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Terminal

    Start = Callable[..., Terminal]

pytestmark = pytest.mark.slow

CORPUS = """
@node(output_name="words")
def split(text: str) -> list:
    return text.split()

@node(output_name="length")
def measure(word: str) -> int:
    if word == "bad":
        raise ValueError("sesame")
    if word == "gate":
        wait()
    return len(word)

@node(output_name="total")
def add(lengths: list) -> int:
    return sum(lengths)

each = Pipeline([measure], name="each").as_node({"words": "word"}, {"length": "lengths"}, map_over="words")
corpus = Pipeline([split, each, add], name="corpus", callbacks=[ProgressCallback()])
"""


def test_a_map_shows_its_items_those_of_nested_maps_and_its_failures(terminal: Start) -> None:
    program = CORPUS + 'corpus.map([{"text": t} for t in ("a b", "a bad", "a b c", "gate x")], on_error="return")\n'
    shown = terminal(program)
    lines = shown.until(r"^\S corpus .* 3/4 .* 1 failed  1 worker on local:sequential$", r"^└─ \S each ")
    assert len(lines) == 2
    assert shown.colour_of("1 failed") == "red"
    assert shown.screen.cursor.hidden
    shown.go_on()
    [left] = shown.end()
    assert left.startswith("✓ corpus: ended ok in ")
    assert ", 4 items, " in left
    assert left.endswith(", 1 failed, 1 worker on local:sequential")
    assert not shown.screen.cursor.hidden
    assert shown.process.returncode == 0
    assert b"sesame" not in shown.raw


def test_a_run_of_one_item_shows_its_nodes_as_they_run(terminal: Start) -> None:
    program = """
    @node(output_name="a")
    def read(x: int) -> int:
        return x

    @node(output_name="b")
    def hold(a: int) -> int:
        wait()
        return a

    @node(output_name="c")
    def write(b: int) -> int:
        return b

    prepare = Pipeline([read], name="prepare")
    Pipeline([prepare, hold, write], name="main", callbacks=[ProgressCallback()]).run(x=1)
    """
    shown = terminal(program)
    lines = shown.until(" main .* 1/3 ", "^├─ ✓ prepare", "^│  └─ ✓ read", "^├─ [⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] hold", "^└─ · write$")
    assert len(lines) == 5
    shown.go_on()
    [left] = shown.end()
    assert left.startswith("✓ main: ended ok in ")


def test_prints_stand_above_the_display_as_they_were_written(terminal: Start) -> None:
    program = """
    import logging
    logging.basicConfig(format="%(message)s")
    before = sys.stdout, sys.stderr
    story = Story(ProgressCallback(), "main", kind="map", total=3)
    with story.start() as root:
        first = root.item(0)
        wait()
        print("[red]one[/red] 17 " + "x" * 120)
        print("two", file=sys.stderr)
        kept = sys.stdout
        print("prompt> ", end="", flush=True)
        wait()
        first.end()
    assert (sys.stdout, sys.stderr) == before
    print("after", file=kept)
    print(threading.enumerate() == [threading.main_thread()])
    """
    shown = terminal(program)
    shown.until("0/3")
    shown.go_on()
    lines = shown.until("^prompt>$", " main .* 0/3 ")
    expected = "[red]one[/red] 17 " + "x" * 120
    assert lines[:4] == [expected[:100], expected[100:], "two", "prompt>"]
    assert len(lines) == 5
    shown.go_on()
    lines = shown.end()
    assert lines[:4] == [expected[:100], expected[100:], "two", "prompt>"]
    assert lines[4].startswith("✓ main: ended ok in ")
    assert lines[5:] == ["after", "True"]


def test_what_a_program_writes_to_a_file_stays_out_of_the_terminal(terminal: Start) -> None:
    program = """
    sys.stdout = open("out.txt", "w")
    story = Story(ProgressCallback(), "main", kind="map", total=3)
    with story.start() as root:
        first = root.item(0)
        wait()
        print("into the file")
        first.end()
    sys.stdout.close()
    sys.stdout = sys.__stdout__
    with open("out.txt") as written:
        print(written.read(), end="")
    """
    shown = terminal(program)
    shown.until("0/3")
    shown.go_on()
    summary, written = shown.end()
    assert summary.startswith("✓ main")
    assert written == "into the file"


def test_an_exception_prints_below_a_closed_display(terminal: Start) -> None:
    program = CORPUS + 'wait()\ncorpus.map([{"text": "gate"}, {"text": "a bad"}])\n'
    shown = terminal(program, columns=140, rows=60)
    shown.go_on()
    shown.until("0/2")
    shown.go_on()
    lines = shown.end()
    assert lines[0].startswith("✗ corpus: ended with ValueError in ")
    assert "2 of 2 items" in lines[0]
    assert "1 failed" in lines[0]
    assert lines[1] == "Traceback (most recent call last):"
    assert sum("corpus: ended" in line for line in lines) == 1
    assert not shown.screen.cursor.hidden
    assert shown.process.returncode == 1


def test_ctrl_c_closes_the_display_and_brings_back_the_cursor(terminal: Start) -> None:
    program = CORPUS + 'corpus.map([{"text": "a b"}, {"text": "gate"}])\n'
    shown = terminal(program, rows=90)
    shown.until("1/2")
    assert shown.screen.cursor.hidden
    shown.interrupt()
    lines = shown.end()
    assert lines[0].startswith("■ corpus: stopped after ")
    assert "1 of 2 items" in lines[0]
    assert lines[-1] == "KeyboardInterrupt"
    assert not shown.screen.cursor.hidden


def test_a_run_that_nobody_ends_leaves_the_terminal_as_it_was(terminal: Start) -> None:
    program = """
    story = Story(ProgressCallback(), "main", kind="map", total=3)
    item = story.start().item(0)
    wait()
    """
    shown = terminal(program)
    shown.until("0/3")
    shown.go_on()
    assert shown.end() == []
    assert not shown.screen.cursor.hidden
    assert shown.process.returncode == 0


def test_several_runs_at_once_share_the_screen(terminal: Start) -> None:
    program = """
    callback = ProgressCallback()
    stories = [Story(one, name, kind="map", total=9) for one, name in
               ((callback, "left"), (callback, "right"), (ProgressCallback(), "other"))]
    roots = [story.start() for story in stories]
    for root in roots:
        root.item(0).end()
    wait()
    roots[1].end()
    wait()
    roots[0].end()
    roots[2].end("stopped")
    """
    shown = terminal(program)
    assert len(shown.until(" left .* 1/9 ", " right .* 1/9 ", " other .* 1/9 ")) == 3
    shown.go_on()
    assert len(shown.until("right: ended ok", r"^\S left ", r"^\S other ")) == 3
    shown.go_on()
    assert [line.split(" ")[1] for line in shown.end()] == ["right:", "left:", "other:"]


def test_an_endless_map_shows_what_is_done_and_no_end(terminal: Start) -> None:
    program = """
    import itertools
    @node(output_name="y")
    def double(x: int) -> int:
        return 2 * x
    endless = Pipeline([double], name="endless", callbacks=[ProgressCallback()])
    stream = endless.map_iter({"x": x} for x in itertools.count())
    for _ in range(50):
        next(stream)
    wait()
    stream.close()
    """
    shown = terminal(program)
    [line] = shown.until(r" endless +\d+ ")  # how many are done, with no "/total"
    assert "left" not in line
    shown.go_on()
    [left] = shown.end()
    assert left.startswith("■ endless: stopped after ")


def test_a_run_shorter_than_the_delay_draws_nothing_but_its_last_line(terminal: Start) -> None:
    program = """
    import hypernodes_progress._screen as screen
    screen.DELAY = 3600.0
    @node(output_name="y")
    def double(x: int) -> int:
        return 2 * x
    Pipeline([double], name="short", callbacks=[ProgressCallback()]).run(x=1)
    """
    shown = terminal(program)
    [left] = shown.end()
    assert left.startswith("✓ short: ended ok in ")
    assert b"\x1b[?25l" not in shown.raw


def test_a_dumb_terminal_gets_plain_lines(terminal: Start) -> None:
    shown = terminal(CORPUS + 'corpus.map([{"text": "a b"}])\n', TERM="dumb")
    started, ended = shown.end()
    assert started == "corpus: started, 1 item"
    assert ended.startswith("corpus: ended ok in ")
    assert b"\x1b" not in shown.raw


def test_no_color_is_heeded(terminal: Start) -> None:
    program = CORPUS + 'corpus.map([{"text": "a bad"}, {"text": "gate"}], on_error="return")\n'
    shown = terminal(program, NO_COLOR="1")
    shown.until("1 failed")
    assert shown.colour_of("1 failed") == "default"
    shown.go_on()
    shown.end()


def test_force_color_makes_no_terminal_of_a_file(terminal: Start) -> None:
    program = """
    import io
    sys.stderr, kept = io.StringIO(), sys.stderr
    with Story(ProgressCallback(), "main", kind="map", total=3).start():
        pass
    print(sys.stderr.getvalue(), file=kept)
    """
    shown = terminal(program, FORCE_COLOR="1")
    started, ended = shown.end()
    assert started == "main: started, 3 items"
    assert ended.startswith("main: ended ok in ")


@pytest.mark.parametrize(("columns", "rows"), [(20, 3), (8, 2), (40, 4)])
def test_a_tiny_terminal_is_never_overfilled(terminal: Start, columns: int, rows: int) -> None:
    program = CORPUS + 'print("above")\ncorpus.map([{"text": "a bad gate"}], on_error="return")\n'
    program += 'corpus.run(text="a b gate")\n'
    shown = terminal(program, columns=columns, rows=rows)
    shown.until(r"^\S c")
    drawn = shown.raw.count(b"\n")
    assert drawn < 3 * rows
    shown.go_on()
    shown.read_until(lambda: b"ended ok" in shown.raw, "the first run never ended")
    shown.go_on()
    shown.end()
    assert not shown.screen.cursor.hidden
    assert shown.process.returncode == 0


def test_a_terminal_without_unicode_gets_plain_characters(terminal: Start) -> None:
    program = CORPUS + 'corpus.map([{"text": "a b"}, {"text": "gate"}])\n'
    shown = terminal(program, PYTHONIOENCODING="ascii")
    lines = shown.until("1/2", "each")
    assert "\n".join(lines).isascii()
    assert lines[-1].startswith("`- ")
    shown.go_on()
    [left] = shown.end()
    assert left.startswith("+ corpus: ended ok")


def test_a_name_cannot_steer_the_terminal(terminal: Start) -> None:
    program = """
    story = Story(ProgressCallback(), "\\x1b[2J\\x1b]0;title\\x07[red]evil\\u202e", kind="map", total=3)
    with story.start() as root:
        with root.item(0) as item:
            item.nested("a\\nb\\r\\x1b[31m").end()
            wait()
    """
    shown = terminal(program)
    shown.until("0/3")
    shown.go_on()
    shown.end()
    assert b"\x1b[2J" not in shown.raw
    assert b"\x1b]0" not in shown.raw
    assert "\\x1b[2J\\x1b]0;title\\x07[red]evil\\u202e" in shown.text.replace("\n", "")


def test_the_callback_of_a_nested_pipeline_alone_shows_that_pipeline(terminal: Start) -> None:
    program = """
    @node(output_name="y")
    def hold(x: int) -> int:
        wait()
        return x
    inner = Pipeline([hold], name="inner", callbacks=[ProgressCallback()])
    Pipeline([inner], name="outer").run(x=1)
    print(threading.enumerate() == [threading.main_thread()])
    """
    shown = terminal(program)
    shown.until("hold")
    shown.go_on()
    assert shown.end()[-1] == "True"
    assert not shown.screen.cursor.hidden


def test_a_terminal_in_which_rich_draws_already_gets_plain_lines(terminal: Start) -> None:
    program = """
    from rich.console import Console
    from rich.live import Live
    with Live("theirs", console=Console(stderr=True), auto_refresh=False):
        with Story(ProgressCallback(), "main", kind="map", total=3).start():
            pass
    """
    shown = terminal(program)
    lines = shown.end()
    assert lines[0] == "main: started, 3 items"
    assert lines[1].startswith("main: ended ok in ")
    assert lines[2:] == ["theirs"]
