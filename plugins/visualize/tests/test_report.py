"""The report of a run: right in every number, written whatever happens, and never with a value in it."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hypernodes import Event, LocalBackend, MemoryCache, Pipeline, Run, node
from hypernodes.plugin import write_whole
from hypernodes_visualize import ReportCallback
from hypernodes_visualize import _tally as tallying
from hypernodes_visualize._report_page import report_of, seconds_text
from hypernodes_visualize._tally import Tally

CANARY = "open-sesame"


@node(output_name="cleaned")
def clean(text: str) -> str:
    """Take away what surrounds the text."""
    if "bad" in text:
        raise ValueError(f"cannot clean {text}")
    if "stop" in text:
        raise KeyboardInterrupt(text)
    return text.strip()


@node(output_name="size")
def measure(cleaned: str) -> int:
    return len(cleaned)


inner = Pipeline([clean], name="inner", backend=LocalBackend(engine="async"))
encode = Pipeline([inner, measure], name="encode")
here = Pipeline([clean, measure], name="encode")


class Report(HTMLParser):
    """A report as tests read it: its facts, its tables, its data."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text = file.read_text(encoding="utf-8")
        self.facts = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", self.text))
        self.tables: list[list[list[str]]] = []
        self.cell = False
        self.feed(self.text)
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.DOTALL)
        assert found is not None
        self.data = json.loads(found[1])
        heading = re.search(r"<h1>(.*?)</h1>", self.text)
        assert heading is not None
        self.heading = re.sub(r"<[^>]*>", " ", heading[1]).split("  ")[0].strip()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.cell = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self.cell = False

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.tables[-1][-1][-1] += data


def reported(pipeline: Pipeline, folder: Path, **options: Any) -> tuple[Pipeline, Path, list[Event]]:
    events: list[Event] = []
    file = folder / "report.html"
    return pipeline.with_options(callbacks=[ReportCallback(file, **options), events.append]), file, events


def ends(events: list[Event]) -> list[Event]:
    return [event for event in events if event.kind == "node" and event.phase == "end"]


def rows(count: int, **others: str) -> list[dict[str, str]]:
    return [{"text": others.get(f"item{at}", f" {CANARY} {at} ")} for at in range(count)]


def test_a_report_tells_what_the_events_told(tmp_path: Path) -> None:
    pipeline, file, events = reported(encode, tmp_path)
    pipeline.map(rows(20, item3="bad", item7="bad"), on_error="return")
    report = Report(file)
    nodes = ends(events)
    assert report.heading.startswith("encode")
    assert report.facts["items"] == "20"
    assert report.facts["failed items"] == report.facts["failed calls"] == "2"
    assert report.facts["calls of nodes"] == str(len(nodes)) == "38"
    assert report.facts["cache hits"] == "0"
    assert report.facts["time in nodes"] == seconds_text(sum(event.seconds or 0.0 for event in nodes))
    lanes = {(event.place, event.worker) for event in nodes}
    assert {(lane["place"], lane["worker"]) for lane in report.data["lanes"]} == lanes
    assert report.facts["workers"] == str(len(lanes))
    slowest, failures = report.tables
    assert sorted((row[0], row[1], row[-1]) for row in slowest[1:]) == [
        ("encode > inner > clean", "20", "2"),
        ("encode > measure", "18", "0"),
    ]
    assert failures[1:] == [
        ["encode (item 3) > inner > clean", "ValueError", "local:async"],
        ["encode (item 7) > inner > clean", "ValueError", "local:async"],
    ]
    bars = report.data["bars"]
    assert len(bars["node"]) == 38
    told = [(tuple(report.data["nodes"][at]["path"]), items[0]) for at, items in zip(bars["node"], bars["items"])]  # noqa: B905
    assert sorted(told) == sorted((event.path, event.items[0]) for event in nodes)
    assert sum(bars["took"]) == pytest.approx(sum(event.seconds or 0.0 for event in nodes) * 1e3, abs=0.01)
    assert all(0 <= start <= report.data["span"] for start in bars["start"])


