"""How a client calls functions through the input plane, which newer functions name in their metadata."""

from __future__ import annotations

from typing import Any

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._calls import Call, Calls, Input
from hypernodes_modal.testing._control_plane import OUTSTANDING
from hypernodes_modal.testing._rpc import Caller, message, refuse

__all__ = ["InputPlane"]

SYNC = api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC


class InputPlane:
    """Serves calls of one input (`Attempt...`) and of many (`Map...`). The client tries again whatever fails."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def _open(self, request: Any) -> Call:
        return self.calls.open(request.function_id, SYNC, request.parent_input_id, from_input_plane=True)

    async def AttemptStart(self, request: Any, caller: Caller) -> Any:
        call = self._open(request)
        one = self.calls.add(call, request.input.idx, request.input.input)
        policy = call.function.definition.retry_policy
        return message("AttemptStartResponse", attempt_token=attempt(one), retry_policy=policy)

    async def AttemptRetry(self, request: Any, caller: Caller) -> Any:
        one = self._input(request.attempt_token)
        self.calls.again(one)
        return message("AttemptRetryResponse", attempt_token=attempt(one))

    async def AttemptAwait(self, request: Any, caller: Caller) -> Any:
        one = self._input(request.attempt_token)
        call = one.call
        await call.bell.until(lambda: bool(call.outputs), min(request.timeout_secs, 55.0))
        return message("AttemptAwaitResponse", output=call.outputs[-1][1] if call.outputs else None)

    async def MapStartOrContinue(self, request: Any, caller: Caller) -> Any:
        """Add inputs to a map, which the first request opens; an item that has a token is tried again."""
        call = self.calls.get(request.map_token) if request.map_token else self._open(request)
        tokens = []
        for item in request.items:
            if item.attempt_token:
                one = self._input(item.attempt_token)
                self.calls.again(one)
            else:
                one = self.calls.add(call, item.input.idx, item.input.input)
            tokens.append(attempt(one))
        return message(
            "MapStartOrContinueResponse",
            map_token=call.id,
            function_id=call.function.id,
            function_call_id=call.id,
            max_inputs_outstanding=OUTSTANDING,
            attempt_tokens=tokens,
            retry_policy=call.function.definition.retry_policy,
        )

    async def MapAwait(self, request: Any, caller: Caller) -> Any:
        call = self.calls.get(request.map_token)
        after = int((request.last_entry_id or "0").partition("-")[0])

        await call.bell.until(lambda: bool(call.after(after)), min(request.timeout, 55.0))
        ready = call.after(after)
        entry = ready[-1][0] if ready else after
        return message("MapAwaitResponse", outputs=[item for _, item in ready], last_entry_id=f"{entry}-0")

    async def MapCheckInputs(self, request: Any, caller: Caller) -> Any:
        """None is ever lost: a container that dies gives its inputs back."""
        return message("MapCheckInputsResponse", lost=[False] * len(request.attempt_tokens))

    def _input(self, token: str) -> Input:
        one = self.calls.inputs.get(token.partition(":")[0])
        if one is None:
            raise refuse(Status.NOT_FOUND, f"there is no attempt '{token}'")
        return one


def attempt(one: Input) -> str:
    return f"{one.id}:{one.retry_count}"
