"""What goes wrong at Modal: nothing is lost, hangs or goes on spending, and a sentence says what it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes import Failure, ModalBackend, Pipeline, PlaceError, VersionMismatchError, WorkerLostError, node
from hypernodes_modal import _image, _session
from hypernodes_modal.testing import LocalModal

pytestmark = pytest.mark.slow

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
same = node(lambda x: x, output_name="y", name="same")


def far(*nodes: Any, backend: Any, name: str = "far") -> Pipeline:
    return Pipeline(nodes=list(nodes), name=name, backend=backend)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


@pytest.fixture(scope="module")
def shared(client: Any) -> Iterator[Any]:
    with ModalBackend(max_concurrent=2, client=client, app_name="faults") as backend:
        yield backend


def until(true: Any) -> None:
    """Wait for what happens on the disk; `plane.wait` looks when something happens at the control plane."""
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise TimeoutError("waited a minute in vain")


# containers that die -------------------------------------------------------------------------------------------------


def waiting(folder: Path, at: int) -> Any:
    """A node that comes to item `at`, says so, and waits until it is told to go on."""

    @node(output_name="y")
    def wait(x: int) -> int:
        if x == at and not (folder / "go").exists():
            (folder / "come").write_text(os.environ["MODAL_TASK_ID"])
            while not (folder / "go").exists():
                time.sleep(0.01)
        return x

    return wait


@pytest.mark.parametrize("trouble", ["preempt", "crash"])
def test_item_whose_container_is_taken_away_runs_again(
    trouble: str, plane: LocalModal, shared: Any, tmp_path: Path
) -> None:
    found: list[Any] = []
    pipeline = far(waiting(tmp_path, 7), backend=shared)
    run = threading.Thread(target=lambda: found.extend(pipeline.map(rows(20), output_name="y")))
    run.start()
    until(lambda: (tmp_path / "come").exists() and (tmp_path / "come").read_text())
    taken = (tmp_path / "come").read_text()
    (container,) = [container for container in plane.containers if container.id == taken]
    getattr(plane, trouble)(container)
    (tmp_path / "go").touch()
    run.join(120)
    assert found == list(range(20))


def test_no_item_is_lost_while_containers_are_killed_and_preempted(plane: LocalModal, shared: Any) -> None:
    def work(x: int) -> int:
        time.sleep(0.005)
        return -x

    pipeline = far(node(work, output_name="y"), backend=shared)
    for seed in range(5):
        # An item that three containers died of is blamed, rightly or not: two faults in a map cannot do that.
        with plane.harm(2, seed=seed) as harm:
            while not harm.over:
                assert pipeline.map(rows(300), output_name="y") == [-x for x in range(300)]
        assert harm.injected == 2


def test_item_that_runs_too_long_is_stopped_and_fails_alone(client: Any) -> None:
    @node(output_name="y")
    def stall(x: int) -> int:
        while x == 1:
            time.sleep(0.01)
        return x

    with ModalBackend(timeout=5, max_concurrent=2, client=client, app_name="faults") as backend:
        found = far(stall, backend=backend).map(rows(3), output_name="y", on_error="return")
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], Failure)
    assert isinstance(found[1].error, WorkerLostError)
    assert "a container ran longer than the backend's timeout of 5 s, and was stopped" in found[1].message


def test_containers_that_die_as_they_start_are_no_fault_of_an_item(
    plane: LocalModal, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the backend calls in a container is found in /root first: here a package that ends the process.
    package = tmp_path / "hypernodes_modal"
    package.mkdir()
    dying = "import os, sys\nprint('no left-pad in this image', file=sys.stderr, flush=True)\nos._exit(7)\n"
    (package / "__init__.py").write_text(dying)
    monkeypatch.setattr(_image, "ALWAYS", tuple(name for name in _image.ALWAYS if name != "hypernodes_modal"))
    monkeypatch.setattr(_image, "plugins_for", lambda engine: _image.Plugins((), (), ()))
    image = modal.Image.debian_slim(python_version=THIS).add_local_dir(package, "/root/hypernodes_modal")
    backend = ModalBackend(image=image, packages=[], client=client, max_concurrent=1)
    with backend, pytest.raises(PlaceError) as caught:
        far(same, backend=backend).map(rows(3), on_error="return")
    first, *log = str(caught.value).splitlines()
    assert first.startswith("containers die as they start: ")
    assert "exit code 7; does the image hold what the backend's packages import?" in first
    assert re.search(r"\? `modal app logs ap-\w+` shows all that they said; the log ends with:$", first)
    assert log[-1] == "  no left-pad in this image"
    if "logs" in dir(modal.App):  # an older client cannot ask: then it is what Modal's error says
        assert plane.rpcs["AppFetchLogs"] >= 1


# images --------------------------------------------------------------------------------------------------------------


def test_build_that_fails_says_how_its_log_ends(plane: LocalModal, client: Any) -> None:
    plane.fail_builds = "no-such-package"
    try:
        image = modal.Image.debian_slim(python_version=THIS).uv_pip_install("no-such-package")
        backend = ModalBackend(image=image, client=client)
        with pytest.raises(PlaceError) as caught:
            far(same, backend=backend).run(x=1)
    finally:
        plane.fail_builds = None
    assert str(caught.value).startswith("the image could not be built: ")
    assert "no-such-package" in str(caught.value)
    assert str(caught.value).endswith("terminated with exit code 1")


def test_image_with_another_python_is_a_sentence_before_anything_is_unpickled(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a program under Python 3.99 would say it: the container compares this before it looks at the bytes.
    monkeypatch.setattr(_session, "_told", lambda stored: {"python": [3, 99], "stored": list(stored)})
    with pytest.raises(VersionMismatchError) as caught:
        far(same, backend=shared).run(x=1)
    assert str(caught.value) == (
        f"the pipeline was packed by Python 3.99, the image has Python {THIS}; give both the same, such as "
        "modal.Image.debian_slim(python_version='3.99')"
    )


def test_module_that_is_missing_in_the_image_is_named(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "missing_under_test.py").write_text("def work(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from missing_under_test import work  # type: ignore[import-not-found]

    backend = ModalBackend(packages=[], client=client, max_concurrent=1, app_name="faults-without-packages")
    with backend, pytest.raises(PlaceError, match="module 'missing_under_test', which the pipeline needs, is missing"):
        far(node(work, output_name="y"), backend=backend).run(x=1)


@pytest.mark.parametrize(
    "options",
    [{"secrets": ["no-such-thing"]}, {"volumes": {"/models": modal.Volume.from_name("no-such-thing")}}],
    ids=["secret", "volume"],
)
def test_secret_and_volume_that_do_not_exist_are_named(client: Any, options: dict[str, Any]) -> None:
    with (
        ModalBackend(client=client, app_name="faults", **options) as backend,
        pytest.raises(PlaceError, match=r"Modal found no such thing .*'no-such-thing' not found.*; is its name right"),
    ):
        far(same, backend=backend).run(x=1)


def test_app_that_was_stopped_by_somebody_else_ends_the_run_and_the_next_one_opens_another(
    plane: LocalModal, client: Any
) -> None:
    backend = ModalBackend(client=client, max_concurrent=1, app_name="stopped")
    pipeline = far(same, backend=backend)
    assert pipeline.run(x=1) == {"y": 1}
    (app,) = [app for app in plane.apps if app.name == "stopped"]
    plane.stop_app(app)
    with pytest.raises(PlaceError, match="stopped"):
        pipeline.run(x=2)
    assert pipeline.run(x=3) == {"y": 3}
    backend.close()


def test_wrong_token_is_refused_with_what_to_do(plane: LocalModal) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in plane.environ.items():
            patch.setenv(name, value)
        stranger = modal.Client.from_credentials("ak-wrong", "as-wrong")
    with pytest.raises(PlaceError, match=r"Modal refused the token: .*; run `modal token new`"):
        far(same, backend=ModalBackend(client=stranger)).run(x=1)


# what nobody waits for any more --------------------------------------------------------------------------------------


def counting(folder: Path, *, refused: int | None = None) -> Any:
    """A node that leaves a file for each item it has begun. All but the first wait until they are told to go on."""

    @node(output_name="y")
    def work(x: int) -> int:
        (folder / str(x)).touch()
        if x == refused:
            raise ValueError(f"{x} is refused")
        while x > 0 and not (folder / "go").exists():
            time.sleep(0.01)
        return x

    return work


def begun(plane: LocalModal, folder: Path) -> int:
    """How many items were begun, when those that are still under way have gone on and nothing runs any more."""
    (folder / "go").touch()
    idle(plane)
    return len(list(folder.iterdir())) - 1


WINDOW = 4
"""Chunks that are under way at once on two containers; the first ones are an item each, and they grow slowly."""


def test_after_a_failing_item_at_most_one_window_of_others_runs(plane: LocalModal, shared: Any, tmp_path: Path) -> None:
    far(same, backend=shared).map(rows(10))  # the containers are warm
    before = plane.rpcs["FunctionCallCancel"]
    with pytest.raises(ValueError, match="0 is refused"):
        far(counting(tmp_path, refused=0), backend=shared).map(rows(300))
    assert begun(plane, tmp_path) <= 1 + 4 * WINDOW  # of 300
    assert plane.rpcs["FunctionCallCancel"] > before


def idle(plane: LocalModal) -> None:
    """Waits until no container works on anything."""
    plane.wait(lambda: not any(container.running for container in plane.containers if container.alive))
    plane.wait(lambda: not any(function.pending for function in plane.functions))


def test_stream_that_is_closed_cancels_what_is_under_way(plane: LocalModal, shared: Any, tmp_path: Path) -> None:
    stream = far(counting(tmp_path), backend=shared).map_iter(rows(1000), output_name="y")
    assert next(stream) == 0
    stream.close()
    assert begun(plane, tmp_path) <= 200  # of 1,000; one was measured, and the chunks that follow are larger
    assert far(same, backend=shared).run(x=1) == {"y": 1}


SCRIPT = """
import os, sys, time
from hypernodes import LocalBackend, Pipeline, node
Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=LocalBackend(engine="threaded")).run(x=1)
from hypernodes import ModalBackend  # after places were opened: what closes them is older than Modal's client

