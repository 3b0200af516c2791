"""Calls and their inputs: what waits, what runs, what came out, what is tried again."""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._bell import Bell
from hypernodes_modal.testing._records import App, Container, Function
from hypernodes_modal.testing._rpc import message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Call", "Calls", "Input", "failed", "terminated", "timed_out"]

RESULT = api_pb2.GenericResult
SYNC = api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC


def failed(why: str) -> Any:
    return message("GenericResult", status=RESULT.GENERIC_STATUS_INTERNAL_FAILURE, exception=why)


def terminated(why: str) -> Any:
    return message("GenericResult", status=RESULT.GENERIC_STATUS_TERMINATED, exception=why)


def timed_out(why: str) -> Any:
    return message("GenericResult", status=RESULT.GENERIC_STATUS_TIMEOUT, exception=why)


@dataclass(eq=False)
class Input:
    """One input of a call. `attempt` counts its deliveries, `retry_count` what the client has asked to try again."""

    id: str
    call: Call
    idx: int
    payload: Any
    state: Literal["pending", "running", "done"] = "pending"
    attempt: int = 0
    retry_count: int = 0
    retried_here: int = 0
    crashes: int = 0
    cancelled: bool = False
    container: Container | None = None


@dataclass(eq=False)
class Call:
    """One call of a function, with one input or many."""

    id: str
    function: Function
    invocation: int
    parent: str
    client_retries: bool
    from_input_plane: bool = False
    inputs: list[Input] = field(default_factory=list)
    outputs: list[tuple[int, Any]] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    entries: int = 0
    unfinished: int = 0
    bell: Bell = field(default_factory=Bell)

    def after(self, entry: int) -> list[tuple[int, Any]]:
        """The outputs that came after this entry."""
        return self.outputs[bisect.bisect_right(self.outputs, entry, key=lambda output: output[0]) :]


