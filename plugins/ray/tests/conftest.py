"""One Ray cluster for all tests of the session, and a connection to it for each module.

The connection ends with the module, since Ray has one for each process, and other packages' tests run in this one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CPUS = 2
HEAD = Path(__file__).with_name("head.py")


class Head:
    """A cluster in a process of its own, which is told what to do by lines."""

    def __init__(self, environment: dict[str, str]) -> None:
        # Unix sockets lie in it, whose paths may have some hundred characters.
        self.folder = tempfile.mkdtemp(prefix="hnr", dir="/tmp")
        os.mkdir(f"{self.folder}/ray")
        self.environment = {**environment, "RAY_TMPDIR": self.folder}
        self._process = subprocess.Popen(
            [sys.executable, str(HEAD), str(CPUS)],
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
        self.address, self.client, self.pid = str(told["address"]), str(told["client"]), int(told["pid"])

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


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A cluster on the loopback interface alone, that wants a token, tells nobody of its use, and has two CPUs."""
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # By default Ray's workers give way to every other process, and starve where other tests run.
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    found = Head(environment)
    yield found
    found.close()


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
def run_script(tmp_path: Path, head: Head) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script as a program of its own, which may connect to the cluster; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(source: str, **more: str) -> subprocess.Popen[str]:
        path = tmp_path / f"script_{len(running)}.py"
        path.write_text(source)
        environment = {**os.environ, **head.environment, "ADDRESS": head.address, "CLIENT": head.client, **more}
        running.append(
            subprocess.Popen(
                [sys.executable, str(path)],
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()
