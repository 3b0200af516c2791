"""Images, files, secrets, volumes, dicts and queues, from the program outside and from inside a container."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from hypernodes_modal.testing import LocalModal

BUILD_ERROR = getattr(modal.exception, "ImageBuildError", modal.exception.RemoteError)  # the name of older versions
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def made_run() -> Any:
    def run(code: str, **names: Any) -> Any:
        """Run code inside, and give what it names `result`."""
        exec(code, names)
        return names["result"]

    return run


def named() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands on this machine: a package, a directory of data."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("from shop.prices import PRICE\n")
    (folder / "shop" / "prices.py").write_text("PRICE = 42\n")
    (folder / "data").mkdir()
    (folder / "data" / "words.txt").write_text("one two")
    return folder


@pytest.fixture(scope="module")
def run(local_modal_session: LocalModal, folder: Path) -> Iterator[Any]:
    """One function in a container that has an image, files, secrets and volumes of both versions."""
    sys.path.insert(0, str(folder))
    there = folder / "there"
    image = (
        modal.Image.debian_slim(python_version=HERE)
        .pip_install("torch==9.9")
        .env({"SHOP": "open"})
        .add_local_dir(folder / "data", str(there / "data"))
        .add_local_python_source("shop")
    )
    volumes = {
        str(there / "one"): modal.Volume.from_name("one", create_if_missing=True, version=1),
        str(there / "two"): modal.Volume.from_name("two", create_if_missing=True, version=2),
    }
    app = modal.App("objects", image=image)
    function = app.function(
        serialized=True,
        name="run",
        max_containers=1,
        volumes=volumes,
        secrets=[modal.Secret.from_dict({"KEY": "value"})],
    )(made_run())
    try:
        with app.run():
            yield function
    finally:
        sys.path.remove(str(folder))


# images ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_image_is_recorded_and_its_variables_are_set(run: Any, local_modal: LocalModal) -> None:
    assert run.remote("import os; result = os.environ['SHOP']") == "open"
    image = local_modal.images[-1]
    assert any("torch==9.9" in command for one in local_modal.images for command in one.commands)
    assert image.python == HERE


def built(image: modal.Image) -> None:
    app = modal.App("builds", image=image)
    app.function(serialized=True, name="run")(made_run())
    with app.run():
        pass


def test_an_image_is_built_once(local_modal: LocalModal) -> None:
    built(modal.Image.debian_slim(python_version=HERE).run_commands("echo once"))
    count = len(local_modal.images)
    built(modal.Image.debian_slim(python_version=HERE).run_commands("echo once"))
    assert len(local_modal.images) == count


def test_a_build_that_fails_tells_its_log(local_modal: LocalModal) -> None:
    local_modal.fail_builds = "no-such-package"
    try:
        with pytest.raises(BUILD_ERROR, match="no-such-package"):
            built(modal.Image.debian_slim(python_version=HERE).pip_install("no-such-package"))
    finally:
        local_modal.fail_builds = None


def test_an_image_with_a_python_that_is_not_there_says_so(local_modal: LocalModal) -> None:
    other = "3.12" if HERE != "3.12" else "3.13"
    with pytest.raises(BUILD_ERROR, match=f"no Python {other} for this image"):
        built(modal.Image.debian_slim(python_version=other))


def test_the_python_of_a_registry_image_is_known(local_modal: LocalModal) -> None:
    built(modal.Image.from_registry("ubuntu:22.04", add_python=HERE).pip_install("numpy"))
    assert local_modal.images[-1].python == HERE


# files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_local_packages_and_files_are_there(run: Any, local_modal: LocalModal, folder: Path) -> None:
    where, price = run.remote("import shop; result = (shop.__file__, shop.PRICE)")
    assert price == 42
    assert not where.startswith(str(folder))
    words = folder / "there" / "data" / "words.txt"
    assert run.remote("result = open(path).read()", path=str(words)) == "one two"


@pytest.mark.slow
def test_what_was_not_added_is_not_there(run: Any, local_modal: LocalModal, folder: Path) -> None:
    (folder / "forgotten.py").write_text("")
    with pytest.raises(ModuleNotFoundError, match="forgotten"):
        run.remote("import forgotten")


@pytest.mark.slow
def test_a_container_gets_none_of_this_process_variables(
    run: Any, local_modal: LocalModal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY_OUTSIDE", "x")
    assert "ONLY_OUTSIDE" not in run.remote("import os; result = dict(os.environ)")


@pytest.mark.slow
def test_files_copied_into_an_image_are_there_even_by_its_id(local_modal: LocalModal, folder: Path) -> None:
    there = folder / "copied"
    image = modal.Image.debian_slim(python_version=HERE).add_local_dir(folder / "data", str(there), copy=True)
    image.build(modal.App.lookup("builder", create_if_missing=True))
    app = modal.App("copied", image=modal.Image.from_id(image.object_id))
    function = app.function(serialized=True, name="run")(made_run())
    with app.run():
        assert function.remote("result = open(path).read()", path=str(there / "words.txt")) == "one two"


# secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_secrets_are_variables_inside(run: Any, local_modal: LocalModal) -> None:
    assert run.remote("import os; result = os.environ['KEY']") == "value"


def test_a_secret_that_is_not_there_is_named(local_modal: LocalModal) -> None:
    app = modal.App("secrets")
    app.function(serialized=True, name="run", secrets=[modal.Secret.from_name("hugging-face")])(made_run())
    with pytest.raises(modal.exception.NotFoundError, match="Secret 'hugging-face' not found"), app.run():
        pass


# volumes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_a_volume_are_put_listed_read_and_removed(local_modal: LocalModal, version: Any, folder: Path) -> None:
    name = named()
    volume = modal.Volume.from_name(name, create_if_missing=True, version=version)
    large = os.urandom(9_000_000)  # more than a block
    (folder / "large.bin").write_bytes(large)
    with volume.batch_upload() as batch:
        batch.put_file(folder / "large.bin", "/deep/large.bin")
        batch.put_directory(folder / "data", "/data")
    assert b"".join(volume.read_file("deep/large.bin")) == large
    assert {entry.path for entry in volume.listdir("/", recursive=True)} >= {"deep/large.bin", "data/words.txt"}
    volume.remove_file("/deep", recursive=True)
    assert {entry.path for entry in volume.listdir("/")} == {"data"}
    with pytest.raises(FileNotFoundError):
        b"".join(volume.read_file("deep/large.bin"))
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(folder / "data" / "words.txt", "/data/words.txt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "two"])
def test_a_volume_is_a_directory_inside(run: Any, local_modal: LocalModal, folder: Path, name: str) -> None:
    path = folder / "there" / name / "written"
    run.remote("open(path, 'w').write('inside'); result = None", path=str(path))
    run.remote(f"import modal; modal.Volume.from_name('{name}').commit(); result = None")
    volume = modal.Volume.from_name(name)
    assert b"".join(volume.read_file("written")) == b"inside"
    [known] = [one for one in local_modal.volumes if one.name == name]
    assert known.commits >= 1
    assert (known.path / "written").read_text() == "inside"


def test_a_volume_cannot_cover_what_this_machine_has(local_modal: LocalModal, folder: Path) -> None:
    volume = modal.Volume.from_name(named(), create_if_missing=True)
    app = modal.App("covering")
    app.function(serialized=True, name="run", volumes={str(folder / "data"): volume})(made_run())
    with pytest.raises(modal.exception.InvalidError, match="there is something at that path already"), app.run():
        pass


def test_no_path_leads_out_of_a_volume(local_modal: LocalModal) -> None:
    volume = modal.Volume.from_name(named(), create_if_missing=True)
    with pytest.raises(modal.exception.InvalidError, match="leads out of the volume"):
        b"".join(volume.read_file("../../../etc/passwd"))


# dicts and queues ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dict_is_shared_with_containers(run: Any, local_modal: LocalModal) -> None:
    name = named()
    shared = modal.Dict.from_name(name, create_if_missing=True)
    shared["outside"] = [1, 2]
    code = f"import modal; d = modal.Dict.from_name('{name}'); d['inside'] = d['outside'] + [3]; result = d.len()"
    assert run.remote(code) == 2
    assert shared["inside"] == [1, 2, 3]


def test_a_dict_does_what_dicts_do(modal_anywhere: object) -> None:
    with modal.Dict.ephemeral() as shared:
        shared.update({"a": 1, "b": 2})
        assert (shared.get("a"), shared.get("c", 3), shared.contains("b"), shared.len()) == (1, 3, True, 2)
        assert shared.pop("a") == 1
        assert dict(shared.items()) == {"b": 2}
        assert not shared.put("b", 9, skip_if_exists=True)
        shared.clear()
        assert list(shared.keys()) == []
        with pytest.raises(KeyError):
            shared["b"]


def test_a_queue_keeps_the_order(modal_anywhere: object) -> None:
    with modal.Queue.ephemeral() as queue:
        queue.put_many([1, 2, 3])
        queue.put(4, partition="other")
        assert (queue.len(), queue.len(total=True)) == (3, 4)
        assert [queue.get(), *queue.get_many(5)] == [1, 2, 3]
        assert queue.get(block=False) is None
        assert queue.get(partition="other", timeout=60) == 4
