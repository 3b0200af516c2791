"""What arrives at Modal: apps, images, containers and what is in them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes import Failure, LocalBackend, ModalBackend, Pipeline, node
from hypernodes.testing import EventLog
from hypernodes_modal import default_image, uv_image
from hypernodes_modal.testing import LocalModal

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def image() -> modal.Image:
    """An image of this test's own, so that its app is its own too."""
    return modal.Image.debian_slim(python_version=THIS)


# A lambda travels by value: containers do not see the modules of this folder.
where = node(lambda x: (os.environ["MODAL_TASK_ID"], os.getpid()), output_name="container", name="where")


def far(*nodes: Any, backend: Any, name: str = "far") -> Pipeline:
    return Pipeline(nodes=list(nodes), name=name, backend=backend)


@pytest.fixture(scope="module")
def shared(client: Any) -> Iterator[Any]:
    with ModalBackend(max_concurrent=2, client=client, app_name="places") as backend:
        yield backend


# what a container is asked for ---------------------------------------------------------------------------------------


def test_every_option_arrives_as_it_was_meant(plane: LocalModal, client: Any, image: Any, tmp_path: Path) -> None:
    @node(output_name="found")
    def look(x: Any) -> Any:
        (tmp_path / "models" / "made").write_text("here")
        return os.environ["NAMED_TOKEN"], os.environ["OWN_TOKEN"]

    backend = ModalBackend(
        image=image,
        gpu="A100",
        memory="32GB",
        cpu="4",
        timeout=1800,
        volumes={str(tmp_path / "models"): modal.Volume.from_name("models", create_if_missing=True)},
        secrets=["named", modal.Secret.from_dict({"OWN_TOKEN": "s3cret"})],
        max_concurrent=100,
        retries=2,
        buffer_containers=1,
        scaledown_window=300,
        client=client,
    )
    with backend:
        assert far(look, backend=backend).run(x=1) == {"found": ("of-the-name", "s3cret")}
        function = next(one for one in reversed(plane.functions) if one.resources.memory_mb)
        assert (function.resources.memory_mb, function.resources.milli_cpu) == (32768, 4000)
        assert (function.gpu, function.timeout) == ("A100", 1800)
        assert function.settings.max_containers == 100
        assert function.settings.buffer_containers == 1
        assert function.settings.scaledown_window == 300
        assert function.definition.retry_policy.retries == 2
    (volume,) = [volume for volume in plane.volumes if volume.name == "models"]
    assert (volume.path / "made").read_text() == "here"


def test_containers_that_wait_are_asked_for_with_everything_else(plane: LocalModal, client: Any, image: Any) -> None:
    backend = ModalBackend(image=image, min_containers=1, memory="1GB", max_concurrent=1, client=client)
    with backend:
        far(where, backend=backend).run(x=1)
        function = plane.functions[-1]
        assert function.base == ""
        assert (function.settings.min_containers, function.resources.memory_mb) == (1, 1024)


def test_node_that_needs_more_runs_in_a_larger_container(plane: LocalModal, client: Any, shared: Any) -> None:
    heavy = node(where.func, output_name="container", resources={"cpus": 2, "memory": "4GiB"})
    found = far(heavy, backend=shared).run(x=1, output_name="container")
    (container,) = [container for container in plane.containers if container.id == found[0]]
    assert container.function.resources.memory_mb == 4096
    assert container.function.resources.milli_cpu == 2000
    assert found != far(where, backend=shared).run(x=1, output_name="container")


# apps ----------------------------------------------------------------------------------------------------------------


def test_app_stays_warm_over_runs_and_closes_when_it_is_told(plane: LocalModal, client: Any, image: Any) -> None:
    backend = ModalBackend(image=image, client=client, app_name="warm")
    pipeline = far(where, backend=backend)
    first = pipeline.run(x=1)
    assert pipeline.run(x=2) == first
    (app,) = [app for app in plane.apps if app.name == "warm"]
    assert not app.stopped
    backend.close()
    assert app.stopped
    assert pipeline.run(x=3) != first  # it opens again when it is needed
    backend.close()
    backend.close()


def test_backends_with_one_image_share_one_app(plane: LocalModal, client: Any, image: Any) -> None:
    options: Any = {"image": image, "client": client, "app_name": "family", "max_concurrent": 1}
    small, large = ModalBackend(memory="1GB", **options), ModalBackend(memory="2GB", **options)
    pipeline = Pipeline(
        nodes=[
            far(where, backend=small, name="small"),
            far(node(where.func, output_name="other"), backend=large, name="large"),
        ],
        name="main",
    )
    with small, large:
        found = pipeline.run(x=1)
        assert found["container"] != found["other"]
        (app,) = [app for app in plane.apps if app.name == "family"]
        small.close()
        assert not app.stopped
    assert app.stopped


