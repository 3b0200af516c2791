"""Functions, their variants with other options, and what the autoscaler is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._records import Function
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Functions"]

HANDLE_FIELDS = ("function_name", "function_type", "function_schema", "class_parameter_info", "is_method")
AUTOSCALER = {
    "concurrency_limit": "max_containers",
    "warm_pool_size": "min_containers",
    "buffer_containers": "buffer_containers",
    "task_idle_timeout_secs": "scaledown_window",
}
"""Options of a variant, and the setting of the autoscaler that each is."""

OPTIONS = ("timeout_secs", "target_concurrent_inputs", "max_concurrent_inputs", "batch_max_size", "batch_linger_ms")


class Functions:
    """Serves the RPCs about functions.

    `gpus` are the names of the GPUs that there are, or None for any. `check` may refuse a definition; `arrange` is
    called when more or fewer containers may be wanted.
    """

    def __init__(
        self,
        records: Records,
        check: Callable[[Any], None],
        arrange: Callable[[], None],
        gpus: frozenset[str] | None,
        input_plane: bool,
    ) -> None:
        self.records = records
        self._check, self._arrange = check, arrange
        self._gpus, self._input_plane = gpus, input_plane

    def handle(self, function: Function, caller: Caller) -> Any:
        """The metadata with which a client calls a function."""
        copy = message("FunctionHandleMetadata")
        copy.CopyFrom(function.handle)
        if self._input_plane and "input_plane_url" in copy.DESCRIPTOR.fields_by_name:
            copy.input_plane_url, copy.input_plane_region = caller.url, "local"
        return copy

    async def FunctionPrecreate(self, request: Any, caller: Caller) -> Any:
        app = self.records.apps.get(request.app_id)
        known = self.records.functions.by_id.get(request.existing_function_id)
        function = known or self.records.functions.new(lambda key: Function(key, app, request.function_name))
        function.handle = self._describe(function, request)
        reply = message("FunctionPrecreateResponse", function_id=function.id)
        reply.handle_metadata.CopyFrom(self.handle(function, caller))
        return reply

    async def FunctionCreate(self, request: Any, caller: Caller) -> Any:
        app = self.records.apps.get(request.app_id)
        definition = api_pb2.Function()
        if request.HasField("function_data"):  # a choice of GPUs: the first is taken
            definition.CopyFrom(request.function_data.ranked_functions[0].function)
        else:
            definition.CopyFrom(request.function)
        self._check_definition(definition)
        known = self.records.functions.by_id.get(request.existing_function_id)
        function = known or self.records.functions.new(lambda key: Function(key, app, definition.function_name))
        function.definition = definition
        function.handle = self._describe(function, definition)
        reply = message(
            "FunctionCreateResponse", function_id=function.id, function=definition, function_data=data_of(definition)
        )
        reply.handle_metadata.CopyFrom(self.handle(function, caller))
        return reply

    def _describe(self, function: Function, told: Any) -> Any:
        taken = {name: getattr(told, name) for name in HANDLE_FIELDS if name in told.DESCRIPTOR.fields_by_name}
        handle = message(
            "FunctionHandleMetadata",
            **taken,
            app_id=function.app.id,
            definition_id=f"de-{function.id[3:]}",
            supported_input_formats=getattr(told, "supported_input_formats", None),
            supported_output_formats=getattr(told, "supported_output_formats", None),
        )
        for name, method in told.method_definitions.items():
            formats = {
                field: getattr(method, field, None) for field in ("supported_input_formats", "supported_output_formats")
            }
            handle.method_handle_metadata[name].CopyFrom(
                message(
                    "FunctionHandleMetadata",
                    function_name=method.function_name,
                    function_type=method.function_type,
                    function_schema=method.function_schema,
                    is_method=True,
                    use_method_name=name,
                    **formats,
                )
            )
        return handle

    def _check_definition(self, definition: Any) -> None:
        """Refuse a function that asks for what is not there: an object of another control plane, a GPU, a path."""
        records = self.records
        for mount_id in definition.mount_ids:
            records.mounts.get(mount_id)
        for secret_id in definition.secret_ids:
            records.secrets.get(secret_id)
        for mount in definition.volume_mounts:
            records.volumes.get(mount.volume_id)
        if definition.image_id:
            records.images.get(definition.image_id)
        self._check(definition)
        name = definition.resources.gpu_config.gpu_type
        if name and self._gpus is not None and name.upper() not in self._gpus:
            raise refuse(
                Status.INVALID_ARGUMENT, f"GPU type '{name}' is unknown; there are {', '.join(sorted(self._gpus))}"
            )

    # look-up ----------------------------------------------------------------------------------------------------

    async def FunctionGet(self, request: Any, caller: Caller) -> Any:
        app = self.records.apps.by_name.get((request.environment_name or "main", request.app_name))
        function_id = app.functions.get(request.object_tag) if app else None
        if function_id is None:
            where = f"app '{request.app_name}'" if app else "any deployed app of that name"
            raise refuse(Status.NOT_FOUND, f"Function '{request.object_tag}' not found in {where}")
        function = self.records.functions.get(function_id)
        reply = message("FunctionGetResponse", function_id=function.id, function=data_of(function.definition))
        reply.handle_metadata.CopyFrom(self.handle(function, caller))
        return reply

    async def FunctionGetById(self, request: Any, caller: Caller) -> Any:
        function = self.records.functions.get(request.function_id)
        reply = message("FunctionGetByIdResponse", function=data_of(function.definition))
        reply.handle_metadata.CopyFrom(self.handle(function, caller))
        return reply

    async def FunctionGetCurrentStats(self, request: Any, caller: Caller) -> Any:
        function = self.records.functions.get(request.function_id)
        alive = [one for one in function.containers if one.alive]
        running = sum(len(one.running) for one in alive)
        return message(
            "FunctionStats", backlog=len(function.pending), num_total_tasks=len(alive), num_running_inputs=running
        )

    # variants ---------------------------------------------------------------------------------------------------

    async def FunctionBindParams(self, request: Any, caller: Caller) -> Any:
        base = self.records.functions.get(request.function_id)
        definition = api_pb2.Function()
        definition.CopyFrom(base.definition)
        apply_options(definition, request.function_options)
        self._check_definition(definition)
        for known in self.records.functions:  # the same options, the same containers
            same = known.base == base.id and known.parameters == request.serialized_params
            if same and known.definition == definition:
                return self._bound(known, caller)
        variant = self.records.functions.new(
            lambda key: Function(
                key, base.app, base.name, definition, base=base.id, parameters=request.serialized_params
            )
        )
        variant.handle = message("FunctionHandleMetadata")
        variant.handle.CopyFrom(base.handle)
        return self._bound(variant, caller)

    def _bound(self, variant: Function, caller: Caller) -> Any:
        reply = message("FunctionBindParamsResponse", bound_function_id=variant.id)
        reply.handle_metadata.CopyFrom(self.handle(variant, caller))
        return reply

    # autoscaler -------------------------------------------------------------------------------------------------

    async def FunctionUpdateSchedulingParams(self, request: Any, caller: Caller) -> Any:
        function = self.records.functions.get(request.function_id)
        function.settings.MergeFrom(request.settings)
        self._arrange()
        return message("FunctionUpdateSchedulingParamsResponse", current_settings=function.settings)

    async def FunctionGetSchedulingParams(self, request: Any, caller: Caller) -> Any:
        settings = self.records.functions.get(request.function_id).settings
        configuration = message("AutoscalerConfiguration", settings=settings)
        return message("FunctionGetSchedulingParamsResponse", autoscaler_configuration=configuration)

    # classes ----------------------------------------------------------------------------------------------------

    async def ClassCreate(self, request: Any, caller: Caller) -> Any:
        class_id = request.existing_class_id or self.records.new_id("cs")
        return message("ClassCreateResponse", class_id=class_id, handle_metadata=message("ClassHandleMetadata"))

    async def ClassGet(self, request: Any, caller: Caller) -> Any:
        app = self.records.apps.by_name.get((request.environment_name or "main", request.app_name))
        class_id = app.classes.get(request.object_tag) if app else None
        if class_id is None:
            raise refuse(Status.NOT_FOUND, f"Class '{request.object_tag}' not found in app '{request.app_name}'")
        return message("ClassGetResponse", class_id=class_id, handle_metadata=message("ClassHandleMetadata"))


def apply_options(definition: Any, options: Any) -> None:
    """Write the options of a variant over the definition of its base."""
    known = options.DESCRIPTOR.fields_by_name
    definition.resources.MergeFrom(options.resources)
    if options.HasField("retry_policy"):
        definition.retry_policy.CopyFrom(options.retry_policy)
    for name in OPTIONS:
        if name in known and options.HasField(name):
            setattr(definition, name, getattr(options, name))
    for name, setting in AUTOSCALER.items():
        if name in known and options.HasField(name):
            setattr(definition.autoscaler_settings, setting, getattr(options, name))
    if options.HasField("scheduler_placement"):
        definition.scheduler_placement.CopyFrom(options.scheduler_placement)
    for repeated, replaced in (("secret_ids", "replace_secret_ids"), ("volume_mounts", "replace_volume_mounts")):
        if getattr(options, replaced):
            definition.ClearField(repeated)
        getattr(definition, repeated).extend(getattr(options, repeated))


def data_of(definition: Any) -> Any:
    """The definition in the form `FunctionData`, in which newer clients read it."""
    data = message("FunctionData", ranked_functions=[])
    for name, field in data.DESCRIPTOR.fields_by_name.items():
        same = definition.DESCRIPTOR.fields_by_name.get(name)
        if same is None or same.type != field.type or same.message_type is not field.message_type:
            continue
        value = getattr(definition, name)
        if field.message_type is None and not isinstance(value, (str, bytes, int, float)):
            getattr(data, name).extend(value)
        elif field.message_type is None:
            setattr(data, name, value)
        elif field.message_type.GetOptions().map_entry:
            getattr(data, name).MergeFrom(value)
        elif hasattr(value, "extend"):
            getattr(data, name).extend(value)
        elif definition.HasField(name):
            getattr(data, name).CopyFrom(value)
    data.ranked_functions.add(rank=0).function.CopyFrom(definition)
    return data
