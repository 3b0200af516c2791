"""One Ray cluster for all tests of the session, and a connection to it for each module.

The connection ends with the module, since Ray has one for each process, and other packages' tests run in this one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_support import PATIENCE

CPUS = 2
HEAD = Path(__file__).with_name("head.py")


class Head:
    """A cluster in a process of its own, which is told what to do by lines."""

    def __init__(self, environment: dict[str, str], python: str = sys.executable) -> None:
        # Unix sockets lie in it, whose paths may have some hundred characters.
        self.folder = tempfile.mkdtemp(prefix="hnr", dir="/tmp")
        os.mkdir(f"{self.folder}/ray")
        self.environment = {**environment, "RAY_TMPDIR": self.folder}
        self._process = subprocess.Popen(
            [python, str(HEAD), str(CPUS)],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            told = self._answer()
        except BaseException:
            self.close()
            raise
        self.address, self._client, self.pid = str(told["address"]), int(told["client"]), int(told["pid"])

    @property
    def client(self) -> str:
        """The address for Ray's client, once there is somebody who listens: that comes some time after the cluster."""
        end = time.monotonic() + PATIENCE
        while not listens(self._client):
            assert time.monotonic() < end, "Ray's server for clients never began to listen"
            time.sleep(0.05)
        return f"ray://127.0.0.1:{self._client}"

    def tell(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the Ray cluster of the tests ended by itself"
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.read()  # until the last process that holds it has ended
        self._process.stdout.close()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """That of a cluster on the loopback interface alone, which wants a token and tells nobody of its use."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # By default Ray's workers give way to every other process, and starve where other tests run.
        "RAY_worker_niceness": "0",
        # How long a server may take to start for a client of Ray's: half a minute is short on a busy machine.
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": f"{PATIENCE:.0f}",
        "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": f"{PATIENCE:.0f}",
        "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": f"{PATIENCE:.0f}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """The cluster of this session, with two CPUs."""
    found = Head(environment())
    yield found
    found.close()


@pytest.fixture
def start_head() -> Iterator[Callable[..., Head]]:
    """Starts a cluster of a test's own, with what more its environment is to hold; it ends with the test."""
    started: list[Head] = []

    def start(python: str = sys.executable, **more: str) -> Head:
        started.append(Head({**environment(), **more}, python))
        return started[-1]

    yield start
    for one in started:
        one.close()


def listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(PATIENCE)
        return one.connect_ex(("127.0.0.1", port)) == 0


def read_token_anew() -> None:
    """Have Ray look into the environment again, where it has tokens at all."""
    if importlib.util.find_spec("ray._private.authentication_test_utils") is not None:
        from ray._private.authentication_test_utils import reset_auth_token_state

        reset_auth_token_state()


@pytest.fixture(scope="module")
def connected(head: Head) -> Iterator[Head]:
    """The cluster, with this process connected to it by its user: backends use that and leave it alone."""
    import ray
    from ray._private import ray_constants

    with pytest.MonkeyPatch.context() as patch:
        for name, value in head.environment.items():
            patch.setenv(name, value)
        # What the environment says of the loopback interface was read when Ray was imported.
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        read_token_anew()
        ray.init(address=head.address, log_to_driver=False, configure_logging=False)
        try:
            yield head
        finally:
            from hypernodes._places import close_all

            close_all()
            ray.shutdown()
    read_token_anew()


@pytest.fixture
def run_script(start_script: Callable[..., Any], head: Head) -> Callable[..., Any]:
    """Starts a script as a program of its own, which may connect to the cluster; it is ended with the test."""

    def run(source: str, **more: str) -> Any:
        return start_script(source, **{**head.environment, "ADDRESS": head.address, **more})

    return run