def test_image_may_be_a_function_or_the_id_of_a_built_one(plane: LocalModal, client: Any) -> None:
    def make() -> modal.Image:
        return default_image("left-pad==1.3", python=THIS)

    with ModalBackend(image=make, client=client, max_concurrent=1) as backend:
        assert far(where, backend=backend).run(x=1)
        built = plane.images[-1]
    assert any("left-pad==1.3" in command for command in built.commands)
    with ModalBackend(image=built.id, client=client, max_concurrent=1) as backend:
        assert far(where, backend=backend).run(x=1)


def test_default_image_has_this_python_and_builds_nothing_for_hypernodes(plane: LocalModal, shared: Any) -> None:
    far(where, backend=shared).run(x=1)
    assert {image.python for image in plane.images} == {THIS}
    assert not any("hypernodes" in command for image in plane.images for command in image.commands)


def test_project_of_uv_comes_along_with_its_locked_dependencies(
    plane: LocalModal, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "project" / "src" / "uv_project_under_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from pathlib import Path\n")
    (package / "words.txt").write_text("from a file beside the code")
    (package / "work.py").write_text(
        "from pathlib import Path\n\n\ndef read(x):\n    return Path(__file__).with_name('words.txt').read_text(), x\n"
    )
    project = tmp_path / "project"
    (project / "pyproject.toml").write_text('[project]\nname = "under-test"\nversion = "1"\ndependencies = []\n')
    (project / "uv.lock").write_text("version = 1\n")
    monkeypatch.syspath_prepend(str(project / "src"))
    from uv_project_under_test.work import read  # type: ignore[import-not-found]

    backend = ModalBackend(image=uv_image(project, python=THIS), client=client, packages=[], max_concurrent=1)
    with backend:
        found = far(node(read, output_name="words"), backend=backend).run(x=1)
    assert found == {"words": ("from a file beside the code", 1)}
    assert any("uv sync" in command for command in plane.images[-1].commands)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no pyproject.toml"),
        ({"pyproject.toml": "[project]\n"}, "holds no uv.lock; run `uv lock` there"),
        ({"pyproject.toml": "[tool.uv.workspace]\nmembers = []\n", "uv.lock": ""}, "is a uv workspace"),
    ],
)
def test_folder_that_is_no_project_of_uv_is_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        uv_image(tmp_path)


