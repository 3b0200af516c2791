"""Apps, and what a client asks first: who it is, which environment, which token."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._records import App, LogLine
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Apps", "unsigned"]

BUILDER = "2025.06"
"""The image builder version that environments name."""

STATES = {
    api_pb2.APP_STATE_EPHEMERAL: "ephemeral",
    api_pb2.APP_STATE_DETACHED: "detached",
    api_pb2.APP_STATE_INITIALIZING: "initializing",
    api_pb2.APP_STATE_DEPLOYED: "deployed",
}


def unsigned(payload: dict[str, Any]) -> str:
    """A web token with this payload. The client reads it and checks no signature."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, payload))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "local"])


class Apps:
    """Serves the RPCs about apps. `publish` and `end` are called when an app may run and when it must not any more."""

    def __init__(self, records: Records, publish: Callable[[App], None], end: Callable[[App], None]) -> None:
        self.records = records
        self._publish, self._end = publish, end

    def stop(self, app: App) -> None:
        if not app.stopped:
            app.state = "stopped"
            for key in [key for key, named in self.records.apps.by_name.items() if named is app]:
                del self.records.apps.by_name[key]
            self._end(app)
            app.bell.ring()

    def stop_forgotten(self, silence: float) -> None:
        """Stop the ephemeral apps whose client has not been heard of for so many seconds."""
        for app in self.records.apps:
            if app.state in ("ephemeral", "initializing") and time.monotonic() - app.heartbeat > silence:
                self.stop(app)

    # who and where ----------------------------------------------------------------------------------------------

    async def ClientHello(self, request: Any, caller: Caller) -> Any:
        return message("ClientHelloResponse", image_builder_version=BUILDER)

    async def AuthTokenGet(self, request: Any, caller: Caller) -> Any:
        return message("AuthTokenGetResponse", token=unsigned({"exp": time.time() + 3600}))

    async def EnvironmentGetOrCreate(self, request: Any, caller: Caller) -> Any:
        settings = message("EnvironmentSettings", image_builder_version=BUILDER)
        metadata = message("EnvironmentMetadata", name=request.deployment_name or "main", settings=settings)
        return message("EnvironmentGetOrCreateResponse", environment_id="en-local", metadata=metadata)

    async def WorkspaceNameLookup(self, request: Any, caller: Caller) -> Any:
        return message("WorkspaceNameLookupResponse", workspace_name="local", username="local")

    # apps -------------------------------------------------------------------------------------------------------

    async def AppCreate(self, request: Any, caller: Caller) -> Any:
        app = self._new(request.description, request.environment_name, STATES.get(request.app_state, "ephemeral"))
        app.tags.update(request.tags)
        page = f"{caller.url}/apps/{app.id}"
        return message("AppCreateResponse", app_id=app.id, app_page_url=page, app_logs_url=page)

    def _new(self, name: str, environment: str, state: Any) -> App:
        return self.records.apps.new(lambda key: App(key, name, environment or "main", state))

    async def AppHeartbeat(self, request: Any, caller: Caller) -> None:
        app = self.records.apps.get(request.app_id)
        refuse_stopped(app)
        app.heartbeat = time.monotonic()

    async def AppPublish(self, request: Any, caller: Caller) -> Any:
        app = self.records.apps.get(request.app_id)
        refuse_stopped(app)
        app.heartbeat = time.monotonic()
        app.state = STATES.get(request.app_state, app.state)  # type: ignore[assignment]
        app.functions, app.classes = dict(request.function_ids), dict(request.class_ids)
        app.tags.update(request.tags)
        if app.state == "deployed":
            app.name = request.name or app.name
            self.records.apps.by_name[app.environment, app.name] = app
        self._publish(app)
        return message("AppPublishResponse", url=f"{caller.url}/apps/{app.id}", deployed_at=time.time())

    async def AppClientDisconnect(self, request: Any, caller: Caller) -> None:
        app = self.records.apps.get(request.app_id)
        if app.state in ("ephemeral", "initializing"):
            self.stop(app)

    async def AppStop(self, request: Any, caller: Caller) -> None:
        self.stop(self.records.apps.get(request.app_id))

    async def AppGetByDeploymentName(self, request: Any, caller: Caller) -> Any:
        found = self.records.apps.by_name.get((request.environment_name or "main", request.name))
        return message("AppGetByDeploymentNameResponse", app_id=found.id if found else None)

    async def AppGetOrCreate(self, request: Any, caller: Caller) -> Any:
        key = (request.environment_name or "main", request.app_name)
        app = self.records.apps.by_name.get(key)
        if app is None:
            if request.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise refuse(Status.NOT_FOUND, f"App '{request.app_name}' not found in environment '{key[0]}'")
            app = self.records.apps.by_name[key] = self._new(request.app_name, request.environment_name, "deployed")
        handle = message("AppHandleMetadata", description=app.name, app_id=app.id, environment_name=app.environment)
        return message("AppGetOrCreateResponse", app_id=app.id, handle_metadata=handle)

    async def AppGetLayout(self, request: Any, caller: Caller) -> Any:
        return message("AppGetLayoutResponse", app_layout=self.layout(self.records.apps.get(request.app_id)))

    async def AppSetTags(self, request: Any, caller: Caller) -> None:
        self.records.apps.get(request.app_id).tags = dict(request.tags)

    async def AppGetTags(self, request: Any, caller: Caller) -> Any:
        return message("AppGetTagsResponse", tags=self.records.apps.get(request.app_id).tags)

    def layout(self, app: App) -> Any:
        """The objects of an app and their ids by name, for containers and for the next deployment."""
        records, objects = self.records, {}
        for function in records.functions:
            if function.app is app:
                objects[function.id] = message(
                    "Object", object_id=function.id, function_handle_metadata=function.handle
                )
                for dependency in function.definition.object_dependencies:
                    objects.setdefault(dependency.object_id, self._object(dependency.object_id))
        for class_id in app.classes.values():
            objects[class_id] = message(
                "Object", object_id=class_id, class_handle_metadata=message("ClassHandleMetadata")
            )
        return message("AppLayout", objects=objects.values(), function_ids=app.functions, class_ids=app.classes)

    def _object(self, object_id: str) -> Any:
        if object_id in self.records.volumes.by_id:
            volume = self.records.volumes.by_id[object_id]
            metadata = message("VolumeMetadata", version=volume.version, name=volume.name)
            return message("Object", object_id=object_id, volume_metadata=metadata)
        if object_id in self.records.mounts.by_id:
            return message("Object", object_id=object_id, mount_handle_metadata=message("MountHandleMetadata"))
        return message("Object", object_id=object_id)

    # logs -------------------------------------------------------------------------------------------------------

    async def AppGetLogs(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        app = self.records.apps.get(request.app_id)
        seen = int(request.last_entry_id or 0)
        await app.bell.until(lambda: len(app.logs) > seen or app.stopped, request.timeout or 55.0)
        for line in app.logs[seen:]:
            seen += 1
            yield message("TaskLogsBatch", task_id=line.container, items=[log_item(line)], entry_id=str(seen))
        if app.stopped:
            yield message("TaskLogsBatch", app_done=True, entry_id=str(seen))

    async def AppFetchLogs(self, request: Any, caller: Caller) -> Any:
        """The latest lines of a time, of the oldest first; what asks for more than a time and an app is not served."""
        app = self.records.apps.get(request.app_id)
        first, last = (stamp.seconds + stamp.nanos / 1e9 for stamp in (request.since, request.until))
        lines = [line for line in app.logs if first <= line.at <= last]
        if request.task_id:
            lines = [line for line in lines if line.container == request.task_id]
        if request.source:
            lines = [line for line in lines if line.stream == request.source]
        lines = lines[-request.limit :]
        return message(
            "AppFetchLogsResponse",
            batches=[message("TaskLogsBatch", task_id=line.container, items=[log_item(line)]) for line in lines],
        )


def refuse_stopped(app: App) -> None:
    if app.stopped:
        raise refuse(Status.NOT_FOUND, f"App '{app.name}' ({app.id}) was stopped")


def log_item(line: LogLine) -> Any:
    return message("TaskLogs", data=line.text, file_descriptor=line.stream, timestamp=line.at)
