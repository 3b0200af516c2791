"""What a cluster is asked for with, and what a user reads when it does not start. No cluster runs here."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import Any

import dask.config
import pytest
from coiled_plane import TOKEN, ControlPlane
from coiled_support import HUSHED, backend, double

from hypernodes import CoiledBackend, Pipeline, PlaceError
from hypernodes_coiled import CoiledLoginError, CoiledStartError


def start(place: CoiledBackend) -> Any:
    return Pipeline(nodes=[double], backend=place).run(x=1)


def refused(plane: ControlPlane, place: CoiledBackend) -> dict[str, Any]:
    """What a cluster is asked for with, told by a control plane that then refuses it."""
    plane.answer("create", 403, {"message": "enough asked"})
    with pytest.raises(CoiledStartError, match="enough asked"):
        start(place)
    return plane.payload


# what is asked for ---------------------------------------------------------------------------------------------------


def test_words_of_the_user_arrive_in_what_is_asked_for(plane: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    place = CoiledBackend(
        memory="512 GB",
        region="us-east-1",
        workers=20,
        spot=True,
        tags={"team": "search"},
        environ={"MODE": "quiet"},
        software="prepared",
        credentials=None,
        idle_timeout="5 minutes",
    )
    asked = refused(plane, place)
    assert asked["workers"] == 20
    assert asked["worker_instance_types"] == ["m6i.32xlarge"]
    assert asked["env_name"] == "prepared"
    assert asked["tags"] == {"team": "search"}
    assert asked["environ"] == {"MODE": "quiet", "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    assert asked["scheduler_options"]["idle_timeout"] == "5 minutes"
    options = asked["options"]
    assert (options["region_name"], options["spot"], options["spot_on_demand_fallback"]) == ("us-east-1", True, True)
    (line,) = [one for one in caplog.messages if one.startswith("asking Coiled for")]
    assert "20 workers of m6i.32xlarge (128 CPUs, 512 GiB each), 2,560 CPUs in all" in line
    assert "nodes of plain Python use one CPU of it" in line


def test_memory_and_cpus_choose_a_machine_together(plane: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked = refused(plane, backend(memory="32 GiB", cpu=4, workers=3))
    assert asked["worker_instance_types"] == ["r6i.xlarge"]
    assert asked["worker_options"] == {"nthreads": 1}
    assert any("3 workers of r6i.xlarge (4 CPUs, 32 GiB each), 12 CPUs in all" in one for one in caplog.messages)


def test_range_of_workers_starts_with_the_fewest(plane: ControlPlane) -> None:
    assert refused(plane, backend(workers=(2, 40)))["workers"] == 2


def test_machine_types_and_gpus_are_passed_on(plane: ControlPlane) -> None:
    asked = refused(plane, backend(vm_types=["m7i.large", "m6i.large"], workers=2, spot=False))
    assert asked["worker_instance_types"] == ["m7i.large", "m6i.large"]
    assert asked["options"]["spot"] is False
    asked = refused(plane, backend(gpu=1))
    assert asked["worker_options"] == {"nthreads": 1, "resources": {"GPU": 1}}
    assert asked["worker_instance_types"] == ["g4dn.xlarge"]


def test_secrets_and_the_token_are_in_nothing_that_is_stored_or_logged(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = backend(secrets={"OPENAI_API_KEY": HUSHED})
    refused(plane, place)
    assert all(HUSHED.encode() not in request.raw for request in plane.requests)
    assert HUSHED not in json.dumps([request.path for request in plane.requests])
    assert HUSHED not in caplog.text + repr(place)
    assert TOKEN not in caplog.text


# who is asked --------------------------------------------------------------------------------------------------------


def test_missing_token_is_an_error_at_once_and_nobody_is_asked(plane: ControlPlane) -> None:
    with dask.config.set({"coiled.token": None}), pytest.raises(CoiledLoginError) as caught:
        start(backend())
    assert str(caught.value) == (
        "no token of a Coiled account is set; run `coiled login`, or set the variable DASK_COILED__TOKEN to a token of "
        "your Coiled account"
    )
    assert plane.requests == []
    assert isinstance(caught.value, PlaceError)


def test_token_that_was_set_after_dask_was_imported_counts(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_COILED__TOKEN", TOKEN)
    with dask.config.set({"coiled.token": None}):
        refused(plane, backend())


def test_wrong_token_is_an_error_and_no_browser_is_opened(plane: ControlPlane) -> None:
    with dask.config.set({"coiled.token": "wrong-token-1"}), pytest.raises(CoiledLoginError) as caught:
        start(backend())
    assert "wrong-token-1" not in str(caught.value)
    assert not plane.asked("login")
    assert not plane.asked("create")


def test_login_takes_no_time_worth_speaking_of(plane: ControlPlane) -> None:
    """One question, answered no: no retry, no wait. Bounded generously, the client would wait ten minutes."""
    started = time.monotonic()
    with dask.config.set({"coiled.token": "wrong-token-1"}), pytest.raises(CoiledLoginError):
        start(backend())
    assert [request.route for request in plane.requests] == ["user"]
    assert time.monotonic() - started < 60


def test_server_that_is_not_there(plane: ControlPlane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with dask.config.set({"coiled.server": nowhere}), pytest.raises(CoiledLoginError, match="could not be asked"):
        start(backend())


def test_workspace_that_is_not_the_users(plane: ControlPlane) -> None:
    with pytest.raises(CoiledLoginError, match=r"does not let this token in: .*elsewhere"):
        start(backend(workspace="elsewhere"))
    assert not plane.asked("create")


def test_client_that_is_too_old_reads_what_coiled_says(plane: ControlPlane) -> None:
    plane.answer("user", 426, {"message": "this client is too old; pip install --upgrade coiled"})
    with pytest.raises(CoiledLoginError, match="could not be asked: ServerError: this client is too old"):
        start(backend())


# what is answered ----------------------------------------------------------------------------------------------------


def test_quota_that_is_used_up_is_told_in_coileds_words(plane: ControlPlane) -> None:
    plane.answer("create", 403, {"message": "You have reached your quota of 100 CPUs"})
    with pytest.raises(CoiledStartError) as caught:
        start(backend(name="greedy"))
    assert str(caught.value) == (
        "Coiled did not start the cluster 'greedy': ServerError: You have reached your quota of 100 CPUs"
    )
    assert type(caught.value.__cause__).__name__ == "ServerError"


@pytest.mark.long
@pytest.mark.slow
def test_server_that_is_overloaded_for_a_moment_is_asked_again(plane: ControlPlane) -> None:
    plane.answer("create", 503, times=2)
    plane.answer("create", 403, {"message": "now it has time"})
    with pytest.raises(CoiledStartError, match="now it has time"):
        start(backend())
    assert len(plane.asked("create")) == 3


def test_account_without_a_cloud_is_told_how_to_set_one_up(plane: ControlPlane) -> None:
    plane.answer("create", 400, {"code": "NO_CLOUD_SETUP", "message": "Set up a cloud in your account's settings"})
    with pytest.raises(CoiledStartError, match=r"ClusterCreationError: Set up a cloud.* by running `coiled setup`"):
        start(backend())


def test_machine_that_no_cloud_has(plane: ControlPlane) -> None:
    with pytest.raises(CoiledStartError, match="Unable to find"):
        start(backend(memory="64 TiB"))
    assert not plane.asked("create")


def test_workers_that_do_not_start_are_told_with_their_reasons(plane: ControlPlane) -> None:
    plane.worker_errors = ["no capacity for m6i.large in us-east-1"] * 2
    plane.patience = 0
    with pytest.raises(CoiledStartError, match=r"no capacity for m6i\.large in us-east-1"):
        start(backend(workers=2))
    assert plane.clusters[0].deleted


def test_start_that_failed_is_tried_again_by_the_next_run(plane: ControlPlane) -> None:
    place = backend()
    refused(plane, place)
    refused(plane, place)
    assert len(plane.asked("create")) == 2
