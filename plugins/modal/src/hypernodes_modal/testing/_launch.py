"""Real container processes: what they are given, and what they write."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modal_proto import api_pb2

from hypernodes_modal.testing._endpoint import Endpoint
from hypernodes_modal.testing._links import Links
from hypernodes_modal.testing._mounts import Mounts, overlay
from hypernodes_modal.testing._records import Container, LogLine
from hypernodes_modal.testing._rpc import Switchboard
from hypernodes_modal.testing._shelf import Records
from hypernodes_modal.testing._volumes import Volumes

__all__ = ["HEARTBEAT", "Launcher"]

HEARTBEAT = 120.0
"""Seconds for which a container leaves one question open whether there is something to cancel."""

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

PATIENCE = 120.0
"""Seconds that a start may take beyond what the function allows: a busy machine is slower than the cloud."""

GRACE = 5.0
"""Seconds for what a container has written last to be read."""

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")

CRADLE = """
import os, runpy, threading
leash = os.dup(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
def hold():
    while os.read(leash, 1):
        pass
    os._exit(137)
threading.Thread(target=hold, name="leash", daemon=True).start()
runpy.run_module("modal._container_entrypoint", run_name="__main__", alter_sys=True)
"""
"""Runs Modal's own entry point, and ends the process when whoever holds the other end of its stdin has gone."""


class Launcher:
    """Starts a container and stays with it until it has ended."""

    def __init__(
        self,
        records: Records,
        mounts: Mounts,
        volumes: Volumes,
        links: Links,
        pythons: Mapping[str, str],
        layout: Callable[[Any], Any],
        input_plane: bool,
    ) -> None:
        self.records, self.mounts, self.volumes, self.links = records, mounts, volumes, links
        self.switchboard: Switchboard | None = None
        self._pythons, self._layout, self._input_plane = pythons, layout, input_plane

    def home(self, container: Container) -> Path:
        return self.records.home / "containers" / container.id

    def temporary(self, container: Container) -> Path:
        """Where it puts temporary files: a short path, as programs open sockets there."""
        return self.records.home / container.id[-6:]

    def clear(self, container: Container) -> None:
        """Remove the folders of a container that has ended."""
        for folder in (self.home(container), self.temporary(container)):
            shutil.rmtree(folder, ignore_errors=True)

    async def run(self, container: Container) -> None:
        """Start the container, read what it writes, and note its exit code. OSError, ValueError: it cannot start."""
        assert self.switchboard is not None
        container.endpoint = Endpoint(self.switchboard, container)
        home, root = self.home(container), self.home(container) / "root"
        for folder in (root, self.temporary(container)):
            folder.mkdir(parents=True)
        url = await container.endpoint.open(self.records.home / container.id)
        self._furnish(container, root)
        (home / "arguments").write_bytes(self._arguments(container, url).SerializeToString())
        image = self.records.images.by_id.get(container.function.definition.image_id)
        python = self._pythons[image.python] if image else next(iter(self._pythons.values()))
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", CRADLE),
            cwd=root,
            env=self._environment(container, url, home, root),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        container.pid = process.pid
        assert process.stdout is not None
        assert process.stderr is not None
        loop = asyncio.get_running_loop()
        readers = [
            loop.create_task(self._read(container, number, pipe))
            for number, pipe in ((1, process.stdout), (2, process.stderr))
        ]
        try:
            if container.state == "leaving":  # nobody needs it any more
                self._kill(process.pid)
            startup = container.function.definition.startup_timeout_secs + PATIENCE
            timer = loop.call_later(startup, self._slow, container, process.pid)
            container.exit_code = await process.wait()
            timer.cancel()
        finally:
            self._kill(process.pid)  # what it may have started
            _, open_still = await asyncio.wait(readers, timeout=GRACE)
            for reader in open_still:  # something that the container started elsewhere still holds its output
                reader.cancel()
            if process.stdin is not None:
                process.stdin.close()

    def _slow(self, container: Container, pid: int) -> None:
        if container.state == "starting":
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    async def _read(self, container: Container, number: int, pipe: asyncio.StreamReader) -> None:
        app = container.function.app
        while piece := await pipe.read(1 << 16):
            line = LogLine(container.id, number, piece.decode(errors="replace"), time.time())
            container.logs.append(line)
            app.logs.append(line)
            app.bell.ring()
            self.records.bell.ring()

    def _furnish(self, container: Container, root: Path) -> None:
        definition = container.function.definition
        image = self.records.images.by_id.get(definition.image_id)
        for mount_id in (*(image.mounts if image else ()), *definition.mount_ids):
            inside = self.mounts.lay_out(mount_id) / "root"
            if inside.is_dir():
                overlay(inside, root)
            for folder in self.mounts.lay_out(mount_id).iterdir():
                if folder.name != "root":
                    self.links.overlay(folder.parent, Path("/"), container.id)
                    break
        for mount in definition.volume_mounts:
            self.volumes.link(mount, root, container.id)

    def _arguments(self, container: Container, url: str) -> Any:
        function = container.function
        arguments = api_pb2.ContainerArguments(
            task_id=container.id,
            function_id=function.id,
            app_id=function.app.id,
            function_def=function.definition,
            serialized_params=function.parameters,
            environment_name=function.app.environment,
            app_layout=self._layout(function.app),
        )
        if self._input_plane and "input_plane_server_url" in arguments.DESCRIPTOR.fields_by_name:
            arguments.input_plane_server_url = url
        return arguments

    def _environment(self, container: Container, url: str, home: Path, root: Path) -> dict[str, str]:
        definition, records = container.function.definition, self.records
        image = records.images.by_id.get(definition.image_id)
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        for name, value in (image.environment if image else {}).items():
            environment[name] = VARIABLE.sub(lambda found: environment.get(found[1] or found[2], ""), value)
        for secret_id in (*(image.secrets if image else ()), *definition.secret_ids):
            environment |= records.secrets.get(secret_id).values
        return environment | {
            "HOME": str(root),
            "TMPDIR": str(self.temporary(container)),
            "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [environment.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
            "MODAL_SERVER_URL": url,
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(home / "arguments"),
            "MODAL_TASK_ID": container.id,
            "MODAL_IMAGE_ID": definition.image_id,
            "MODAL_ENVIRONMENT": container.function.app.environment,
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOCAL",
            "MODAL_REGION": "local",
            "MODAL_IS_REMOTE": "1",
            "MODAL_CONFIG_PATH": str(home / "no-config.toml"),
            "MODAL_DISABLE_API_PROXY": "1",
            "MODAL_HEARTBEAT_INTERVAL": str(HEARTBEAT),
        }
