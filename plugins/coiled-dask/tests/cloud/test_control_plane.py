"""The control plane for tests keeps its word: Coiled's own client, real machines, and all of it on the loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import coiled
import distributed
import psutil
import pytest
from coiled_plane import TOKEN, ControlPlane

OPTIONS: dict[str, Any] = {
    "software": "prepared",
    "credentials": None,
    "show_widget": False,
    "configure_logging": False,
    "worker_options": {"nthreads": 1},
}


@pytest.mark.long
@pytest.mark.slow
def test_coileds_own_client_gets_a_cluster_over_tls_that_it_can_scale(plane: ControlPlane) -> None:
    with (
        coiled.Cloud(server=plane.url, token=TOKEN) as cloud,
        coiled.Cluster(n_workers=1, region="us-east-1", cloud=cloud, **OPTIONS) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
        assert client.submit(os.getpid).result(60) != os.getpid()
        cluster.send_private_envs({"HUSHED": "yes"})
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        # one was there when the variable was sent, the other came later
        assert set(client.run(os.getenv, "HUSHED").values()) == {"yes"}
        assert _listening(plane) == {"127.0.0.1"}
        cluster.scale(1)
        assert len(plane.clusters[0].workers) == 1
    assert plane.clusters[0].deleted
    assert _processes(plane) == []
    assert plane.payload["options"]["region_name"] == "us-east-1"
    assert not plane.asked("login")


def test_request_that_no_route_answers_is_told(tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    with ControlPlane(tmp_path) as plane, pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{plane.url}/api/v9/surprise")
    caught.value.close()
    assert caught.value.code == 404
    assert plane.unknown == ["GET /api/v9/surprise"]


def test_nobody_is_let_in_without_the_token(tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    with ControlPlane(tmp_path) as plane, pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{plane.url}/api/v2/user/me")
    caught.value.close()
    assert caught.value.code == 401


FORSAKE = """
import os, sys, signal
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coiled_plane import ControlPlane
payload = {"name": "orphan", "workers": 1, "scheduler_options": {}, "worker_options": {}, "worker_class": None,
           "worker_instance_types": None, "dask_config": {}, "environ": {}}
cluster = ControlPlane(Path(sys.argv[2])).create(payload)
cluster.settle(60)
print(cluster.look(), *[machine.process.pid for machine in (cluster.scheduler, *cluster.workers)], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.long
@pytest.mark.slow
def test_machines_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORSAKE, str(Path(__file__).parent), str(tmp_path)]
    forsaken = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120)
    assert forsaken.returncode == -signal.SIGKILL
    state, *pids = forsaken.stdout.split()
    assert state == "ready"
    until = time.monotonic() + 60
    while any(map(psutil.pid_exists, map(int, pids))) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, map(int, pids)))


def _processes(plane: ControlPlane) -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if str(plane.folder) in str(_cwd(child))]


def _cwd(process: psutil.Process) -> str:
    try:
        return str(process.cwd())
    except psutil.Error:
        return ""


def _listening(plane: ControlPlane) -> set[str]:
    found = set()
    for process in _processes(plane):
        for connection in process.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip)
    return found
