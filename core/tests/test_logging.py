"""What a log tells of runs: names, times and types, and never a value."""

from __future__ import annotations

import json
import logging
import re

import pytest
from event_story import Story

from hypernodes import LocalBackend, LoggingCallback, Pipeline, node


@node(output_name="cleaned")
def clean(text: str) -> str:
    if "bad" in text:
        raise ValueError(f"cannot clean {text}")
    return text.strip()


@node(output_name="length")
def measure(cleaned: str) -> int:
    return len(cleaned)


inner = Pipeline([clean], name="inner")
encode = Pipeline([inner, measure], name="encode", callbacks=[LoggingCallback()])
Log = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def _everything(caplog: Log) -> None:
    caplog.set_level(logging.DEBUG, "hypernodes.run")


def said(caplog: Log) -> list[str]:
    """The messages, with every time as T."""
    return [re.sub(r"\d+\.\d+ s", "T", record.getMessage()) for record in caplog.records]


def test_a_run_and_its_nested_pipelines_are_told_without_their_nodes(caplog: Log) -> None:
    encode.run(text="a")
    assert [line for line in said(caplog) if "local:" not in line] == [
        "encode started", "encode > inner started", "encode > inner ended ok in T", "encode ended ok in T"
    ]  # fmt: skip
    assert {record.levelno for record in caplog.records} == {logging.INFO}
    assert {record.name for record in caplog.records} == {"hypernodes.run"}


def test_nodes_and_items_are_told_when_asked_for(caplog: Log) -> None:
    encode.with_options(callbacks=[LoggingCallback(nodes=True)]).map([{"text": "a"}])
    lines = said(caplog)
    assert "encode started, 1 item" in lines
    assert "encode (item 0) started" in lines
    assert "encode (item 0) > inner > clean ended ok in T" in lines


def test_a_failure_is_told_once_where_it_began_by_its_type_alone(caplog: Log) -> None:
    encode.map([{"text": "a"}, {"text": "bad sesame"}, {"text": "b"}], on_error="return")
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert re.fullmatch(r"encode \(item 1\) > inner > clean failed with ValueError after 0\.\d+ s", record.getMessage())
    assert record.hypernodes["path"] == ["encode", "inner", "clean"]  # type: ignore[attr-defined]
    assert record.hypernodes["items"] == [1, None, None]  # type: ignore[attr-defined]
    assert record.hypernodes["error"] == "ValueError"  # type: ignore[attr-defined]


def test_values_never_reach_the_log(caplog: Log) -> None:
    pipeline = encode.with_options(callbacks=[LoggingCallback(nodes=True)])
    with pytest.raises(ValueError, match="sesame"):
        pipeline.map([{"text": "ok sesame"}, {"text": "bad sesame"}])
    for record in caplog.records:
        assert "sesame" not in record.getMessage()
        assert "sesame" not in repr(vars(record))


def test_every_record_carries_the_event_as_plain_values(caplog: Log) -> None:
    encode.with_options(callbacks=[LoggingCallback(nodes=True)]).map(
        [{"text": "a"}, {"text": "bad"}], on_error="return"
    )
    for record in caplog.records:
        fields = record.hypernodes  # type: ignore[attr-defined]
        assert json.loads(json.dumps(fields)) == fields
        assert fields["phase"] in ("start", "end")
        assert fields["run"]
    ends = [record.hypernodes for record in caplog.records if record.getMessage().startswith("encode ended")]  # type: ignore[attr-defined]
    assert ends[0]["status"] == "ok"
    assert ends[0]["seconds"] > 0


def test_an_outer_failure_that_no_node_told_is_told(caplog: Log) -> None:
    root = Story(LoggingCallback(), "encode", kind="map", total=2).start()
    root.item(0).end("error", "WorkerLostError")
    root.end("error", "WorkerLostError")
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage().partition(" after")[0] for record in warned] == [
        "encode (item 0) failed with WorkerLostError"
    ]


def test_each_failure_is_told_though_others_were(caplog: Log) -> None:
    encode.map([{"text": "bad 1"}, {"text": "bad 2"}], on_error="return")
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 2


def test_a_stopped_run_and_a_cached_node_are_told_as_such(caplog: Log) -> None:
    root = Story(LoggingCallback(nodes=True), "encode").start()
    root.node("clean").end("cached")
    root.end("stopped")
    assert said(caplog)[-2:] == ["encode > clean came from the cache", "encode was stopped after T"]


def test_names_cannot_forge_a_line(caplog: Log) -> None:
    with Story(LoggingCallback(), "encode\nINFO all is well\x1b[2J").start():
        pass
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert said(caplog)[0] == "encode\\nINFO all is well\\x1b[2J started"


def test_logger_and_level_are_the_users(caplog: Log) -> None:
    caplog.set_level(logging.DEBUG, "mine")
    encode.with_options(callbacks=[LoggingCallback("mine", logging.DEBUG)]).run(text="a")
    assert {(record.name, record.levelno) for record in caplog.records} == {("mine", logging.DEBUG)}


def test_nothing_is_heard_where_nothing_would_be_logged(caplog: Log) -> None:
    caplog.set_level(logging.ERROR, "hypernodes.run")
    run = Story(LoggingCallback()).run
    assert LoggingCallback().begin(run) is None


@pytest.mark.parametrize("level", ["INFO", True, None])
def test_a_level_that_is_none_is_refused(level: object) -> None:
    with pytest.raises(TypeError, match=r"level=.* must be a level of logging"):
        LoggingCallback(level=level)  # type: ignore[arg-type]


def test_threads_log_alike(caplog: Log) -> None:
    pytest.importorskip("hypernodes_local_threaded")
    rows = [{"text": str(index)} for index in range(20)]
    encode.with_backend(LocalBackend(engine="threaded", max_workers=4)).map(rows)
    assert sum("inner ended ok" in line for line in said(caplog)) == 20
