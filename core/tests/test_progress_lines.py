"""Progress where there is no terminal: few lines, and each says what one wants to know."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from event_story import Story

import hypernodes._progress_lines as module
import hypernodes._tally as tally_module
from hypernodes import Callback, Pipeline, Run, node
from hypernodes.plugin import LineProgress, Tally, counted, duration, printable


@node(output_name="length")
def measure(text: str) -> int:
    if text == "bad":
        raise ValueError("sesame")
    return len(text)


def lines_of(told: Callable[[LineProgress], object], every: float = 10.0) -> list[str]:
    file = io.StringIO()
    told(LineProgress(every=every, file=file))
    return file.getvalue().splitlines()


def test_a_quick_map_writes_a_line_at_its_start_and_one_at_its_end() -> None:
    rows = [{"text": "a"}, {"text": "bad"}, {"text": "ccc"}]

    def told(progress: LineProgress) -> None:
        Pipeline([measure], name="corpus", callbacks=[progress]).map(rows, on_error="return")

    started, ended = lines_of(told)
    assert started == "corpus: started, 3 items"
    assert re.fullmatch(
        r"corpus: ended ok in [\d.]+ s, 3 items, [\d.e+]+/s, 1 failed, 1 worker on local:sequential", ended
    )


def test_a_failed_run_names_the_exceptions_type_and_not_what_it_says() -> None:
    def told(progress: LineProgress) -> None:
        with pytest.raises(ValueError, match="sesame"):
            Pipeline([measure], name="corpus", callbacks=[progress]).run(text="bad")

    started, ended = lines_of(told)
    assert started == "corpus: started"
    assert re.fullmatch(
        r"corpus: ended with ValueError in 0\.\d{3} s, 1 of 1 node, 1 worker on local:sequential", ended
    )


def test_between_them_at_most_one_line_every_so_many_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def told(progress: LineProgress) -> None:
        with Story(progress, "corpus", kind="map", total=200, clock=lambda: now[0]).start() as root:
            for index in range(100):
                item = root.item(index)
                item.node("load", worker=f"1/{index % 3}").end("cached" if index < 7 else "ok")
                item.end(*(["error", "ValueError"] if index in (5, 6) else []))
                now[0] += 0.5

    lines = lines_of(told)
    assert lines[0] == "corpus: started, 200 items"
    assert lines[1] == (
        "corpus: 20 of 200 items, 2/s, 1 min 30 s left, 2 failed, 7 from the cache, 3 workers on local:threaded"
    )
    assert [line.split()[1] for line in lines[2:-1]] == ["40", "60", "80"]
    assert lines[-1].startswith("corpus: ended ok in 50 s, 100 items, 2/s, 2 failed, ")


def test_a_run_of_one_item_says_which_nodes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    steps = [("main", "read"), ("main", "inner", "embed"), ("main", "write")]

    def told(progress: LineProgress) -> None:
        with Story(progress, "main", steps=steps).start() as root:
            root.node("read").end()
            with root.nested("inner") as inner:
                embed = inner.node("embed")
                now[0] += 10
                other = root.node("beside")
                embed.end()
                other.end()

    lines = lines_of(told)
    assert lines[1] == "main: 1 of 4 nodes, running inner > embed, beside, 1 worker on local:threaded"


def test_an_endless_map_has_no_end_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def told(progress: LineProgress) -> None:
        root = Story(progress, "main", kind="map", clock=lambda: now[0]).start()
        for index in range(11):
            root.item(index).end()
            now[0] += 1.0
        root.end("stopped")

    assert lines_of(told) == ["main: started", "main: 10 items, 1/s", "main: stopped after 11 s, 11 items, 1/s"]


def test_a_name_cannot_write_a_line_of_its_own() -> None:
    def told(progress: LineProgress) -> None:
        with Story(progress, "a\nb\x1b[31m", kind="map", total=1).start():
            pass

    assert lines_of(told)[0] == "a\\nb\\x1b[31m: started, 1 item"
    assert len(lines_of(told)) == 2


def test_lines_go_to_standard_error_as_it_is_when_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    Pipeline([measure], name="corpus", callbacks=[LineProgress()]).run(text="a")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("corpus: started\ncorpus: ended ok in ")


def test_a_program_without_standard_error_runs_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "stderr", None)
    assert Pipeline([measure], callbacks=[LineProgress()]).run(text="a") == {"length": 1}


@pytest.mark.parametrize("every", [-1.0, float("nan")])
def test_an_impossible_pause_is_refused(every: float) -> None:
    with pytest.raises(ValueError, match="every="):
        LineProgress(every=every)


# --- what is counted ---


class Counted(LineProgress):
    def begin(self, run):  # type: ignore[no-untyped-def]
        self.tally = Tally(run)
        return self.tally


def test_every_engine_counts_alike() -> None:
    inner = Pipeline([measure], name="inner").as_node({"texts": "text"}, {"length": "lengths"}, map_over="texts")

    @node(output_name="total")
    def add(lengths: list[int]) -> int:
        return sum(lengths)

    from hypernodes import LocalBackend

    seen = []
    for engine in ("sequential", "async"):
        counted_by = Counted()
        pipeline = Pipeline([inner, add], name="main", backend=LocalBackend(engine=engine), callbacks=[counted_by])
        pipeline.map([{"texts": ["a", "b"]}, {"texts": ["bad"]}, {"texts": ["c"]}], on_error="return")
        parts = [part for part in counted_by.tally.parts if not part.is_node]
        seen.append([(part.path, part.mapped, part.ended, part.done, part.broken) for part in parts])
    assert seen[0] == seen[1]
    assert seen[0] == [(("main",), True, 1, 3, 1), (("main", "inner"), True, 3, 4, 1)]


def test_parts_that_will_not_be_heard_of_do_not_hold_up_the_count() -> None:
    """A nested pipeline with `callbacks=[]` is not heard of at all."""
    quiet = Pipeline([measure], name="quiet", callbacks=[])
    counted_by = Counted()
    Pipeline([quiet], name="main", callbacks=[counted_by]).run(text="a")
    assert [part.settled for part in counted_by.tally.nodes()] == [True]


# --- words ---


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.000 s"), (0.0124, "0.012 s"), (0.9999, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7620, "2 h 07 min"), (273600, "3 d 04 h"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_one_is_singular() -> None:
    assert [counted(1, "item"), counted(0, "item"), counted(1200, "node")] == ["1 item", "0 items", "1,200 nodes"]


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x00", "\u202eabc", "\u2028", "\x9b31m", "\ud800"])
def test_nothing_that_steers_a_terminal_stays_in_a_name(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("naïve 名前") == "naïve 名前"


def test_what_belongs_to_an_end_is_counted_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, int, bool, int]] = []

    class Watched(tally_module.Part):
        """Tells what a reader of another thread would find in the moment in which an end is counted."""

        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name in ("ended", "done") and value:
                workers = len((self.parent or self).workers)
                seen.append((self.name, name, self.failed + self.spoilt, self.until > 0, workers))

    monkeypatch.setattr(tally_module, "Part", Watched)
    with pytest.raises(ValueError, match="sesame"):
        Pipeline([measure], name="corpus", callbacks=[Tallied()]).map([{"text": "bad"}])
    assert seen == [
        ("measure", "ended", 1, True, 1),
        ("corpus", "done", 1, False, 1),
        ("corpus", "ended", 2, True, 1),  # an item, and the map itself
    ]


class Tallied(Callback):
    """Counts, and shows nothing."""

    def begin(self, run: Run) -> Tally:
        return Tally(run)
