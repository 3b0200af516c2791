"""How a client calls functions through the control plane, which is the usual way."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from grpclib import Status

from hypernodes_modal.testing._apps import unsigned
from hypernodes_modal.testing._calls import Call, Calls, Input
from hypernodes_modal.testing._fleet import Fleet
from hypernodes_modal.testing._rpc import Caller, message, refuse

__all__ = ["ControlPlane"]

OUTSTANDING = 1000
"""Inputs that a client may have on their way at once."""


class ControlPlane:
    """Serves calls: map, outputs, retries, cancellation, and the data that generators send."""

    def __init__(self, calls: Calls, fleet: Fleet) -> None:
        self.calls, self.fleet = calls, fleet

    async def FunctionMap(self, request: Any, caller: Caller) -> Any:
        call = self.calls.open(request.function_id, request.function_call_invocation_type, request.parent_input_id)
        return message(
            "FunctionMapResponse",
            function_call_id=call.id,
            pipelined_inputs=self._add(call, request.pipelined_inputs),
            retry_policy=call.function.definition.retry_policy,
            function_call_jwt=unsigned({"function_call_id": call.id}),
            sync_client_retries_enabled=call.client_retries,
            max_inputs_outstanding=OUTSTANDING,
        )

    async def FunctionPutInputs(self, request: Any, caller: Caller) -> Any:
        call = self.calls.get(request.function_call_id)
        return message("FunctionPutInputsResponse", inputs=self._add(call, request.inputs))

    def _add(self, call: Call, items: Any) -> list[Any]:
        added = [self.calls.add(call, item.idx, item.input) for item in items]
        return [
            message("FunctionPutInputsResponseItem", idx=one.idx, input_id=one.id, input_jwt=ticket(one))
            for one in added
        ]

    async def FunctionFinishInputs(self, request: Any, caller: Caller) -> None:
        self.calls.get(request.function_call_id)

    async def FunctionRetryInputs(self, request: Any, caller: Caller) -> Any:
        tickets = []
        for item in request.inputs:
            one = self.calls.inputs.get(payload_of(item.input_jwt).get("input_id", ""))
            if one is None:
                raise refuse(Status.NOT_FOUND, "there is no such input to try again")
            self.calls.again(one, item.retry_count)
            tickets.append(ticket(one))
        return message("FunctionRetryInputsResponse", input_jwts=tickets)

    async def FunctionGetOutputs(self, request: Any, caller: Caller) -> Any:
        """The outputs after an entry, waiting for the first at most so many seconds; or those of some indexes."""
        call = self.calls.get(request.function_call_id)
        after = int((request.last_entry_id or "0").partition("-")[0])
        first = request.start_idx if request.HasField("start_idx") else 0
        last = request.end_idx if request.HasField("end_idx") else float("inf")

        def found() -> list[tuple[int, Any]]:
            return [one for one in call.after(after) if first <= one[1].idx <= last]

        await call.bell.until(lambda: bool(found()), min(request.timeout, 55.0))
        ready = found()[: request.max_values or None]
        if request.clear_on_success:
            gone = {entry for entry, _ in ready}
            call.outputs = [one for one in call.outputs if one[0] not in gone]
        entry = ready[-1][0] if ready else after
        return message(
            "FunctionGetOutputsResponse",
            idxs=[item.idx for _, item in ready],
            outputs=[item for _, item in ready],
            last_entry_id=f"{entry}-0",
            num_unfinished_inputs=call.unfinished,
        )

    async def FunctionCallFromId(self, request: Any, caller: Caller) -> Any:
        call = self.calls.get(request.function_call_id)
        handle = message("FunctionCallHandleMetadata", app_id=call.function.app.id, function_id=call.function.id)
        return message(
            "FunctionCallFromIdResponse", function_call_id=call.id, num_inputs=len(call.inputs), metadata=handle
        )

    async def FunctionCallCancel(self, request: Any, caller: Caller) -> None:
        call = self.calls.get(request.function_call_id)
        if request.terminate_containers:
            for one in call.inputs:
                one.cancelled = True
                if one.container is not None:
                    self.fleet.kill(one.container)
        self.calls.cancel(call, "Input was cancelled by user")

    # generators -------------------------------------------------------------------------------------------------

    def _of(self, request: Any) -> Call:
        if request.WhichOneof("call_info") == "attempt_token" if has_oneof(request) else request.attempt_token:
            return self.calls.inputs[request.attempt_token.partition(":")[0]].call
        return self.calls.get(request.function_call_id)

    async def FunctionCallPutDataOut(self, request: Any, caller: Caller) -> None:
        call = self._of(request)
        known = {chunk.index for chunk in call.chunks}
        call.chunks.extend(chunk for chunk in request.data_chunks if chunk.index not in known)
        call.bell.ring()

    async def FunctionCallGetDataOut(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        call, sent = self._of(request), request.last_index

        def fresh() -> list[Any]:
            return sorted((one for one in call.chunks if one.index > sent), key=lambda one: int(one.index))

        while await call.bell.until(lambda: bool(fresh()), 55.0):
            for chunk in fresh():
                sent = chunk.index
                yield chunk


def has_oneof(request: Any) -> bool:
    return "call_info" in request.DESCRIPTOR.oneofs_by_name


def ticket(one: Input) -> str:
    """What the client sends back to ask for another try. It reads `idx` out of it."""
    return unsigned({"idx": one.idx, "input_id": one.id})


def payload_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))
