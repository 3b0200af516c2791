"""Images: recorded, never built. What their layers say about Python, variables and the working directory is read."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._records import Image
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Images"]

PYTHON = re.compile(r"python(?:-build-standalone\.\d+\.|:)(\d+\.\d+)")
"""In `FROM python:3.12.1-slim`, and in the name of the mount with which Modal adds a Python to other images."""


class Images:
    """Serves the RPCs about images.

    `pythons` are the interpreters by minor version. `fails` looks at the commands of a layer and gives the log of a
    build that fails, or None. A layer that needs a Python which is not there fails and says so.
    """

    def __init__(
        self, records: Records, pythons: Mapping[str, str], fails: Callable[[tuple[str, ...]], str | None]
    ) -> None:
        self.records = records
        self.pythons = pythons
        self.fails = fails
        self._known: dict[bytes, Image] = {}
        self._failed: dict[str, str] = {}

    async def ImageGetOrCreate(self, request: Any, caller: Caller) -> Any:
        key = request.image.SerializeToString(deterministic=True)
        image = self._known.get(key)
        if image is None or request.force_build:
            image = self._record(request.image)
            if (why := self._refuse(image, tuple(request.image.dockerfile_commands))) is not None:
                self._failed[image.id] = why
                return message("ImageGetOrCreateResponse", image_id=image.id)  # no result: the client joins the build
            self._known[key] = image
        return message(
            "ImageGetOrCreateResponse", image_id=image.id, result=succeeded(), metadata=self._metadata(image)
        )

    async def ImageJoinStreaming(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        why = self._failed.get(request.image_id)
        if why is None:
            image = self.records.images.get(request.image_id)
            yield message("ImageJoinStreamingResponse", result=succeeded(), metadata=self._metadata(image), eof=True)
            return
        yield message("ImageJoinStreamingResponse", task_logs=[message("TaskLogs", data=why + "\n")], entry_id="1")
        result = message("GenericResult", status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE, exception=why)
        yield message("ImageJoinStreamingResponse", result=result, entry_id="2", eof=True)

    async def ImageFromId(self, request: Any, caller: Caller) -> Any:
        if request.image_id in self._failed:
            raise refuse(Status.NOT_FOUND, f"Image '{request.image_id}' was not built")
        image = self.records.images.get(request.image_id)
        return message("ImageFromIdResponse", image_id=image.id, metadata=self._metadata(image))

    def _refuse(self, image: Image, commands: tuple[str, ...]) -> str | None:
        if (why := self.fails(commands)) is not None:
            return why
        if image.python not in self.pythons:
            return (
                f"LocalModal has no Python {image.python} for this image, only {', '.join(sorted(self.pythons))}; "
                f"give it one: LocalModal(pythons={{'{image.python}': '/path/to/python'}})"
            )
        return None

    def _record(self, definition: Any) -> Image:
        bases = [self.records.images.get(base.image_id) for base in definition.base_images]
        commands = [command for base in bases for command in base.commands]
        environment = {name: value for base in bases for name, value in base.environment.items()}
        environment.update(variables(definition.dockerfile_commands))
        python = next((base.python for base in bases if base.python), "")
        mounts = self.records.mounts.by_id
        standalone = mounts[definition.context_mount_id].name if definition.context_mount_id in mounts else ""
        python = python_of([standalone, *definition.dockerfile_commands]) or python or next(iter(self.pythons))
        commands += definition.dockerfile_commands
        if definition.HasField("build_function"):
            commands.append("RUN FUNCTION")
        copied = [mount_id for base in bases for mount_id in base.mounts]
        if definition.context_mount_id and "COPY . /" in definition.dockerfile_commands:
            copied.append(definition.context_mount_id)
        secrets = tuple(definition.secret_ids)
        return self.records.images.new(
            lambda key: Image(key, tuple(commands), python, environment, secrets, tuple(copied), definition)
        )

    def _metadata(self, image: Image) -> Any:
        return message("ImageMetadata", python_version_info=f"Python {image.python}.0", image_builder_version="2025.06")


def succeeded() -> Any:
    return message("GenericResult", status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)


def python_of(commands: Iterable[str]) -> str:
    """The minor version of the Python that a layer brings, or nothing."""
    for command in commands:
        if command.startswith(("FROM", "python-build-standalone")) and (found := PYTHON.search(command)):
            return found[1]
    return ""


def variables(commands: Iterable[str]) -> dict[str, str]:
    """What the layer's `ENV` commands set."""
    found = {}
    for command in commands:
        if command.upper().startswith("ENV "):
            for part in shlex.split(command[4:]):
                name, equals, value = part.partition("=")
                if equals:
                    found[name] = value
    return found
