"""What a container says and asks: inputs, outputs, heartbeats, how its start went."""

from __future__ import annotations

import asyncio
from typing import Any

from grpclib import Status

from hypernodes_modal.testing._calls import Calls, Input, timed_out
from hypernodes_modal.testing._fleet import Fleet
from hypernodes_modal.testing._launch import HEARTBEAT
from hypernodes_modal.testing._records import Container
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Containers"]


class Containers:
    """Serves the RPCs that containers call. They name themselves in none: the address tells who it is."""

    def __init__(self, records: Records, calls: Calls, fleet: Fleet) -> None:
        self.records, self.calls, self.fleet = records, calls, fleet

    async def ContainerHello(self, request: Any, caller: Caller) -> None:
        inside(caller)

    async def ContainerHeartbeat(self, request: Any, caller: Caller) -> Any:
        """Held until there is something to cancel, or nearly as long as the container waits."""
        container = inside(caller)
        await container.bell.until(lambda: bool(container.to_cancel), HEARTBEAT - 1.0)
        ids, container.to_cancel = container.to_cancel, []
        if not ids:
            return message("ContainerHeartbeatResponse")
        return message("ContainerHeartbeatResponse", cancel_input_event=message("CancelInputEvent", input_ids=ids))

    async def FunctionGetInputs(self, request: Any, caller: Caller) -> Any:
        container = inside(caller)
        self.fleet.ready(container)
        function = container.function

        def due() -> bool:
            return bool(function.pending) or container.state == "leaving"

        while await function.bell.until(due) and container.state != "leaving":
            most = max(1, request.batch_max_size)
            if most > 1:  # a batch waits a moment for its last inputs
                linger = request.batch_linger_ms / 1000
                await function.bell.until(lambda most=most: len(function.pending) >= most, linger)  # type: ignore[misc]
            if taken := self.calls.take(function, most):
                return message("FunctionGetInputsResponse", inputs=[self._deliver(container, one) for one in taken])
        return message("FunctionGetInputsResponse", inputs=[message("FunctionGetInputsItem", kill_switch=True)])

    def _deliver(self, container: Container, one: Input) -> Any:
        one.state, one.container = "running", container
        one.attempt += 1
        container.running[one.id] = one
        container.served += 1
        attempt, seconds = one.attempt, container.function.timeout

        def over() -> None:
            if one.attempt == attempt and one.state == "running":
                result = timed_out(f"Task's current input {one.id} hit its timeout of {seconds}s")
                self.fleet.abandon(container, one, result)

        container.timers[one.id] = asyncio.get_running_loop().call_later(seconds, over)
        self.fleet.busy(container)
        return message(
            "FunctionGetInputsItem",
            input_id=one.id,
            input=one.payload,
            function_call_id=one.call.id,
            function_call_invocation_type=one.call.invocation,
            retry_count=one.attempt,
            attempt_token=f"{one.id}:{one.retry_count}" if one.call.from_input_plane else None,
            from_input_plane=one.call.from_input_plane,
            function_map_idx=one.idx,
        )

    async def FunctionPutOutputs(self, request: Any, caller: Caller) -> None:
        container = inside(caller)
        for item in request.outputs:
            one = self.calls.inputs.get(item.input_id)
            if one is None or one.container is not container or one.attempt != item.retry_count:
                continue  # an attempt that counts no more
            self.fleet.release(container, one)
            self.calls.settle(one, item.result, item.data_format, item.input_started_at)
        self.fleet.idle(container)
        self.fleet.arrange()

    async def TaskResult(self, request: Any, caller: Caller) -> None:
        """The container could not start: what waits for its function fails with the same error."""
        container = inside(caller)
        container.reported = request.result
        self.calls.fail_pending(container.function, request.result)

    async def FunctionGetDynamicConcurrency(self, request: Any, caller: Caller) -> Any:
        return message("FunctionGetDynamicConcurrencyResponse", concurrency=request.max_concurrency)

    async def ContainerStop(self, request: Any, caller: Caller) -> Any:
        container = self.records.containers.get(request.task_id)
        if container is None:
            raise refuse(Status.NOT_FOUND, f"Container '{request.task_id}' not found")
        if getattr(request, "graceful", False):
            self.fleet.retire(container)
        else:
            self.fleet.kill(container)
        return message("ContainerStopResponse")


def inside(caller: Caller) -> Container:
    if caller.container is None:
        raise refuse(Status.PERMISSION_DENIED, "only a container may call this")
    return caller.container
