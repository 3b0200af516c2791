"""Limits and demands between worker processes: they count together, whoever dies."""

from __future__ import annotations

import os
import signal
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypernodes import Failure, LocalBackend, Pipeline, PipelineTimeoutError, node
from hypernodes.testing import SubprocessBackend


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, where runs leave nothing."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "marks"


def marking(path: Path, name: str, reads: str, **options: Any) -> Any:
    """A node `name(reads)` that marks in the file when each of its calls begins and ends."""
    where = str(path)

    def mark(value: int) -> int:
        import os
        import time

        file = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, b"+")
            time.sleep(0.002)
            os.write(file, b"-")
        finally:
            os.close(file)
        return value + 1

    named: dict[str, Any] = {"mark": mark}
    exec(f"def {name}({reads}): return mark({reads})", named)
    return node(named[name], **options)


def most_at_once(path: Path) -> int:
    now = most = 0
    for sign in path.read_text():
        now += 1 if sign == "+" else -1
        most = max(most, now)
    assert now == 0
    return most


def items(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("modes", [("parallel", "parallel"), ("sequential", "parallel"), ("async", "parallel")])
def test_nodes_that_share_a_limit_never_overlap_more_over_all_processes(
    modes: tuple[str, str], marks: Path, scratch: Path
) -> None:
    nodes = [marking(marks, "a", "x", limit="api"), marking(marks, "b", "a", limit="api")]
    with LocalBackend("multiprocess", modes[0], modes[1], max_workers=4) as backend:
        pipeline = Pipeline(nodes, limits={"api": 2}, backend=backend)
        assert pipeline.map(items(40), output_name="b") == [x + 2 for x in range(40)]
        assert pipeline.map(items(4), output_name="b") == [2, 3, 4, 5]
        assert os.listdir(scratch) == []
    assert most_at_once(marks) <= 2
    assert len(marks.read_bytes()) == 176


@pytest.mark.slow
def test_limit_holds_over_maps_places_and_the_calling_process(marks: Path, scratch: Path) -> None:
    inner = Pipeline([marking(marks, "b", "a", limit="api")], name="inner", backend=SubprocessBackend())
    with LocalBackend(engine="multiprocess", max_workers=2) as processes:
        middle = Pipeline([marking(marks, "c", "b", limit="api")], name="middle", backend=processes)
        nodes = [
            marking(marks, "a", "x", limit="api"),
            inner,
            middle.as_node({"bs": "b"}, {"c": "cs"}, map_over="bs"),
            node(lambda b: [b, b], output_name="bs"),
        ]
        pipeline = Pipeline(nodes, limits={"api": 2}, backend=LocalBackend(engine="threaded", max_workers=3))
        assert pipeline.map(items(12), output_name="cs") == [[x + 3] * 2 for x in range(12)]
    assert most_at_once(marks) <= 2
    assert len(marks.read_bytes()) == 2 * 12 * 4
    assert os.listdir(scratch) == []


def test_demands_are_bounded_over_all_processes(marks: Path) -> None:
    with LocalBackend(engine="multiprocess", max_workers=3, resources={"gpus": 1, "memory": "10GB"}) as backend:
        slow = marking(marks, "a", "x", resources={"gpus": 0.5, "memory": "1GB"})
        Pipeline([slow], backend=backend).map(items(12))
    assert most_at_once(marks) <= 2


def test_worker_that_is_killed_while_it_holds_a_limit_holds_it_no_longer(tmp_path: Path, scratch: Path) -> None:
    struck = str(tmp_path / "struck")

    @node(limit="api")
    def ask(x: int) -> int:
        if x == 3 and not os.path.exists(struck):
            open(struck, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with LocalBackend(engine="multiprocess", max_workers=2) as backend:
        pipeline = Pipeline([ask], limits={"api": 1}, backend=backend)
        assert pipeline.map(items(8), output_name="ask") == list(range(8))
    assert os.path.exists(struck)
    assert os.listdir(scratch) == []


def test_item_that_kills_its_worker_fails_alone_under_a_limit(scratch: Path) -> None:
    @node(limit="api")
    def ask(x: int) -> int:
        if x == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    with LocalBackend(engine="multiprocess", max_workers=2) as backend:
        pipeline = Pipeline([ask], limits={"api": 1}, backend=backend)
        found = pipeline.map(items(6), output_name="ask", on_error="return")
    assert isinstance(found.pop(3), Failure)
    assert found == [0, 1, 2, 4, 5]
    assert os.listdir(scratch) == []


@pytest.mark.slow
def test_rate_holds_over_all_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "moments")

    @node(limit="api")
    def note(x: int) -> int:
        with open(path, "a") as file:
            file.write(f"{time.monotonic()}\n")
        return x

    start = time.monotonic()
    with LocalBackend(engine="multiprocess", max_workers=3) as backend:
        Pipeline([note], limits={"api": "10/second"}, backend=backend).map(items(11))
    moments = [float(line) for line in Path(path).read_text().split()]
    assert len(moments) == 11
    assert max(moments) >= start + 1.0


def test_deadline_ends_the_waiting_in_a_worker() -> None:
    @node(limit="api", retries=1)
    def ask(x: int) -> int:
        raise ConnectionError

    with LocalBackend(engine="multiprocess", max_workers=1) as backend:
        pipeline = Pipeline([ask], name="main", limits={"api": "1/day"}, timeout=2.0, backend=backend)
        Pipeline([node(lambda x: x, output_name="same")], backend=backend).run(x=1)  # the worker is there
        with pytest.raises(PipelineTimeoutError, match=r"node 'ask' was waiting for limit 'api' \(1/day\)"):
            pipeline.run(x=1)


def test_nothing_is_left_when_a_call_fails(scratch: Path) -> None:
    @node(limit="api")
    def ask(x: int) -> int:
        raise ValueError(x)

    with LocalBackend(engine="multiprocess", max_workers=2) as backend:
        with pytest.raises(ValueError, match="0"):
            Pipeline([ask], limits={"api": 1}, backend=backend).map(items(4))
        assert os.listdir(scratch) == []


@pytest.mark.slow
def test_ctrl_c_while_workers_wait_leaves_nothing(run_script: Callable[..., Any], scratch: Path) -> None:
    program = run_script(
        textwrap.dedent(
            """
            from hypernodes import LocalBackend, Pipeline, node

            @node(limit="api")
            def ask(x):
                print("in", flush=True)
                return x

            backend = LocalBackend(engine="multiprocess", max_workers=2)
            Pipeline([ask], limits={"api": "1/day"}, backend=backend).map([{"x": x} for x in range(8)])
            """
        )
    )
    assert program.stdout.readline() == "in\n"
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors.splitlines()[-1]
    assert [name for name in os.listdir(scratch) if name.startswith("hypernodes")] == []


def test_pool_that_stays_open_keeps_no_files_of_runs_that_are_over(scratch: Path) -> None:
    @node(limit="api")
    def files(x: int) -> int:
        return len(os.listdir("/proc/self/fd"))

    with LocalBackend(engine="multiprocess", max_workers=1) as backend:
        pipeline = Pipeline([files], limits={"api": 1}, backend=backend)
        counts = [pipeline.map(items(1), output_name="files")[0] for _ in range(30)]
    assert max(counts[20:]) == max(counts[10:20])