def test_imported_packages_of_the_user_come_along(
    client: Any, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "users_package_under_test"
    package.mkdir()
    (package / "__init__.py").write_text("BASE = 40\n")
    (package / "add.py").write_text("from users_package_under_test import BASE\n\n\ndef add(x):\n    return BASE + x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from users_package_under_test.add import add  # type: ignore[import-not-found]

    with ModalBackend(image=image, client=client, max_concurrent=1) as backend:
        assert far(node(add, output_name="sum"), backend=backend).run(x=2) == {"sum": 42}


# modes and engines ---------------------------------------------------------------------------------------------------


def test_items_are_spread_over_containers(plane: LocalModal, client: Any, image: Any, tmp_path: Path) -> None:
    @node(output_name="container")
    def meet(x: int) -> str:
        """Waits until another container has come, so that one alone cannot do both."""
        (tmp_path / os.environ["MODAL_TASK_ID"]).touch()
        while len(list(tmp_path.iterdir())) < 2:
            pass
        return os.environ["MODAL_TASK_ID"]

    with ModalBackend(image=image, client=client, max_concurrent=2) as backend:
        found = far(meet, backend=backend).map([{"x": x} for x in range(2)], output_name="container")
    assert len(set(found)) == 2


def test_async_items_are_awaited_together_in_one_container(client: Any, image: Any) -> None:
    met: Any = asyncio.Event  # made over there: one for the container's loop

    @node(output_name="y")
    async def meet(x: int) -> int:
        import builtins

        waiting = builtins.__dict__.setdefault("waiting_under_test", [])
        event = met()
        waiting.append(event)
        if len(waiting) % 4 == 0:
            for one in waiting[-4:]:
                one.set()
        await asyncio.wait_for(event.wait(), 60)
        return x

    inner = Pipeline(nodes=[meet], name="inner").as_node(input_mapping={"xs": "x"}, map_over="xs")
    backend = ModalBackend(image=image, map_execution="async", node_execution="async", max_concurrent=1, client=client)
    with backend:
        assert far(inner, backend=backend).run(xs=[0, 1, 2, 3]) == {"y": [0, 1, 2, 3]}


def test_nodes_of_an_item_overlap_where_it_is_asked_for(client: Any, image: Any) -> None:
    import threading

    @node(output_name="both")
    def both(x: Any) -> Any:
        import builtins

        return builtins.__dict__.setdefault("barrier_under_test", threading.Barrier(2)) and x

    def meet(both: Any) -> Any:
        import builtins

        builtins.__dict__["barrier_under_test"].wait(60)
        return both

    nodes = [both, node(meet, output_name="a", name="a"), node(meet, output_name="b", name="b")]
    with ModalBackend(image=image, node_execution="parallel", max_concurrent=1, client=client) as backend:
        assert far(*nodes, backend=backend).run(x=7) == {"both": 7, "a": 7, "b": 7}


def test_engine_of_another_plugin_runs_inside_of_the_containers(client: Any, shared: Any) -> None:
    import threading

    @node(output_name="thread")
    def thread(x: Any) -> Any:
        return threading.current_thread().name, os.environ["MODAL_TASK_ID"]

    backend = ModalBackend(engine="threaded", max_workers=2, max_concurrent=1, client=client, app_name="places")
    with backend:
        name, container = far(thread, backend=backend).run(x=1, output_name="thread")
    assert name.startswith("hypernodes-threaded")
    assert container


# nesting -------------------------------------------------------------------------------------------------------------


def test_local_in_modal_in_local_comes_home_in_between(shared: Any) -> None:
    process = node(lambda x: os.getpid(), output_name="process")
    home = Pipeline(nodes=[node(lambda process: os.getpid(), output_name="here")], name="home", backend=LocalBackend())
    again = node(lambda here, x: (os.getpid(), 1 // x), output_name="again")
    log = EventLog()
    main = Pipeline(nodes=[far(process, home, again, backend=shared)], name="main", callbacks=[log])
    found = main.run(x=1)
    assert found["here"] == os.getpid()
    assert found["process"] == found["again"][0] != os.getpid()
    (failure,) = main.map([{"x": 0}], on_error="return", output_name="again")
    assert isinstance(failure, Failure)
    assert failure.path == ("main", "far", "again")
    assert failure.hops == "main (local:sequential) > far (modal:container) > again"


def test_modal_inside_of_modal_that_inherits_stays_in_its_container(plane: LocalModal, shared: Any) -> None:
    inner = Pipeline(nodes=[node(where.func, output_name="inner")], name="inner")
    calls = plane.rpcs["FunctionMap"]
    found = far(where, inner, backend=shared).run(x=1)
    assert found["inner"] == found["container"]
    assert plane.rpcs["FunctionMap"] == calls + 1


# what is sent --------------------------------------------------------------------------------------------------------


def large_node(size: int) -> Any:
    weights = os.urandom(size)
    return node(lambda x: (x, len(weights)), output_name="y")


def test_large_pipeline_crosses_once_for_an_app_and_not_with_each_call(plane: LocalModal, shared: Any) -> None:
    before = plane.rpcs.copy()
    pipeline = far(large_node(12_000_000), backend=shared)
    for _ in range(3):
        found = pipeline.map([{"x": x} for x in range(100)], output_name="y")
        assert found == [(x, 12_000_000) for x in range(100)]
    used = plane.rpcs - before
    assert used["FunctionMap"] > 3
    assert used["DictUpdate"] == 1
    assert used["DictGet"] <= 3  # once in each container


def test_large_input_that_items_share_crosses_once(plane: LocalModal, shared: Any) -> None:
    before = plane.rpcs.copy()
    table = os.urandom(3_000_000)
    pick = node(lambda table, x: table[x], output_name="y")
    pipeline = far(pick, backend=shared)
    rows = [{"x": x} for x in range(400)]
    assert pipeline.map(rows, inputs={"table": table}, output_name="y") == [table[x] for x in range(400)]
    assert (plane.rpcs - before)["DictUpdate"] == 1


def test_request_that_is_too_large_says_to_use_a_volume(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypernodes import PlaceError
    from hypernodes_modal import _session

    monkeypatch.setattr(_session, "LARGEST", 4 * 1024**2)
    same = node(lambda data: len(data), output_name="y")
    with pytest.raises(PlaceError) as caught:
        far(same, backend=shared).run(data=os.urandom(5 * 1024**2))
    assert str(caught.value) == (
        "5 MB would be sent to Modal at once, and 4 MB is the most; put large values into a modal.Volume, mount it "
        "with ModalBackend(volumes=...), and pass their paths"
    )


# how it is called ----------------------------------------------------------------------------------------------------


def test_plain_and_async_calls_work_inside_of_a_running_loop(shared: Any) -> None:
    pipeline = far(where, backend=shared)

    async def main() -> None:
        plain = pipeline.map([{"x": x} for x in range(4)], output_name="container")
        assert len(await pipeline.amap([{"x": x} for x in range(4)], output_name="container")) == len(plain) == 4

    asyncio.run(main())


def test_cost_is_told_after_a_run_with_what_modal_billed(client: Any) -> None:
    with LocalModal(capacity=1, rates={"cpu": "100000", "memory": "100000"}) as plane:
        with plane.client() as own, ModalBackend(max_concurrent=1, client=own, cpu=2) as backend:
            nothing = backend.cost()
            assert (nothing.calls, nothing.containers, nothing.seconds, nothing.estimate) == (0, 0, 0, 0)
            far(where, backend=backend).map([{"x": x} for x in range(50)])
            cost = backend.cost()
            assert cost.calls >= 1
            assert cost.containers == 1
            assert cost.estimate is not None
            assert 0 < cost.estimate < cost.seconds
            assert "by the prices of June 2026" in str(cost)
            if "Workspace" in modal.__dict__:  # before 1.5.4 Modal's client cannot ask
                assert cost.billed is not None
                assert cost.billed > 0
                assert "; Modal billed $" in str(cost)