class Calls:
    """The state of all calls. `arrange` is called when there is something new to run, `interrupt` to stop an input.

    `waiting` counts, by input, what it has called and waits for.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.calls: dict[str, Call] = {}
        self.inputs: dict[str, Input] = {}
        self.waiting: Counter[str] = Counter()
        self.arrange: Callable[[], None] = lambda: None
        self.interrupt: Callable[[Input], None] = lambda one: None
        self._delayed: set[asyncio.TimerHandle] = set()

    def open(self, function_id: str, invocation: int, parent: str, *, from_input_plane: bool = False) -> Call:
        function = self.records.functions.get(function_id)
        self._refuse_stopped(function.app)
        client_retries = from_input_plane or (invocation == SYNC and function.definition.retry_policy.retries > 0)
        call = Call(self.records.new_id("fc"), function, invocation, parent, client_retries, from_input_plane)
        self.calls[call.id] = call
        return call

    def get(self, call_id: str) -> Call:
        if call_id not in self.calls:
            raise refuse(Status.NOT_FOUND, f"Function call '{call_id}' not found")
        return self.calls[call_id]

    def add(self, call: Call, idx: int, payload: Any) -> Input:
        """Queue a new input of a call."""
        self._refuse_stopped(call.function.app)
        one = Input(self.records.new_id("in"), call, idx, payload)
        self.inputs[one.id] = one
        call.inputs.append(one)
        self._count(one, 1)
        self._queue(one)
        return one

    def again(self, one: Input, retry_count: int = 0) -> None:
        """The client asks to try an input again: its earlier output counts no more."""
        if one.state != "done":
            return  # it is still being tried
        one.retry_count = retry_count or one.retry_count + 1
        one.call.outputs = [(entry, item) for entry, item in one.call.outputs if item.input_id != one.id]
        one.crashes = 0
        self._count(one, 1)
        self._queue(one)

    def take(self, function: Function, most: int) -> list[Input]:
        """Take what waits, oldest first, for a container."""
        taken: list[Input] = []
        while function.pending and len(taken) < most:
            taken.append(function.pending.popleft())
        return taken

    def put_back(self, one: Input) -> None:
        """Queue an input first again whose container has gone, through no fault of its own."""
        one.state, one.container = "pending", None
        one.call.function.pending.appendleft(one)
        one.call.function.bell.ring()

    def crashed(self, one: Input, limit: int, why: str) -> None:
        """Its container died under it: try it again elsewhere, so many times."""
        one.crashes += 1
        if one.crashes < limit:
            self.put_back(one)
        else:  # a failure that the client counts: of one that it does not, it would ask for a new try without end
            result = failed(why)
            if one.call.client_retries and not one.call.from_input_plane:
                result.status = RESULT.GENERIC_STATUS_FAILURE
            self.settle(one, result)

    def settle(self, one: Input, result: Any, data_format: int = 0, started: float = 0.0) -> None:
        """An attempt has ended. It is tried again here if the caller does not see to that itself."""
        if one.state == "done":
            return
        policy = one.call.function.definition.retry_policy
        again = result.status in (RESULT.GENERIC_STATUS_FAILURE, RESULT.GENERIC_STATUS_TIMEOUT)
        if again and not one.cancelled and not one.call.client_retries and one.retried_here < policy.retries:
            delay = policy.initial_delay_ms * policy.backoff_coefficient**one.retried_here
            one.retried_here += 1
            one.container = None
            self._later(min(delay, policy.max_delay_ms or delay) / 1000, one)
            return
        call = one.call
        task_id = one.container.id if one.container else ""
        one.state, one.container = "done", None
        self._count(one, -1)
        call.entries += 1
        item = message(
            "FunctionGetOutputsItem",
            result=result,
            idx=one.idx,
            input_id=one.id,
            data_format=data_format,
            task_id=task_id,
            input_started_at=started,
            output_created_at=time.time(),
            retry_count=one.retry_count,
        )
        call.outputs.append((call.entries, item))
        call.bell.ring()
        self.records.bell.ring()

    def cancel(self, call: Call, why: str) -> None:
        """End everything of a call, the newest first."""
        for one in reversed(call.inputs):
            one.cancelled = True
            if one.state == "pending":
                self._drop(one)
                self.settle(one, terminated(why))
            elif one.state == "running":
                self.interrupt(one)

    def fail_pending(self, function: Function, result: Any) -> None:
        """End everything that waits for a function whose containers cannot start."""
        for one in self.take(function, len(function.pending)):
            self.settle(one, result)

    def end(self, app: App) -> None:
        """End everything of an app that was stopped."""
        for one in list(self.inputs.values()):
            if one.call.function.app is app and one.state != "done":
                one.cancelled = True
                self._drop(one)
                self.settle(one, terminated(f"App '{app.name}' ({app.id}) was stopped"))

    def shut(self) -> None:
        for handle in self._delayed:
            handle.cancel()

    def _count(self, one: Input, change: int) -> None:
        one.call.unfinished += change
        if parent := one.call.parent:
            self.waiting[parent] += change
            if not self.waiting[parent]:
                del self.waiting[parent]

    def _queue(self, one: Input) -> None:
        one.state = "pending"
        one.call.function.pending.append(one)
        one.call.function.bell.ring()
        self.arrange()

    def _drop(self, one: Input) -> None:
        if one in one.call.function.pending:
            one.call.function.pending.remove(one)

    def _later(self, delay: float, one: Input) -> None:
        one.state = "pending"

        def due() -> None:
            self._delayed.discard(handle)
            if one.state == "pending":
                self._queue(one)

        handle = asyncio.get_running_loop().call_later(delay, due)
        self._delayed.add(handle)

    def _refuse_stopped(self, app: App) -> None:
        if app.stopped:
            raise refuse(Status.NOT_FOUND, f"App '{app.name}' ({app.id}) was stopped: nothing can be called in it")
