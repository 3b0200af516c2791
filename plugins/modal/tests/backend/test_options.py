"""What `ModalBackend` is given is looked at when it is made: nothing of this needs a server."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import modal
import pytest

from hypernodes import IncompatibleEngineError, LocalBackend, Pipeline, PlaceError, UnsendableError, node
from hypernodes.plugin import Demand, Engine, Feed, Outcome, Site, Stage
from hypernodes_modal import ModalBackend


@pytest.mark.parametrize(
    ("memory", "mib"),
    [("32GB", 32768), ("512MB", 512), ("0.5 GiB", 512), ("1tb", 1024**2), (256, 256), (("1GB", "2GB"), (1024, 2048))],
)
def test_memory_arrives_in_mib(memory: Any, mib: Any) -> None:
    assert ModalBackend(memory=memory).memory == mib


@pytest.mark.parametrize(
    "memory", ["32 gigs", "lots", "32", "-1GB", 0, -5, 1.5, True, "0GB", "9999TB", ("2GB", "1GB"), ("1GB",)]
)
def test_memory_that_modal_would_take_as_nothing_is_refused(memory: Any) -> None:
    with pytest.raises(ValueError, match="ModalBackend: memory="):
        ModalBackend(memory=memory)


def test_message_about_memory_says_what_to_write() -> None:
    with pytest.raises(ValueError) as caught:
        ModalBackend(memory="32 gigs")
    assert str(caught.value) == (
        "ModalBackend: memory='32 gigs'; give text such as '32GB' or '512MB', or a whole number of MiB"
    )


@pytest.mark.parametrize(("cpu", "cores"), [(4, 4.0), (0.5, 0.5), ("4", 4.0), ((1, 8), (1.0, 8.0))])
def test_processors_arrive_as_a_number(cpu: Any, cores: Any) -> None:
    assert ModalBackend(cpu=cpu).cpu == cores


@pytest.mark.parametrize("cpu", ["four", 0, -1, "0", float("nan"), 1e9, True, "", (4, 1)])
def test_processors_that_modal_would_take_as_nothing_are_refused(cpu: Any) -> None:
    with pytest.raises(ValueError, match="ModalBackend: cpu="):
        ModalBackend(cpu=cpu)


@pytest.mark.parametrize("gpu", ["A100", "a100", "H100:8", "A100-80GB", "B200+", "H100!", "T4", "A10G"])
def test_gpus_that_are_known_say_nothing(gpu: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ModalBackend(gpu=gpu).gpu == gpu.upper()


def test_unknown_gpu_is_a_warning_with_the_nearest_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="no GPU") as caught:
        backend = ModalBackend(gpu="A1000")
    assert str(caught[0].message) == (
        "ModalBackend: gpu='A1000' is no GPU that this version knows of (did you mean 'A100'?); it is sent to Modal as "
        "it is"
    )
    assert Path(caught[0].filename) == Path(__file__)
    assert backend.gpu == "A1000"


@pytest.mark.parametrize("gpu", ["", 5, "A100:", "A100:0", "A100:nine", "A100:9"])
def test_gpu_that_is_no_gpu_is_refused(gpu: Any) -> None:
    with pytest.raises(ValueError, match="ModalBackend: gpu="):
        ModalBackend(gpu=gpu)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": 100_000},
        {"timeout": 1.5},
        {"timeout": None},
        {"max_concurrent": 0},
        {"max_concurrent": "10"},
        {"retries": -1},
        {"retries": 11},
        {"min_containers": -1},
        {"min_containers": 11},
        {"buffer_containers": 1.5},
        {"scaledown_window": 1},
        {"packages": "my_package"},
        {"packages": ["not a name"]},
        {"packages": ["no_such_package"]},
        {"app_name": ""},
        {"app_name": 5},
        {"environment": ""},
        {"limits": 5},
        {"image": "python:3.11"},
        {"image": 5},
    ],
    ids=str,
)
def test_option_out_of_range_is_refused_by_its_name(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"ModalBackend: {name}="):
        ModalBackend(**options)


def test_what_is_no_client_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r"ModalBackend: client is a str; give a modal\.Client") as caught:
        ModalBackend(client="as-s3cret")
    assert "s3cret" not in str(caught.value)


def test_message_about_a_timeout_says_what_may_be_given() -> None:
    with pytest.raises(ValueError) as caught:
        ModalBackend(timeout=100_000)
    assert str(caught.value) == "ModalBackend: timeout=100000; give a whole number of seconds from 1 to 86,400"


@pytest.mark.parametrize("path", ["models", "/", "/root", "/tmp", "/a/../b", 5])
def test_path_that_nothing_can_be_mounted_at_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="cannot be mounted at"):
        ModalBackend(volumes={path: modal.Volume.from_name("models")})


def test_volumes_may_be_given_by_name() -> None:
    volumes = ModalBackend(volumes={"/models": "models", "/data": modal.Volume.from_name("data")}).volumes
    assert [type(volume) for volume in volumes.values()] == [modal.Volume, modal.Volume]


def test_what_is_no_volume_is_named_by_its_path() -> None:
    with pytest.raises(ValueError, match="what is mounted at '/models' is no volume"):
        ModalBackend(volumes={"/models": 5})


def test_secrets_may_be_given_by_name_and_are_never_shown() -> None:
    backend = ModalBackend(secrets=["huggingface", modal.Secret.from_dict({"TOKEN": "s3cret"})])
    assert all(isinstance(secret, modal.Secret) for secret in backend.secrets)
    assert "s3cret" not in repr(backend)
    for secrets in ({"TOKEN": "s3cret"}, [{"TOKEN": "s3cret"}], "TOKEN", 5):
        if secrets == "TOKEN":
            with pytest.raises(ValueError, match="secrets is a str"):
                ModalBackend(secrets=secrets)
            continue
        with pytest.raises(ValueError, match="secrets") as caught:
            ModalBackend(secrets=secrets)  # type: ignore[arg-type]
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("option", ["node_execution", "map_execution"])
def test_sequential_modes_are_refused_on_a_cloud(option: str) -> None:
    with pytest.raises(IncompatibleEngineError) as caught:
        ModalBackend(**{option: "sequential"})
    assert str(caught.value) == (
        f"ModalBackend: {option}='sequential' makes no sense here, it takes 'async', 'parallel'"
    )


def test_sequential_engine_is_refused_too() -> None:
    assert ModalBackend(engine="threaded").map_execution == "parallel"
    with pytest.raises(IncompatibleEngineError) as caught:
        ModalBackend(engine="sequential")
    assert str(caught.value).startswith(
        "ModalBackend cannot run engine 'sequential': it runs one item after another, and containers are there to run "
        "many; leave engine= out; backends that can: local"
    )


class OtherEngine(Engine):
    """An engine that never gets to run anything."""

    name: ClassVar[str] = "other"

    def execute(self, stage: Stage, tasks: Feed, site: Site) -> Iterator[Outcome]:
        raise AssertionError("nothing runs here")


class DrivenEngine(OtherEngine):
    name: ClassVar[str] = "driven"
    requires: ClassVar[frozenset[str]] = frozenset({"cluster.client"})


class DaskEngine(OtherEngine):
    name: ClassVar[str] = "dask"


def test_engines_that_drive_a_cluster_are_refused_with_the_reason() -> None:
    with pytest.raises(IncompatibleEngineError) as caught:
        ModalBackend(engine=DrivenEngine())
    assert str(caught.value).startswith(
        "ModalBackend cannot run engine 'driven': it requires 'cluster.client', and backend 'modal' provides "
        "'machine', 'modal', 'processes', 'threads'; backends that can: "
    )
    with pytest.raises(IncompatibleEngineError, match="Dask schedules over a cluster of its own"):
        ModalBackend(engine=DaskEngine())
    assert ModalBackend(engine=OtherEngine()).map_execution == "parallel"


@pytest.mark.parametrize("modes", [(None, None), ("async", None), (None, "async"), ("parallel", "async")])
def test_modes_that_are_left_out_are_filled_in(modes: tuple[str | None, str | None]) -> None:
    backend = ModalBackend(node_execution=modes[0], map_execution=modes[1])
    assert backend.node_execution == modes[0]  # None: one node after another, within a container
    assert backend.map_execution == (modes[1] or "parallel")


def test_engine_that_only_modal_has_is_refused_elsewhere() -> None:
    with pytest.raises(IncompatibleEngineError, match=r"it requires 'modal'.*backends that can: modal"):
        LocalBackend(engine="container")


def test_backends_that_are_alike_are_equal_and_have_a_hash() -> None:
    volumes = {"/models": modal.Volume.from_name("models")}
    one, other = (ModalBackend(gpu="A100", volumes=volumes) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != ModalBackend(gpu="T4", volumes=volumes)


def test_changed_copy_is_checked_again() -> None:
    backend = ModalBackend(memory="1GB", cpu=2, gpu="T4")
    assert dataclasses.replace(backend, gpu="L4").memory == 1024
    with pytest.raises(ValueError, match="ModalBackend: memory="):
        dataclasses.replace(backend, memory="none")


def test_copy_of_a_backend_is_itself() -> None:
    backend = ModalBackend(volumes={"/models": "models"})
    assert copy.copy(backend) is copy.deepcopy(backend) is backend


def test_backend_stays_at_home() -> None:
    with pytest.raises(TypeError, match="a ModalBackend stays in the program that runs the pipeline"):
        pickle.dumps(ModalBackend())


@pytest.mark.parametrize(
    ("kind", "make", "instead"),
    [
        ("Secret", lambda: modal.Secret.from_dict({"TOKEN": "s3cret"}), "secrets="),
        ("Image", modal.Image.debian_slim, "image="),
        ("Volume", lambda: modal.Volume.from_name("models"), "volumes="),
    ],
)
def test_what_belongs_to_modal_is_not_sent_inside_of_a_node(kind: str, make: Any, instead: str) -> None:
    ModalBackend()
    held = make()

    @node(output_name="y")
    def use(x: int) -> Any:
        return held, x

    away = Pipeline(nodes=[use], name="away", backend=LocalBackend(engine="multiprocess", max_workers=1))
    with pytest.raises(UnsendableError) as caught:
        away.run(x=1)
    assert f"a modal.{kind} cannot be sent along; give it to ModalBackend({instead}" in str(caught.value)
    assert "node 'away > use'" in str(caught.value)
    assert "s3cret" not in str(caught.value)


# what a container is asked for ---------------------------------------------------------------------------------------


def test_nodes_that_need_more_get_a_larger_container_and_never_a_smaller() -> None:
    backend = ModalBackend(gpu="A100", memory="4GB", cpu=2)
    assert "gpu" in backend.function_options(Demand())
    asked = backend.function_options(Demand(cpus=8, gpus=2, memory=16 * 1024**3))
    assert (asked["gpu"], asked["cpu"], asked["memory"]) == ("A100:2", 8.0, 16384)
    asked = backend.function_options(Demand(cpus=1, gpus=1, memory=1024**3))
    assert (asked["gpu"], asked["cpu"], asked["memory"]) == ("A100", 2.0, 4096)


def test_nodes_that_need_a_gpu_where_none_is_named_say_how_to_name_one() -> None:
    with pytest.raises(PlaceError, match=r"asks for 1 GPUs?, and this ModalBackend names none"):
        ModalBackend().function_options(Demand(gpus=1))


def test_estimate_says_what_a_container_costs_and_as_of_when() -> None:
    inner = node(lambda x: x, output_name="y")
    told = Pipeline(nodes=[inner], backend=ModalBackend(gpu="A100", memory="32GB", cpu=4, max_concurrent=100)).explain()
    (place,) = told.workers.values()
    assert place.endswith(
        "up to 100 containers; about $2.54 an hour for each, $254.40 for all, by the prices of June 2026"
    )
    with pytest.warns(UserWarning, match="no GPU"):
        unknown = ModalBackend(gpu="X1", max_concurrent=2)
    assert unknown.about() == "up to 2 containers; the price of gpu 'X1' is not known here"


# without a token -----------------------------------------------------------------------------------------------------

NO_TOKEN = """
import time
from hypernodes import ModalBackend, PlaceError, Pipeline, node
started = time.perf_counter()
try:
    Pipeline(nodes=[node(lambda x: x, output_name="y")], backend=ModalBackend()).run(x=1)
except PlaceError as error:
    print(error)
    print(round(time.perf_counter() - started, 2))
"""


@pytest.mark.slow
def test_missing_token_is_said_at_once_with_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "modal.toml"))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_TOKEN], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert ran.stdout.startswith(
        "no Modal token here; run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"
    ), ran.stderr


def test_importing_the_package_loads_no_modal() -> None:
    code = "import sys, hypernodes_modal, hypernodes_modal._plugin; assert 'modal' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
