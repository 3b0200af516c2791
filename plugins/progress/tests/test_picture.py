"""Which parts of a run get a row, and what the rows say."""

from __future__ import annotations

import pytest
from event_story import Story
from rich.cells import cell_len

from hypernodes import Callback, Event, Run
from hypernodes_progress._layout import ASCII, UNICODE, laid_out
from hypernodes_progress._picture import Picture, Row


class Pictured(Callback):
    """A callback whose picture a test can look at."""

    def begin(self, run: Run):  # type: ignore[no-untyped-def]
        self.picture = Picture(run)
        return self.picture.tally

    def text(self, width: int = 100, most: int = 50) -> list[str]:
        lines = laid_out(self.picture.rows(most), width, ASCII)
        return ["".join(text for text, _ in line).rstrip() for line in lines]


def wide(pictured: Pictured, children: int) -> None:
    steps = [("main", f"n{index}") for index in range(children)]
    root = Story(pictured, steps=steps).start()
    for index in range(20):
        root.node(f"n{index}").end()
    root.node("n20")
    root.node("n21")


def test_a_wide_run_shows_what_runs_and_says_how_much_more_there_is() -> None:
    pictured = Pictured()
    wide(pictured, 1000)
    names = [row.name for row in pictured.picture.rows(6)]
    assert names == ["main", "n20", "n21", "n22", "n23", "... and 996 more"]
    assert [row.state for row in pictured.picture.rows(6)] == [
        "running",
        *["running"] * 2,
        "waiting",
        "waiting",
        "more",
    ]


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_no_more_rows_than_there_is_room_for(most: int) -> None:
    pictured = Pictured()
    wide(pictured, 100)
    assert len(pictured.picture.rows(most)) <= most
    assert pictured.picture.rows(most)[0].name == "main"


def test_what_failed_is_shown_before_what_went_well() -> None:
    pictured = Pictured()
    root = Story(pictured, steps=[("main", f"n{index}") for index in range(100)]).start()
    for index in range(100):
        root.node(f"n{index}").end(*(["error", "ValueError"] if index == 50 else []))
    assert "n50" in [row.name for row in pictured.picture.rows(4)]


def test_a_thousand_levels_are_drawn_without_running_out_of_room_or_stack() -> None:
    pictured = Pictured()
    part = Story(pictured).start()
    for index in range(1000):
        part = part.nested(f"level{index}")
    part.node("deepest")
    lines = pictured.text(width=60, most=5)
    assert len(lines) == 5
    assert any("... deepest" in line for line in lines)
    assert all(len(line) <= 60 for line in lines)


def test_nodes_of_mapped_pipelines_have_no_rows() -> None:
    pictured = Pictured()
    root = Story(pictured, kind="map", total=2, steps=[("main", "one"), ("main", "inner", "two")]).start()
    with root.item(0) as item, item.nested("inner") as inner:
        inner.node("two").end()
    assert [row.name for row in pictured.picture.rows(9)] == ["main", "inner"]


def test_the_items_of_maps_to_come_are_estimated() -> None:
    pictured = Pictured()
    root = Story(pictured, kind="map", total=10).start()
    for index in range(2):
        with root.item(index) as item, item.nested("inner", total=3) as inner:
            for at in range(3):
                inner.item(at).end()
    assert [row.count for row in pictured.picture.rows(9)] == ["2/10", "6/~30"]


def test_items_of_maps_that_do_not_say_how_many_are_estimated_from_those_that_ended() -> None:
    pictured = Pictured()
    root = Story(pictured, kind="map", total=10).start()
    for index in range(2):
        with root.item(index) as item, item.nested("inner") as inner:
            for at in range(5):
                inner.item(at).end()
    assert pictured.picture.rows(9)[1].count == "10/~50"


def test_speed_and_time_left_follow_the_clock() -> None:
    now = [1000.0]
    pictured = Pictured()
    root = Story(pictured, kind="map", total=100, clock=lambda: now[0]).start()
    import hypernodes_progress._picture as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "time", lambda: now[0])
        pictured.picture.rows(9)
        for index in range(20):
            root.item(index).end()
        now[0] += 10
        [row] = pictured.picture.rows(9)
    assert (row.count, row.rate, row.left, row.elapsed) == ("20/100", "2.0/s", "0:40 left", "0:10")


def test_cached_nodes_and_workers_are_counted_where_they_stand() -> None:
    pictured = Pictured()
    root = Story(pictured, kind="map", total=4).start()
    for index in range(3):
        item = root.item(index)
        item.node("load", worker=f"1/{index}").end("cached")
        inner = item.nested("gpu")
        inner.node("embed", place="modal:sequential", worker="far").end()
    main, gpu = pictured.picture.rows(9)
    assert [note.text for note in main.notes] == ["3 cached", "4 workers", "on local:threaded, modal:sequential"]
    assert [note.text for note in gpu.notes] == ["1 worker", "on modal:sequential"]


@pytest.mark.parametrize("width", [1, 5, 12, 20, 33, 47, 60, 80, 120, 300])
@pytest.mark.parametrize("glyphs", [ASCII, UNICODE], ids=["ascii", "unicode"])
def test_no_line_is_wider_than_the_terminal(width: int, glyphs: object) -> None:
    pictured = Pictured()
    root = Story(pictured, "流水线-with-a-rather-long-name-that-goes-on", kind="map", total=1_000_000).start()
    for index in range(9):
        item = root.item(index)
        inner = item.nested("内" * 30, total=3)
        inner.item(0).end("error", "ValueError")
        inner.node("embed", place="a-rather-long-name-of-a-place:threaded").end("cached")
        item.end("error", "ValueError")
    for line in laid_out(pictured.picture.rows(9), width, glyphs):  # type: ignore[arg-type]
        assert cell_len("".join(text for text, _ in line)) <= width


def test_what_failed_is_the_last_thing_to_give_way() -> None:
    row = Row("running", "main", share=0.5, count="50/100", rate="3.1/s", left="0:12 left", elapsed="0:12")
    pictured = Pictured()
    root = Story(pictured, kind="map", total=100).start()
    root.item(0).end("error", "ValueError")
    root.item(1).node("a").end()
    assert "1 failed" in pictured.text(width=36)[0]
    assert "on local" not in pictured.text(width=36)[0]
    assert len(laid_out([row], 20, ASCII)) == 1


def test_reading_while_a_run_is_counted_never_fails() -> None:
    import threading

    pictured = Pictured()
    story = Story(pictured, kind="map")
    root = story.start()
    over = threading.Event()
    faults: list[BaseException] = []

    def read() -> None:
        try:
            while not over.is_set():
                laid_out(pictured.picture.rows(8), 100, UNICODE)
        except BaseException as fault:
            faults.append(fault)

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(3000):
        item = root.item(index)
        item.nested(f"inner{index % 300}").node(f"n{index}", place=f"p{index}", worker=f"w{index}").end()
        item.end()
    over.set()
    reader.join()
    assert faults == []


def test_events_of_unknown_parts_are_no_trouble() -> None:
    pictured = Pictured()
    story = Story(pictured)
    root = story.start()
    for path in ((), ("elsewhere",), ("a", "b", "c")):
        story.tell(Event("node", "start", "f", "1", "0", path, (None,) * len(path), 0.0))
        story.tell(Event("node", "end", "f", "1", "0", path, (None,) * len(path), 0.0, 0.0, "ok"))
    root.end()
    assert pictured.picture.rows(20)