@node(output_name="y")
def work(x: int) -> int:
    open(os.path.join({folder!r}, "begun"), "w").close()
    time.sleep({seconds})
    return x

if __name__ == "__main__":
    pipeline = Pipeline(nodes=[work], name="far", backend=ModalBackend(max_concurrent=1, app_name={name!r}))
    print(pipeline.map([{{"x": x}} for x in range({items})], output_name="y"))
"""


def script(plane: LocalModal, folder: Path, **values: Any) -> subprocess.Popen[str]:
    file = folder / "script.py"
    file.write_text(SCRIPT.format(folder=str(folder), **values))
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(file)],
        env={**os.environ, **plane.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


@pytest.mark.slow
def test_interrupt_stops_the_spending_and_leaves_no_wall_of_text(plane: LocalModal, tmp_path: Path) -> None:
    with script(plane, tmp_path, seconds=600, items=5, name="interrupted") as running:
        until(lambda: (tmp_path / "begun").exists())
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "KeyboardInterrupt" in told
    assert len(told.splitlines()) <= 30, told
    (app,) = [app for app in plane.apps if app.name == "interrupted"]
    assert app.stopped
    plane.wait(lambda: not any(one.alive for one in plane.containers if one.function.app is app))


@pytest.mark.slow
def test_program_that_ends_without_closing_stops_its_app(plane: LocalModal, tmp_path: Path) -> None:
    with script(plane, tmp_path, seconds=0, items=5, name="forgotten") as running:
        printed, told = running.communicate(timeout=120)
    assert (running.returncode, printed, told) == (0, "[0, 1, 2, 3, 4]\n", "")
    (app,) = [app for app in plane.apps if app.name == "forgotten"]
    assert app.stopped
