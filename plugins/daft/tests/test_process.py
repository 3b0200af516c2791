"""How the engine behaves in a process: quiet, on its own runner, never after a fork, and stopped by Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

GENEROUS = 100

HEAD = """
import os, sys
from hypernodes import LocalBackend, Pipeline, PlaceError, node

@node(output_name="y")
def add_one(x: int) -> int:
    return x + 1

pipeline = Pipeline(nodes=[add_one], backend=LocalBackend(engine="daft"))
rows = [{"x": x} for x in range(300)]
"""


def run(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of its own in an interpreter of its own."""
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(text))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAFT_", "DO_NOT_TRACK"))}
    return subprocess.run(
        [sys.executable, str(script)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )


def test_daft_is_loaded_by_the_first_run_and_no_sooner(tmp_path: Path) -> None:
    done = run(
        """
        from hypernodes import DaftEngine
        DaftEngine(partitions=5)
        assert "daft" not in sys.modules
        pipeline.map(rows)
        assert "daft" in sys.modules
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_telemetry_bars_and_query_names_are_off(tmp_path: Path) -> None:
    done = run(
        """
        pipeline.map(rows)
        names = ("DAFT_ANALYTICS_ENABLED", "DAFT_PROGRESS_BAR", "DAFT_SHOW_QUERY_ID")
        print([os.environ[name] for name in names])
        """,
        tmp_path,
    )
    assert (done.stdout, done.stderr) == ("['0', '0', '0']\n", "")


def test_what_the_user_says_of_telemetry_stays(tmp_path: Path) -> None:
    done = run(
        """
        from hypernodes_daft import _runner
        _runner.load()
        print(os.environ["DAFT_PROGRESS_BAR"])
        """,
        tmp_path,
        DAFT_PROGRESS_BAR="1",
        DO_NOT_TRACK="1",
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_native_runner_that_is_there_is_used(tmp_path: Path) -> None:
    done = run(
        """
        import daft
        daft.from_pydict({"a": [1]}).to_pydict()
        assert pipeline.map(rows, output_name="y")[-1] == 300
        assert daft.from_pydict({"a": [1]}).to_pydict() == {"a": [1]}
        """,
        tmp_path,
        DAFT_ANALYTICS_ENABLED="0",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_native_runner_is_claimed_where_daft_would_choose_ray(tmp_path: Path) -> None:
    done = run(
        """
        assert pipeline.map(rows, output_name="y")[-1] == 300
        from daft import runners
        print(runners.get_or_infer_runner_type())
        """,
        tmp_path,
        DAFT_RUNNER="ray",
    )
    assert (done.returncode, done.stdout) == (0, "native\n")


def test_process_that_runs_daft_on_ray_is_refused(tmp_path: Path) -> None:
    # No cluster is started for this: what Daft says in such a process is all that is put in its place.
    done = run(
        """
        import daft
        from daft import runners

        def taken():
            raise RuntimeError("Cannot set runner more than once")

        daft.set_runner_native = taken
        runners.get_or_infer_runner_type = lambda: "ray"
        try:
            pipeline.map(rows)
        except PlaceError as error:
            print(error)
        """,
        tmp_path,
    )
    assert done.stdout.startswith("this process already runs Daft on 'ray', and Daft has one runner for each process.")


def test_process_that_runs_daft_natively_is_refused_to_run_it_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not in this environment")
    done = run(
        """
        from hypernodes_daft import _ray
        pipeline.map(rows)
        try:
            _ray.claim()
        except PlaceError as error:
            print(error)
        assert pipeline.map(rows, output_name="y")[-1] == 300
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("this process already runs Daft on 'native', and Daft has one runner for")
    assert "Run one of them in another process" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_forked_child_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    done = run(
        """
        import warnings
        warnings.simplefilter("ignore")
        pipeline.map(rows)
        child = os.fork()
        if not child:
            try:
                pipeline.map(rows)
            except PlaceError as error:
                print(error, flush=True)
                os._exit(3)
            os._exit(4)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert pipeline.map(rows, output_name="y")[-1] == 300
        """,
        tmp_path,
    )
    told, code = done.stdout.splitlines()
    assert "before it forked this process" in told
    assert "'spawn' or 'forkserver'" in told
    assert (code, done.returncode) == ("3", 0)


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_interrupt_ends_the_program(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        HEAD
        + textwrap.dedent(
            """
            import asyncio, os, time

            @node(output_name="z")
            def plain(x):
                os.write(1, b"begun\\n")  # whole, as several say it at once
                time.sleep(1)

            @node(output_name="z")
            async def later(x):
                os.write(1, b"begun\\n")  # whole, as several say it at once
                await asyncio.sleep(600)

            slow = plain if sys.argv[1] == "plain" else later
            Pipeline(nodes=[slow], backend=LocalBackend(engine="daft")).map([{"x": x} for x in range(10_000)])
            """
        )
    )
    program = subprocess.Popen(
        [sys.executable, str(script), kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=GENEROUS)
    finally:
        program.kill()
        program.wait()
    assert program.returncode in (-signal.SIGINT, 130, 1)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert len(re.findall(r'^  File "', errors, re.MULTILINE)) <= 30
