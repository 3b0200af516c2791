"""The command line lists what is installed, runs what was named and nothing else, and fails in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Place

JOBS = """
import sys
from pathlib import Path
from hypernodes import Pipeline, node

print("jobs is imported")

@node(output_name="length")
def measure(text: str) -> int:
    print("measuring")
    if text == "bad":
        raise ValueError("cannot measure\\x1b[31m this")
    return len(text)

@node(output_name="doubled")
def double(length: int, factor: float = 2) -> float:
    return length * factor

@node(output_name="found")
def look(folder: Path, deep: bool | None = None) -> dict:
    return {"folder": type(folder).__name__, "deep": deep}

@node(output_name="odd")
def make_odd(text: str) -> object:
    return object()

@node(output_name="echo")
def echo(anything):
    return anything

pipeline = Pipeline(nodes=[measure, double], name="jobs")
folders = Pipeline(nodes=[look], name="folders")
odd = Pipeline(nodes=[measure, make_odd], name="odd")
echoes = Pipeline(nodes=[echo], name="echoes")
number = 3
"""


def command(place: Place, *arguments: str, stdin: str | None = None, **env: str) -> CompletedProcess[str]:
    return place.start("-m", "hypernodes", *arguments, stdin=stdin, **env)


def listed(place: Place, what: str, **env: str) -> dict[str, Any]:
    done = command(place, what, "--json", **env)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@pytest.fixture
def jobs(place: Place) -> Place:
    here = place.path / "cwd"
    here.mkdir()
    (here / "jobs.py").write_text(JOBS)
    return place


def run(place: Place, *arguments: str, stdin: str | None = None) -> CompletedProcess[str]:
    return command(place, "run", "--app-dir", ".", *arguments, stdin=stdin)


def lines(done: CompletedProcess[str]) -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# ------------------------------------------------------------------------------------------------ what is installed


def with_a_cluster(place: Place) -> None:
    place.plugin(
        "acme",
        """
        print("a manifest that prints")
        @hookimpl
        def engines(): return [EngineSpec('dask', 'acme_engine:Dask', requires={'dask.client'}, summary='graphs')]
        @hookimpl
        def backends(): return [BackendSpec('cluster', 'acme_engine:Cluster', provides={'dask.client'})]
        """,
        version="1.5",
    )
    place.module("acme_engine", "class Dask: ...\nclass Cluster: ...\n")


def test_engines_shows_which_backend_runs_which_and_why_not(place: Place) -> None:
    with_a_cluster(place)
    done = command(place, "engines")
    assert done.returncode == 0, done.stderr
    matrix, why = done.stdout.split("\n\nwhy not:\n")
    heading, *rows = [line.split() for line in matrix.splitlines()]
    assert heading == ["engine", "local", "cluster", "package", "summary"]
    assert rows[2] == ["dask", "no", "yes", "acme-acme", "1.5", "graphs"]
    assert [row[:3] for row in rows[:2]] == [["sequential", "yes", "yes"], ["async", "yes", "yes"]]
    assert why == "  dask on local: it requires 'dask.client', and backend 'local' provides 'processes', 'threads'\n"
    assert done.stderr == "a manifest that prints\n"


def test_backends_shows_the_same_pairs_the_other_way_round(place: Place) -> None:
    with_a_cluster(place)
    engines = {row["name"]: row["backends"] for row in listed(place, "engines")["engines"]}
    backends = {row["name"]: row["engines"] for row in listed(place, "backends")["backends"]}
    assert sorted(backends) == ["cluster", "local"]
    for backend, row in backends.items():
        for engine, pair in row.items():
            assert pair == engines[engine][backend]
            assert pair["runs"] == (pair["reason"] is None)
    assert "dask on local: it requires" in command(place, "backends").stdout


def test_plugins_lists_broken_and_disabled_ones_with_the_reason(place: Place) -> None:
    with_a_cluster(place)
    place.plugin("bad", "import no_such_library", version="0.1")
    facts = listed(place, "plugins")
    states = {plugin["name"]: plugin["state"] for plugin in facts["plugins"]}
    assert states == {"acme": "ready", "bad": "broken"}
    problem = "plugin 'bad' of acme-bad 0.1 failed to load: ModuleNotFoundError: No module named 'no_such_library'"
    assert facts["problems"] == [problem]
    for what in ("engines", "backends", "plugins"):
        done = command(place, what)
        assert done.returncode == 0
        assert problem in done.stdout
        assert "Traceback" not in done.stdout
    states = {
        plugin["name"]: plugin["state"] for plugin in listed(place, "plugins", HYPERNODES_PLUGINS="acme")["plugins"]
    }
    assert states == {"acme": "ready", "bad": "disabled"}
    assert command(place, "plugins", HYPERNODES_PLUGINS="acme").stdout.count("disabled") == 1


def test_two_plugins_that_claim_one_name_are_a_problem_in_every_listing(place: Place) -> None:
    for owner in ("left", "right"):
        place.engine(f"{owner}-fast", value="shared_manifest" if owner == "right" else "")
    (place.site / "shared_manifest.py").write_text((place.site / "left_fast_manifest.py").read_text())
    problems = listed(place, "engines")["problems"]
    assert problems == listed(place, "plugins")["problems"]
    assert problems[0].startswith("engine 'left-fast' is declared by 'acme-left-fast' and by 'acme-right-fast'")


def test_doctor_loads_everything_and_shows_what_went_wrong(place: Place) -> None:
    place.plugin("bad", "def broken():\n    raise LookupError('deep inside')\nbroken()")
    place.engine("heavy")
    done = command(place, "doctor")
    assert done.returncode == 1
    assert "in broken" in done.stdout
    assert "LookupError: deep inside" in done.stdout
    assert "'acme.engine:Acme': ModuleNotFoundError: No module named 'acme'" in done.stdout
    facts = listed(place, "doctor")
    assert facts["python"].startswith("CPython 3.")
    assert facts["packages"]["hypernodes-core"] == facts["hypernodes"]
    assert [plugin["state"] for plugin in facts["plugins"]] == ["broken", "ready"]


def test_doctor_is_content_with_a_sound_installation(place: Place) -> None:
    with_a_cluster(place)
    done = command(place, "doctor")
    assert (done.returncode, "Traceback" in done.stdout) == (0, False), done.stdout


def test_what_a_plugin_says_cannot_steer_the_terminal(place: Place) -> None:
    place.plugin("evil", "raise ValueError('\\x1b]0;owned\\x07')")
    for what in ("plugins", "engines", "doctor"):
        done = command(place, what)
        assert "\\x1b]0;owned\\x07" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["engines", "--help"], []])
def test_help_and_version_load_no_plugin(place: Place, arguments: list[str]) -> None:
    place.engine("good")
    code = f"""
        from hypernodes._cli import main
        try:
            main({arguments!r})
        except SystemExit as end:
            assert not end.code
        late = ("pluggy", "importlib.metadata", "good_manifest", "cloudpickle")
        answer = [name for name in late if name in sys.modules]
    """
    assert place.python(code) == []


# ------------------------------------------------------------------------------------------------------ running once


def test_run_prints_every_output_as_one_json_object(jobs: Place) -> None:
    done = run(jobs, "jobs:pipeline", "--input", "text=hello")
    assert lines(done) == [{"length": 5, "doubled": 10.0}]
    assert done.stderr == "jobs is imported\nmeasuring\n"


def test_run_prints_only_the_outputs_asked_for(jobs: Place) -> None:
    assert lines(run(jobs, "jobs:pipeline", "--input", "text=hello", "--output", "length")) == [{"length": 5}]
    both = run(jobs, "jobs:pipeline", "--input", "text=a", "--output", "doubled", "--output", "length")
    assert lines(both) == [{"doubled": 2.0, "length": 1}]


def test_inputs_are_json_or_text_by_their_annotation(jobs: Place) -> None:
    assert lines(run(jobs, "jobs:pipeline", "--input", "text=12345")) == [{"length": 5, "doubled": 10}]
    assert lines(run(jobs, "jobs:pipeline", "--input", 'text="a\\n"', "--input", "factor=3"))[0]["doubled"] == 6.0
    assert lines(run(jobs, "jobs:folders", "--input", "folder=a/b", "--input", "deep=true")) == [
        {"found": {"folder": type(Path()).__name__, "deep": True}}
    ]
    for text, value in [("[1, 2]", [1, 2]), ("null", None), ("plain words", "plain words"), ("1.5", 1.5), ("", "")]:
        assert lines(run(jobs, "jobs:echoes", "--input", f"anything={text}")) == [{"echo": value}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "text"], "--input 'text' is not NAME=VALUE"),
        (["--input", "text=a", "--input", "text=b"], "--input gives 'text' twice"),
        (["--input", "text=a", "--input", "factor=much"], "input 'factor' takes float, and 'much' is not that in JSON"),
        (["--input", "texd=a"], "texd"),
        ([], "text"),
        (["--input", "text=a", "--output", "lenght"], "did you mean 'length'?"),
        (["--input", "text=a", "--workers", "2"], "--workers needs --backend"),
        (["--input", "text=a", "--on-error", "return"], "--on-error return needs --map"),
        (["--input", "text=a", "--backend", "locl"], "unknown backend 'locl' (did you mean 'local'?)"),
        (["--input", "text=a", "--backend", "local:thredded"], "unknown engine 'thredded' (did you mean 'threaded'?)"),
        (["--input", "text=a", "--backend", "local:"], "is not NAME or NAME:ENGINE"),
        (["--map", "rows.xml"], "is not a .jsonl or .csv file"),
        (["--map", "absent.csv"], "--map 'absent.csv' cannot be read"),
        (["--workers", "0"], "'0' is not a whole number from 1 up"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(jobs: Place, arguments: list[str], said: str) -> None:
    done = run(jobs, "jobs:pipeline", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_failing_run_is_the_user_s_error_and_exit_code_1(jobs: Place) -> None:
    done = run(jobs, "jobs:pipeline", "--input", "text=bad")
    assert (done.returncode, done.stdout) == (1, "")
    told = done.stderr.splitlines()[-1]
    assert told.startswith("hypernodes: ValueError: cannot measure\\x1b[31m this; in jobs > measure")
    assert "Traceback" not in done.stderr
    assert 'raise ValueError("cannot measure' in run(jobs, "jobs:pipeline", "--input", "text=bad", "--traceback").stderr


def test_output_that_is_no_json_is_named_and_another_can_be_chosen(jobs: Place) -> None:
    done = run(jobs, "jobs:odd", "--input", "text=abc")
    assert (done.returncode, done.stdout) == (1, "")
    assert "output 'odd' cannot be written as JSON (object:" in done.stderr
    assert "choose others with --output: 'length'" in done.stderr
    assert lines(run(jobs, "jobs:odd", "--input", "text=abc", "--output", "length")) == [{"length": 3}]


def test_run_takes_another_backend(jobs: Place) -> None:
    done = run(jobs, "jobs:pipeline", "--input", "text=abc", "--backend", "local:async", "--workers", "2")
    assert lines(done) == [{"length": 3, "doubled": 6.0}]


def test_result_can_go_to_a_file(jobs: Place) -> None:
    done = run(jobs, "jobs:pipeline", "--input", "text=abc", "--out", "result.jsonl")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((jobs.path / "cwd" / "result.jsonl").read_text()) == {"length": 3, "doubled": 6.0}
    refused = run(jobs, "jobs:pipeline", "--input", "text=abc", "--out", "no/such/place")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'no/such/place' cannot be written" in refused.stderr


# ------------------------------------------------------------------------------------------------- running over items


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", '{"text": "a", "factor": 3}\n\n{"text": "b\u00e9", "factor": 1.5}\n'),
        ("rows.csv", "text,factor\na,3\nb\u00e9,1.5\n"),
        ("rows.csv", '\ufefftext,factor\r\na,3\r\n"b\u00e9",1.5\r\n'),
    ],
)
def test_map_runs_every_row_of_a_file_in_order(jobs: Place, name: str, content: str) -> None:
    (jobs.path / "cwd" / name).write_text(content, encoding="utf-8", newline="")
    done = run(jobs, "jobs:pipeline", "--map", name)
    assert lines(done) == [{"length": 1, "doubled": 3.0}, {"length": 2, "doubled": 3.0}]


def test_map_reads_standard_input_and_shares_inputs(jobs: Place) -> None:
    done = run(
        jobs, "jobs:pipeline", "--map", "-", "--input", "factor=10", "--output", "doubled",
        stdin='{"text": "a"}\n{"text": "bc"}\n',
    )  # fmt: skip
    assert lines(done) == [{"doubled": 10.0}, {"doubled": 20.0}]


def test_map_of_nothing_writes_nothing(jobs: Place) -> None:
    assert lines(run(jobs, "jobs:pipeline", "--map", "-", stdin="")) == []


def test_failing_item_stands_in_its_place_and_the_exit_code_says_so(jobs: Place) -> None:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("a", "bad", "ccc"))
    done = run(jobs, "jobs:pipeline", "--map", "-", "--on-error", "return", "--output", "length", stdin=rows)
    first, failure, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert (first, last) == ({"length": 1}, {"length": 3})
    assert failure["error"]["type"] == "ValueError"
    assert failure["error"]["item"] == 1
    assert failure["error"]["path"] == ["jobs", "measure"]
    assert done.returncode == 1
    assert done.stderr.endswith("hypernodes: 1 of 3 items failed\n")


def test_first_failing_item_stops_a_map_by_default(jobs: Place) -> None:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in ("a", "bad", "ccc"))
    done = run(jobs, "jobs:pipeline", "--map", "-", stdin=rows)
    assert done.returncode == 1
    assert "ValueError: cannot measure" in done.stderr
    assert "item 1" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", '{"text": "a"}\n{"text": \n', "line 2 of rows.jsonl is not JSON"),
        ("rows.jsonl", '["a"]\n', "line 1 of rows.jsonl is not a JSON object"),
        ("rows.csv", "text\na,b\n", "line 2 of rows.csv has another number of fields than its heading"),
        ("rows.csv", "text,text\na,b\n", "the heading of rows.csv names a column twice"),
        ("rows.csv", "text,factor\na,much\n", "line 2 of rows.csv: input 'factor' takes float, and 'much' is not"),
        ("rows.csv", 'text\n"a\n', "of rows.csv is not CSV"),
    ],
)
def test_damaged_row_is_named_by_its_line(jobs: Place, name: str, content: str, said: str) -> None:
    (jobs.path / "cwd" / name).write_text(content)
    done = run(jobs, "jobs:pipeline", "--map", name)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]


def test_file_that_is_not_utf_8_is_refused(jobs: Place) -> None:
    (jobs.path / "cwd" / "rows.csv").write_bytes(b"text\n\xff\xfe\n")
    done = run(jobs, "jobs:pipeline", "--map", "rows.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "rows.csv is not UTF-8" in done.stderr


def start(place: Place, *arguments: str) -> subprocess.Popen[str]:
    """The same fresh interpreter, left running with its streams in hand."""
    return subprocess.Popen(
        [sys.executable, "-S", "-u", "-m", "hypernodes", "run", "--app-dir", ".", *arguments],
        cwd=place.path / "cwd",
        env={**os.environ, "PYTHONPATH": str(place.site)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_reader_that_leaves_early_ends_the_command_quietly(jobs: Place) -> None:
    (jobs.path / "cwd" / "rows.jsonl").write_text('{"anything": "x"}\n' * 20_000)
    with start(jobs, "jobs:echoes", "--map", "rows.jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(timeout=60) == 141
    assert told == "jobs is imported\n"


def test_interrupt_ends_the_command_with_130_and_no_traceback(jobs: Place) -> None:
    (jobs.path / "cwd" / "waits.py").write_text(
        textwrap.dedent("""
        import sys, time
        from hypernodes import Pipeline, node
        @node(output_name="never")
        def wait(x):
            print("waiting", flush=True)
            time.sleep(60)
        pipeline = Pipeline(nodes=[wait], name="waits")
        """)
    )
    with start(jobs, "waits:pipeline", "--input", "x=1") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert told == "hypernodes: interrupted\n"


# ------------------------------------------------------------------------------------------------------- the target


def test_current_directory_is_not_searched_unless_asked(jobs: Place) -> None:
    done = command(jobs, "run", "jobs:pipeline", "--input", "text=a")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("hypernodes: No module named 'jobs': pass --app-dir . to look in the current directory\n")
    elsewhere = command(jobs, "run", "--app-dir", "nowhere", "jobs:pipeline")
    assert elsewhere.stderr == "hypernodes: --app-dir 'nowhere' is not a directory\n"
    absent = command(jobs, "run", "--app-dir", ".", "shop.jobs:pipeline")
    assert absent.stderr == "hypernodes: No module named 'shop': also not in --app-dir '.'\n"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("jobs:pipelin", "'jobs' has no 'pipelin' (did you mean 'pipeline'?)"),
        ("jobs:number", "'jobs' has 'number', but it is no Pipeline"),
        ("jobs:measure", "'jobs' has 'measure', but it is no Pipeline"),
        ("jobs", "'jobs' is not MODULE:PIPELINE"),
        ("jobs.py:pipeline", "to import a file, pass --file"),
        ("./jobs.py:pipeline", "to import a file, pass --file"),
    ],
)
def test_target_that_is_no_pipeline_is_told_with_those_that_are(jobs: Place, target: str, said: str) -> None:
    done = run(jobs, target)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    "target",
    [
        "jobs:__import__('os').system('touch owned')",
        "jobs:pipeline.run",
        "jobs:pipeline;open('owned','w')",
        "os:system",
        "__import__('os').system('touch owned'):x",
        "jobs\nimport os:x",
        "..jobs:pipeline",
        "jobs:",
        ":pipeline",
        ":",
        "",
        "a" * 5000 + ":x",
    ],
)
def test_hostile_target_runs_nothing(jobs: Place, target: str) -> None:
    for more in ([], ["--file"]):
        done = run(jobs, target, *more, "--input", "text=__import__('os').system('touch owned')")
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "Traceback" not in done.stderr
    assert not (jobs.path / "cwd" / "owned").exists()


def test_values_of_inputs_are_never_evaluated(jobs: Place) -> None:
    hostile = "__import__('os').system('touch owned')"
    assert lines(run(jobs, "jobs:echoes", "--input", f"anything={hostile}")) == [{"echo": hostile}]
    assert not (jobs.path / "cwd" / "owned").exists()


def test_file_is_run_when_asked_for_by_its_path(jobs: Place) -> None:
    done = command(jobs, "run", "--file", "jobs.py:pipeline", "--input", "text=abc")
    assert lines(done) == [{"length": 3, "doubled": 6.0}]
    for target, said in [
        ("absent.py:pipeline", "there is no file 'absent.py'"),
        ("jobs:pipeline", "--file takes PATH.py:PIPELINE"),
        ("json.py:pipeline", "there is no file 'json.py'"),
    ]:
        refused = command(jobs, "run", "--file", target)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_file_may_not_take_the_place_of_a_loaded_module(jobs: Place) -> None:
    (jobs.path / "cwd" / "json.py").write_text("raise SystemExit('never')")
    done = jobs.start("-P", "-m", "hypernodes", "run", "--file", "json.py:pipeline")
    assert done.returncode == 2, done.stderr
    assert "bears the name of a module that is already loaded, 'json'" in done.stderr


@pytest.mark.parametrize("source", ["raise SystemExit(0)", "import no_such_library", "1 / 0", "def f(:"])
@pytest.mark.parametrize("asked", [["--app-dir", ".", "sick:pipeline"], ["--file", "sick.py:pipeline"]])
def test_module_that_does_not_import_is_exit_code_1(jobs: Place, source: str, asked: list[str]) -> None:
    (jobs.path / "cwd" / "sick.py").write_text(source)
    done = command(jobs, "run", *asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert "could not be imported: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in command(jobs, "run", "--traceback", *asked).stderr


# --------------------------------------------------------------------------------------------------------- explain


def test_explain_shows_every_node_and_runs_none(jobs: Place) -> None:
    done = command(jobs, "explain", "--app-dir", ".", "jobs:pipeline", "--inputs", "text,factor")
    assert done.returncode == 0, done.stderr
    assert "measure" in done.stdout
    assert "double" in done.stdout
    assert "measuring" not in done.stderr


def test_explain_may_be_asked_about_one_output(jobs: Place) -> None:
    done = command(jobs, "explain", "--app-dir", ".", "jobs:pipeline", "--output", "length")
    assert done.returncode == 0, done.stderr
    assert "measure" in done.stdout
    unknown = command(jobs, "explain", "--app-dir", ".", "jobs:pipeline", "--output", "nothing")
    assert unknown.returncode == 2
    assert "nothing" in unknown.stderr
