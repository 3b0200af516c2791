"""The autoscaler: how many containers each function has, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress

from hypernodes_modal.testing._calls import Calls, Input, failed, terminated
from hypernodes_modal.testing._launch import Launcher
from hypernodes_modal.testing._records import App, Container, Function
from hypernodes_modal.testing._shelf import Records

__all__ = ["Fleet"]

WINDOW = 60
"""Seconds that an idle container is kept where nothing was said."""


class Fleet:
    """Starts containers when inputs wait, retires those that are idle for long, and sees to it when one dies.

    At most `capacity` containers are there at once, but no function is left without any: what runs may wait for it. One
    that waits for calls which it has made itself does not count either.
    """

    def __init__(
        self, records: Records, calls: Calls, launcher: Launcher, capacity: int, crash_limit: int, cancel_grace: float
    ) -> None:
        self.records, self.calls = records, calls
        self._launcher = launcher
        self._capacity, self._crash_limit, self._cancel_grace = capacity, crash_limit, cancel_grace
        self._lives: set[asyncio.Task[None]] = set()
        self._present: list[Container] = []
        self._closed = False

    # how many ---------------------------------------------------------------------------------------------------

    def arrange(self) -> None:
        """Start what is wanted and possible. Called after everything that may change either."""
        if self._closed:
            return
        for function in self.records.functions:
            if not function.app.stopped:
                for _ in range(self._wanted(function)):
                    if not self._room(function):
                        break
                    self._start(function)

    def _alive(self, function: Function) -> list[Container]:
        return [one for one in function.containers if one.alive]

    def _wanted(self, function: Function) -> int:
        """Containers to start for what waits, and for what the autoscaler was told to keep."""
        settings = function.settings
        if not (function.pending or settings.min_containers or settings.buffer_containers):
            return 0
        alive = self._alive(function)
        each = slots(function)
        free = sum(each - len(one.running) for one in alive)
        missing = -(-max(0, len(function.pending) - free) // each)
        active = bool(function.pending) or any(one.running for one in alive)
        published = function.id in function.app.functions.values()
        kept = settings.min_containers if published else 0
        if active and settings.buffer_containers:
            busy = sum(bool(one.running) for one in alive)
            kept = max(kept, busy + min(missing, 1) + settings.buffer_containers)
        wanted = max(missing, kept - len(alive))
        return min(wanted, settings.max_containers - len(alive)) if settings.max_containers else wanted

    def _room(self, function: Function) -> bool:
        waiting = self.calls.waiting
        alive = [one for one in self._present if one.alive]
        counted = [one for one in alive if not one.running or any(key not in waiting for key in one.running)]
        if len(counted) < self._capacity:
            return True
        idle = [one for one in counted if one.function is not function and self._spare(one)]
        if idle:
            self.retire(idle[0])
        return bool(idle) or not self._alive(function)

    def _spare(self, container: Container) -> bool:
        """Whether a container does nothing, and none was asked to be kept for that."""
        kept = container.function.settings.min_containers
        return container.state == "ready" and not container.running and len(self._alive(container.function)) > kept

    # one container ----------------------------------------------------------------------------------------------

    def _start(self, function: Function) -> None:
        container = Container(self.records.new_id("ta"), function)
        self.records.containers[container.id] = container
        function.containers.append(container)
        self._present.append(container)
        life = asyncio.get_running_loop().create_task(self._live(container))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _live(self, container: Container) -> None:
        problem = ""
        try:
            await self._launcher.run(container)
        except Exception as error:  # whatever it is, the callers must hear of it
            problem = f"its container could not be started: {error}"
        finally:
            container.ended = time.monotonic()
            for timer in container.timers.values():
                timer.cancel()
            if container.endpoint is not None:
                await container.endpoint.shut()
            self._launcher.links.release(container.id)
            self._launcher.clear(container)
        self._bury(container, problem)

    def _bury(self, container: Container, problem: str) -> None:
        function, was = container.function, container.state
        container.state = "gone"
        function.containers.remove(container)
        self._present.remove(container)
        why = (
            problem or f"its container {container.id} ended with exit code {container.exit_code}{last_words(container)}"
        )
        for one in list(container.running.values()):
            self.release(container, one)
            if one.cancelled:
                self.calls.settle(one, terminated("Input was cancelled by user"))
            elif was == "leaving":
                self.calls.put_back(one)
            else:
                self.calls.crashed(one, self._crash_limit, f"Function '{function.name}' failed: {why}")
        if was == "starting" and container.reported is None:
            function.failed_starts += 1
            if problem or function.failed_starts >= self._crash_limit:
                function.failed_starts = 0
                self.calls.fail_pending(function, failed(f"Function '{function.name}' cannot start: {why}"))
        self.records.bell.ring()
        self.arrange()

    def ready(self, container: Container) -> None:
        if container.state == "starting":
            container.state = "ready"
            container.function.failed_starts = 0
            self.idle(container)
            self.records.bell.ring()

    def busy(self, container: Container) -> None:
        if (timer := container.timers.pop("idle", None)) is not None:
            timer.cancel()

    def idle(self, container: Container) -> None:
        """Begin to count the time that a container does nothing."""
        self.busy(container)
        if container.running or container.state != "ready":
            return

        def over() -> None:
            if self._spare(container):
                self.retire(container)

        window = container.function.settings.scaledown_window or WINDOW
        container.timers["idle"] = asyncio.get_running_loop().call_later(window, over)

    def release(self, container: Container, one: Input) -> None:
        container.running.pop(one.id, None)
        if (timer := container.timers.pop(one.id, None)) is not None:
            timer.cancel()

    def retire(self, container: Container) -> None:
        """Let a container end after what it is doing."""
        if container.alive:
            self._leave(container)

    def kill(self, container: Container) -> None:
        """End a container at once. What it was doing is put back into the queue, and counted as nobody's fault."""
        if container.state != "gone":
            self._leave(container)
            self._signal(container, signal.SIGKILL)

    def crash(self, container: Container, number: int) -> None:
        """Send its process a signal, of which the autoscaler knows nothing."""
        self._signal(container, number)

    def _signal(self, container: Container, number: int) -> None:
        if container.pid is not None and container.exit_code is None:  # later the number may be another process's
            with suppress(ProcessLookupError):
                os.killpg(container.pid, number)

    def _leave(self, container: Container) -> None:
        container.state = "leaving"
        container.function.bell.ring()
        container.bell.ring()

    def abandon(self, container: Container, one: Input, result: object) -> None:
        """End an input, and the container that does not let go of it."""
        self.release(container, one)
        self.calls.settle(one, result)
        self.kill(container)

    def interrupt(self, one: Input) -> None:
        """Tell the container to cancel an input, and end the container if it does not."""
        container = one.container
        if container is None:
            return
        container.to_cancel.append(one.id)
        container.bell.ring()
        attempt = one.attempt

        def over() -> None:
            if one.state == "running" and one.attempt == attempt:
                self.abandon(container, one, terminated("Input was cancelled by user"))

        container.timers[f"cancel {one.id}"] = asyncio.get_running_loop().call_later(self._cancel_grace, over)

    # all of them ------------------------------------------------------------------------------------------------

    def end(self, app: App) -> None:
        """Kill the containers of an app that was stopped."""
        for container in list(self._present):
            if container.function.app is app:
                self.kill(container)

    async def shut(self) -> None:
        self._closed = True
        for container in list(self._present):
            self.kill(container)
        if self._lives:
            await asyncio.wait(self._lives)


def slots(function: Function) -> int:
    """Inputs that one container of a function takes at once."""
    return int(max(1, function.definition.max_concurrent_inputs, function.definition.batch_max_size))


def last_words(container: Container) -> str:
    lines = container.output.strip().splitlines()[-15:]
    return "".join(f"\n{line}" for line in lines)