def test_cache_hits_are_counted_and_have_a_lane_of_their_own(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode.with_options(cache=MemoryCache()), tmp_path)
    pipeline.map(rows(3))
    pipeline.map(rows(4))
    report = Report(file)
    assert (report.facts["calls of nodes"], report.facts["cache hits"]) == ("2", "6")
    assert "cache" in [lane["place"] for lane in report.data["lanes"]]


def test_the_picture_of_the_pipeline_knows_its_nodes(tmp_path: Path, layout: str) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    pipeline.run(text="a")
    report = Report(file)
    at = {" > ".join(each["path"]): place for place, each in enumerate(report.data["nodes"])}
    assert set(at) == {"encode > inner > clean", "encode > measure"}
    assert sorted(report.data["boxes"].values()) == sorted(
        [[at["encode > inner > clean"]], [at["encode > measure"]], [at["encode > inner > clean"]], sorted(at.values())]
    )
    for box in report.data["boxes"]:
        assert f'data-id="{box}"' in report.text


def test_values_and_messages_are_not_in_a_report(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    pipeline.map(rows(5, item2=f"bad {CANARY}"), on_error="return")
    assert CANARY not in Report(file).text
    with pytest.raises(ValueError, match=CANARY):
        pipeline.run(text=f"bad {CANARY}")
    assert CANARY not in Report(file).text
    pipeline, file, _ = reported(here, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(text=f"stop {CANARY}")
    assert CANARY not in Report(file).text


def test_messages_are_there_when_asked_for_and_escaped(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path, messages=True)
    pipeline.map(rows(2, item1="bad <script>alert(1)</script>"), on_error="return")
    report = Report(file)
    assert report.tables[1][1][3] == "cannot clean bad <script>alert(1)</script>"
    assert "<script>alert" not in report.text


@pytest.mark.parametrize(
    ("text", "raised", "said"),
    [("ok", None, "finished"), ("bad", ValueError, "failed"), ("stop", KeyboardInterrupt, "stopped")],
)
def test_a_run_is_reported_however_it_ends(
    text: str, raised: type[BaseException] | None, said: str, tmp_path: Path
) -> None:
    pipeline, file, _ = reported(here, tmp_path)
    if raised is None:
        assert pipeline.run(text=text) == {"cleaned": "ok", "size": 2}
    else:
        with pytest.raises(raised):
            pipeline.run(text=text)
    report = Report(file)
    assert f"<title>encode: {said}</title>" in report.text
    assert report.heading.startswith("encode")
    assert said in report.text.partition("</h1>")[0]


def test_a_stream_that_is_left_early_is_reported(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    stream = pipeline.map_iter(rows(50))
    next(stream)
    stream.close()
    del stream
    assert int(Report(file).facts["calls of nodes"]) >= 2


def test_a_report_that_cannot_be_written_is_one_warning_and_the_result_is_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "none" / "report.html"
    pipeline = encode.with_options(callbacks=[ReportCallback(file)])
    with caplog.at_level(logging.WARNING):
        assert pipeline.map([{"text": " ab "}], output_name="size") == [2]
    [record] = caplog.records
    assert record.getMessage() == (
        f"no report of pipeline 'encode': '{file}' could not be written: "
        f"FileNotFoundError: [Errno 2] No such file or directory: '{file}'"
    )


def test_a_report_takes_the_place_of_the_last_one_whole(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    pipeline.run(text="a")
    with file.open("rb") as old:
        first = file.read_bytes()
        pipeline.map(rows(3))
        assert old.read() == first, "who has the old file open reads it to its end"
    assert Report(file).facts["items"] == "3"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_runs_at_once_each_leave_a_whole_report(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    begin = threading.Barrier(4)

    def work(count: int) -> None:
        begin.wait()
        for _ in range(5):
            pipeline.map(rows(count))

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = Report(file)
    assert report.facts["items"] in ("1", "2", "3", "4")
    assert report.facts["calls of nodes"] == str(2 * int(report.facts["items"]))
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_a_relative_name_is_that_of_where_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @node(output_name="y")
    def leave(x: int) -> int:
        monkeypatch.chdir("/")
        return x

    monkeypatch.chdir(tmp_path)
    Pipeline([leave], name="leaver", callbacks=[ReportCallback()]).run(x=1)
    assert (tmp_path / "report.html").exists()


def test_on_a_nested_pipeline_it_tells_of_that_alone(tmp_path: Path) -> None:
    watched, file, _ = reported(inner, tmp_path)
    outer = Pipeline([watched, measure], name="outer")
    outer.map(rows(4, item1="bad"), on_error="return")
    report = Report(file)
    assert [row[:2] for row in report.tables[0][1:]] == [["outer > inner > clean", "4"]]
    assert "items" not in report.facts, "the items are those of the pipeline around it"
    assert len(report.tables[1]) == 2


# --- many events ---


def event(at: int, status: str = "ok", **others: Any) -> Event:
    given = {"kind": "node", "path": ("p", "f"), "items": (at, None), "seconds": 0.5, "time": 1000.0 + at}
    given |= {"place": "local:threaded", "worker": f"w{at % 3}", "error": "ValueError" if status == "error" else ""}
    return Event(phase="end", run="r", span=f"s{at}", parent="root", status=status, **given | others)


def many(events: Iterator[Event]) -> Tally:
    tally = Tally()
    root = {"run": "r", "span": "root", "parent": "", "path": ("p",), "items": (None,)}
    tally.take(Event("map", "start", time=1000.0, **root))  # type: ignore[arg-type]
    for each in events:
        tally.take(each)
    end = Event("map", "end", time=9000.0, status="ok", **root)  # type: ignore[arg-type]
    tally.take(end)
    assert tally.over(end)
    return tally


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallying, "MOST_BARS", 100)
    monkeypatch.setattr(tallying, "MOST_FAILURES", 10)


@pytest.mark.usefixtures("small")
def test_bars_that_are_left_out_are_told_and_counted(tmp_path: Path) -> None:
    tally = many(event(at, "error" if at % 10 == 0 else "ok") for at in range(3000))
    write_whole(tmp_path / "r.html", report_of(Run("r", "p", "map", 3000), tally).encode())
    report = Report(tmp_path / "r.html")
    assert len(report.data["bars"]["node"]) == 100
    assert "100 of 3,000 calls are shown, chosen evenly at random; 2,900 are left out" in report.text
    assert report.facts["calls of nodes"] == "3,000"
    assert report.facts["failed calls"] == "300"
    assert report.facts["time in nodes"] == "25 min 0 s"
    assert "290 more are not listed" in report.text
    assert len(report.tables[1]) == 11
    early = sum(items[0] < 1500 for items in report.data["bars"]["items"])
    assert 25 <= early <= 75, "the sample is of the whole run"


@pytest.mark.usefixtures("small")
def test_a_failure_that_is_left_out_is_counted_once(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    pipeline.map([{"text": "bad"}] * 25, on_error="return")
    assert "15 more are not listed" in Report(file).text


def test_the_same_events_give_the_same_report() -> None:
    run = Run("r", "p", "map", 50)
    assert report_of(run, many(map(event, range(50)))) == report_of(run, many(map(event, range(50))))


def test_hostile_names_stay_text_in_a_report(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>\u2028<!--"
    told = {"path": (evil, evil), "place": evil, "worker": evil, "error": evil}
    tally = many(event(at, "error", **told) for at in range(3))
    write_whole(tmp_path / "r.html", report_of(Run("r", evil, "map", facts={evil: evil}), tally).encode())
    report = Report(tmp_path / "r.html")
    assert "alert(1)" in report.text
    assert "<script>alert" not in report.text
    assert report.text.count("<script") == report.text.count("</script>") == 2, "the data and our own"
    assert "<!--" not in report.text.partition("<!DOCTYPE")[2]


def test_a_report_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    pipeline, file, _ = reported(encode, tmp_path)
    pipeline.run(text="a")
    text = Report(file).text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|@import|url\(|src=|href|fetch\(|XMLHttp|innerHTML|eval\(", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ns"),
        (4.2e-7, "420 ns"),
        (1.5e-6, "1.5 µs"),
        (8.3e-4, "830 µs"),
        (0.0123, "12.3 ms"),
        (4.56, "4.56 s"),
        (187, "3 min 7 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_a_duration_is_written_as_people_read_it(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
