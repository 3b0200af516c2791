"""Friendly names become the client's; what cannot be is refused when the backend is made, in a sentence."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import coiled
import pytest

from hypernodes import CoiledBackend
from hypernodes_coiled._cluster_options import FRIENDLY, REFUSED


def options(**given: Any) -> dict[str, Any]:
    found = dict(CoiledBackend(**given).options)
    del found["environ"]
    return found


# names ---------------------------------------------------------------------------------------------------------------


def test_friendly_names_are_translated() -> None:
    assert options(memory="512 GB", region="us-east-1", workers=20) == {
        "worker_memory": "512 GB",
        "region": "us-east-1",
        "n_workers": 20,
    }
    assert options(workers=(2, 40), cpu=4, gpu=1, disk="100 GiB", spot=True, threads_per_worker=1) == {
        "n_workers": [2, 40],
        "worker_cpu": 4,
        "worker_gpu": 1,
        "worker_disk_size": "100 GiB",
        "spot_policy": "spot_with_fallback",
        "worker_options": {"nthreads": 1, "resources": {"GPU": 1}},
    }
    assert options(spot=False) == {"spot_policy": "on-demand"}
    assert options(vm_types="m6i.xlarge") == {"worker_vm_types": ["m6i.xlarge"]}


def test_every_option_of_the_client_is_taken_by_its_own_name() -> None:
    assert options(scheduler_memory="8 GiB", worker_memory="16 GiB", arm=True, wait_for_workers=2, n_workers=4) == {
        "scheduler_memory": "8 GiB",
        "worker_memory": "16 GiB",
        "arm": True,
        "wait_for_workers": 2,
        "n_workers": 4,
    }


def test_the_names_are_those_of_the_installed_client() -> None:
    names = set(inspect.signature(coiled.Cluster.__init__).parameters)
    assert set(FRIENDLY.values()) <= names
    assert {"cloud", "asynchronous", "account", "package_sync"} <= names & set(REFUSED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"worker": 3}, "CoiledBackend has no option worker=; did you mean workers=?"),
        ({"spot_polcy": "spot"}, "CoiledBackend has no option spot_polcy=; did you mean spot_policy=?"),
        ({"secret": ["X"]}, "CoiledBackend has no option secret=; did you mean secrets=?"),
        ({"zzz": 1}, "CoiledBackend has no option zzz=; its own are those of coiled.Cluster"),
        ({"_n_worker_specs_per_host": 2}, "CoiledBackend has no option _n_worker_specs_per_host="),
        ({"account": "me"}, "CoiledBackend takes no account=: Coiled calls it workspace= now"),
        ({"asynchronous": True}, "CoiledBackend takes no asynchronous=: a backend waits for its cluster itself"),
        ({"package_sync": True}, "CoiledBackend takes no package_sync=: Coiled has replaced it"),
        ({"batch_job_ids": [1]}, "CoiledBackend takes no batch_job_ids=: it belongs to Coiled's batch jobs"),
    ],
)
def test_names_that_there_are_not_or_not_here(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        CoiledBackend(**given)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"workers": 2, "n_workers": 3}, "workers= and n_workers="),
        ({"memory": "8 GiB", "worker_memory": "8 GiB"}, "memory= and worker_memory="),
        ({"spot": True, "spot_policy": "spot"}, "spot= and spot_policy="),
        ({"threads_per_worker": 1, "worker_options": {"nthreads": 2}}, "threads_per_worker= and worker_options="),
    ],
)
def test_one_option_by_two_names(given: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=f"CoiledBackend: {re.escape(names)}.*two names of one option"):
        CoiledBackend(**given)


# values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "workers=0; give a whole number, 1 or more, or a range"),
        ({"workers": "20"}, "workers='20'; give a whole number"),
        ({"workers": True}, "workers=True; give a whole number"),
        ({"workers": (9, 2)}, "workers=[9, 2]; a range goes from the fewest to the most"),
        ({"memory": 512}, "memory=512; 512 means 512 bytes; write the unit: '16 GiB'"),
        ({"memory": "512"}, "memory='512'; '512' means 512 bytes; write the unit"),
        ({"memory": "512 apples"}, "memory='512 apples'; '512 apples' is no size; write it like '16 GiB'"),
        ({"memory": ("8 GiB", "x GiB")}, "'x GiB' is no size"),
        ({"scheduler_memory": 8}, "scheduler_memory=8; 8 means 8 bytes"),
        ({"cpu": 1}, "cpu=1; an x86 machine has 2 or more; a single one needs arm=True"),
        ({"cpu": "4"}, "cpu='4'; give a whole number of CPUs"),
        ({"cpu": (8, 4)}, "cpu=[8, 4]; a range goes from the fewest to the most"),
        ({"gpu": 0}, "gpu=0; give a whole number of GPUs, or True for one"),
        ({"disk": "10"}, "disk='10'; '10' means 10 bytes; write the unit: '100 GiB'"),
        ({"vm_types": [1]}, "vm_types=[1]; give names of machine types"),
        ({"idle_timeout": "soon"}, "idle_timeout='soon'; give a time such as '20 minutes'"),
        ({"spot": "always"}, "spot='always'; give True, False or one of 'on-demand', 'spot', 'spot_with_fallback'"),
        ({"region": ""}, "region=''; give a name"),
        ({"tags": {"a": 1}}, "tags={'a': 1}; give names and values, both text"),
        ({"threads_per_worker": 0}, "threads_per_worker=0; give a whole number, 1 or more"),
        ({"workers": 2, "wait_for_workers": 3}, "wait_for_workers=3; only 2 are started"),
        ({"workers": (1, 9), "wait_for_workers": 3}, "wait_for_workers=3; only 1 are started"),
        ({"region": "us-east-1", "backend_options": {"region": "us-east-2"}}, "backend_options= names a region too"),
        ({"no_worker_timeout": 0}, "no_worker_timeout=0; give seconds, more than 0"),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CoiledBackend(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vm_types": ["m6i.large"], "cpu": 4}, "vm_types= and cpu= do not go together: a type says how much"),
        ({"vm_types": "m6i.large", "worker_memory": "8 GiB"}, "vm_types= and worker_memory= do not go together"),
        ({"scheduler_vm_types": ["m6i.large"], "scheduler_cpu": 4}, "scheduler_vm_types= and scheduler_cpu= do not"),
        ({"software": "a", "container": "b"}, "software= and container= do not go together: each is a whole"),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CoiledBackend(**given)


def test_single_cpu_is_possible_on_arm() -> None:
    assert options(cpu=1, arm=True) == {"worker_cpu": 1, "arm": True}


# secrets -------------------------------------------------------------------------------------------------------------

HUSHED = "sk-do-not-show-me"


def test_secrets_are_in_no_repr_and_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CoiledBackend(secrets={"OPENAI_API_KEY": HUSHED}, workers=2)
    assert "OPENAI_API_KEY" in repr(backend)
    assert HUSHED not in repr(backend) + str(vars(backend))
    assert HUSHED.encode() not in pickle.dumps(backend)
    # where it arrives they are looked for in the environment
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        pickle.loads(pickle.dumps(backend)).secrets.reveal()
    monkeypatch.setenv("OPENAI_API_KEY", HUSHED)
    assert pickle.loads(pickle.dumps(backend)).secrets.reveal() == {"OPENAI_API_KEY": HUSHED}


def test_names_alone_are_taken_from_the_environment_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "first")
    backend = CoiledBackend(secrets=["OPENAI_API_KEY"])
    monkeypatch.setenv("OPENAI_API_KEY", HUSHED)
    assert backend.secrets.reveal() == {"OPENAI_API_KEY": HUSHED}


def test_backends_with_other_secrets_are_other_places() -> None:
    one, other = CoiledBackend(secrets={"KEY": "a"}), CoiledBackend(secrets={"KEY": "b"})
    assert one != other
    assert one == CoiledBackend(secrets={"KEY": "a"})
    assert hash(one) == hash(CoiledBackend(secrets={"KEY": "a"}))


@pytest.mark.parametrize(
    ("secrets", "error", "message"),
    [
        ("OPENAI_API_KEY", TypeError, "takes names of environment variables, ['OPENAI_API_KEY'], or names and values"),
        (["SURELY_NOT_SET"], ValueError, "secrets=['SURELY_NOT_SET'] are taken from the environment, which"),
        ({"KEY": 3}, TypeError, "secrets= gives 'KEY' a int; it must be text"),
        ({f"{HUSHED}=": "KEY"}, ValueError, "secrets= holds a name that no environment variable can have"),
    ],
)
def test_secrets_that_cannot_be(secrets: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        CoiledBackend(secrets=secrets)
    assert HUSHED not in str(caught.value)


def test_what_coiled_stores_is_no_secret() -> None:
    with pytest.raises(ValueError, match="secrets= and environ= both name 'KEY'; Coiled stores what environ= holds"):
        CoiledBackend(secrets={"KEY": HUSHED}, environ={"KEY": HUSHED})


def test_environ_is_named_in_the_repr_and_not_shown() -> None:
    shown = repr(CoiledBackend(environ={"MODE": "quiet"}, memory="16 GiB"))
    assert shown == "CoiledBackend(worker_memory='16 GiB', environ=['MODE'])"


# engines -------------------------------------------------------------------------------------------------------------


def test_dask_is_the_engine_and_any_that_can_run_on_a_worker_is_taken() -> None:
    from hypernodes.plugin import Engine

    class Elsewhere(Engine):
        name = "elsewhere"
        requires = frozenset({"ray.runtime"})

        def execute(self, *_: Any) -> Any:
            raise NotImplementedError

    for engine in (None, "dask", "threaded", "multiprocess", "sequential"):
        assert CoiledBackend(engine=engine).engine == engine
    with pytest.raises(ValueError, match=r"CoiledBackend cannot run engine 'elsewhere': it requires 'ray\.runtime'"):
        CoiledBackend(engine=Elsewhere())


def test_processes_are_refused_where_the_workers_may_start_none() -> None:
    with pytest.raises(ValueError, match="CoiledBackend cannot run engine 'multiprocess': it requires 'processes'"):
        CoiledBackend(engine="multiprocess", environ={"DASK_DISTRIBUTED__WORKER__DAEMON": "True"})


def test_nothing_is_started_and_nobody_is_asked_when_it_is_made() -> None:
    """Without a token: making it is fine."""
    assert CoiledBackend(memory="512 GB", region="us-east-1", workers=20).engine is None
