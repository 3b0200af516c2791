"""The control plane as a whole: a thread with a loop, two servers, and the parts that answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets as randomness
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from hypernodes_modal.testing._client import close, close_default_client, exported
from hypernodes_modal.testing._harm import Harm
from hypernodes_modal.testing._home import Home
from hypernodes_modal.testing._parts import Parts, Settings
from hypernodes_modal.testing._records import App, Container, Function, Image, Volume
from hypernodes_modal.testing._shelf import Records

if TYPE_CHECKING:
    import modal

__all__ = ["LocalModal"]

Answer = TypeVar("Answer")


class LocalModal:
    """A Modal control plane on this machine, with real container processes. See docs/testing-modal.md.

    Args:
        capacity: containers at once.
        secrets: named secrets, by name.
        rates: dollars an hour by resource, for billing: `"cpu"` a core, `"memory"` a GiB, GPUs by name.
        gpus: names of the GPUs that may be asked for; None for any name.
        pythons: interpreters for images of other Python versions, by minor version: each has `modal` installed.
        input_plane: let clients call functions through the input plane instead of the control plane.
        crash_limit: containers that may die under one input, or at the start of one function, before it fails.
        cancel_grace: seconds that a container has to let go of a cancelled input, before it is killed.
        client_timeout: seconds without a sign of life from its client after which an ephemeral app is stopped.
    """

    def __init__(
        self,
        *,
        capacity: int = 4,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        gpus: Sequence[str] | None = None,
        rates: Mapping[str, str] | None = None,
        pythons: Mapping[str, str | os.PathLike[str]] | None = None,
        input_plane: bool = False,
        crash_limit: int = 3,
        cancel_grace: float = 30.0,
        client_timeout: float = 120.0,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: LocalModal needs room for at least one container")
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.token = (f"ak-{randomness.token_hex(8)}", f"as-{randomness.token_hex(16)}")
        self._told = Settings(
            token=self.token,
            capacity=capacity,
            secrets=secrets or {},
            gpus=None if gpus is None else frozenset(name.upper() for name in gpus),
            rates=rates or {},
            pythons={here: sys.executable} | {version: os.fspath(path) for version, path in (pythons or {}).items()},
            input_plane=input_plane,
            crash_limit=crash_limit,
            cancel_grace=cancel_grace,
        )
        self._client_timeout = client_timeout
        self.url = ""
        self.fail_builds: str | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._parts: Parts | None = None

    # its life ---------------------------------------------------------------------------------------------------

    def start(self) -> LocalModal:
        """Open the servers. Raises what went wrong."""
        if self._thread is not None:
            raise RuntimeError("this LocalModal was started already; make another one")
        if os.environ.get("MODAL_IS_REMOTE") == "1":
            raise RuntimeError(
                "LocalModal is being started inside a container, which has imported your script: start it under "
                "`if __name__ == '__main__':`, or keep the app in a module of its own"
            )
        started: list[BaseException | None] = []
        ready = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(ready, started), name="LocalModal", daemon=True)
        self._thread.start()
        ready.wait()
        if started and started[0] is not None:
            self._thread.join()
            raise started[0]
        return self

    def stop(self) -> None:
        """End all containers, close the servers, and take away every file and link that was made."""
        if self._loop is not None and self._over is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> LocalModal:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _main(self, ready: threading.Event, started: list[BaseException | None]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if ready.is_set():
                raise
            started.append(error)
        finally:
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        home = Home()
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        parts = self._parts = Parts(home.path, self._told, self._failing_build)
        try:
            self.url = await parts.open()
            ready.set()
            while not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), self._client_timeout / 4)
                parts.apps.stop_forgotten(self._client_timeout)
        finally:
            await parts.shut()
            home.remove()

    def _failing_build(self, commands: tuple[str, ...]) -> str | None:
        pattern = self.fail_builds
        if pattern is None:
            return None
        bad = next((command for command in commands if pattern in command), None)
        return None if bad is None else f"Step failed: {bad}\nterminated with exit code 1"

    # how to reach it --------------------------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        """The variables with which a program's `modal` talks to this control plane."""
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self.token[0],
            "MODAL_TOKEN_SECRET": self.token[1],
            "MODAL_ENVIRONMENT": "main",
            "MODAL_DISABLE_API_PROXY": "1",
        }

    @contextlib.contextmanager
    def use(self) -> Iterator[LocalModal]:
        """Let `modal` in this process talk to this control plane: the default client is closed before and after."""
        with exported(self.environ):
            close_default_client()
            try:
                yield self
            finally:
                close_default_client()

    @contextlib.contextmanager
    def client(self) -> Iterator[modal.Client]:
        """A client of this control plane alone, for `app.run(client=client)`."""
        import modal

        with exported(self.environ):  # the address is read when the client is made
            client = modal.Client.from_credentials(*self.token)
        try:
            yield client
        finally:
            close(client)

    # what it knows ----------------------------------------------------------------------------------------------

    def _known(self) -> Records:
        return self._started().records

    def _started(self) -> Parts:
        if self._parts is None:
            raise RuntimeError("LocalModal was not started: use it as `with LocalModal() as local:`")
        return self._parts

    @property
    def apps(self) -> list[App]:
        return list(self._known().apps)

    @property
    def functions(self) -> list[Function]:
        """Functions and their variants, in the order in which they were made."""
        return list(self._known().functions)

    @property
    def images(self) -> list[Image]:
        return list(self._known().images)

    @property
    def volumes(self) -> list[Volume]:
        return list(self._known().volumes)

    @property
    def containers(self) -> list[Container]:
        """All containers so far, those that have ended included."""
        return list(self._known().containers.values())

    @property
    def rpcs(self) -> Counter[str]:
        """How often each RPC was called."""
        return self._started().board.rpcs

    @property
    def unimplemented(self) -> Counter[str]:
        """RPCs that were called and are not served: a test should find none."""
        return self._started().board.unimplemented

    @property
    def errors(self) -> list[str]:
        """Tracebacks of what went wrong in the control plane itself: a test should find none."""
        return self._started().board.errors

    def do(self, action: Callable[[], Answer]) -> Answer:
        """Call something in the control plane's own thread, and give its answer."""
        assert self._loop is not None

        async def call() -> Answer:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def wait(self, true: Callable[[], Any], timeout: float = 60.0) -> None:
        """Wait until this is true, looking again whenever something changes. Raises TimeoutError."""
        assert self._loop is not None
        known = self._known()
        waiting = asyncio.run_coroutine_threadsafe(known.bell.until(lambda: bool(true()), timeout), self._loop)
        if not waiting.result():
            raise TimeoutError(f"LocalModal waited {timeout:g} s in vain")

    # trouble ----------------------------------------------------------------------------------------------------

    def preempt(self, container: Container) -> None:
        """Take a container's machine away: what it was doing begins again in another, and counts as no failure."""
        self.do(lambda: self._started().fleet.kill(container))

    def retire(self, container: Container) -> None:
        """Let a container end in order, after what it is doing, as one that has had no work for long."""
        self.do(lambda: self._started().fleet.retire(container))

    def stop_app(self, app: App) -> None:
        """Stop an app, as somebody may do in Modal's dashboard."""
        self.do(lambda: self._started().apps.stop(app))

    def crash(self, container: Container, number: int = signal.SIGKILL) -> None:
        """Let a container's process die of a signal, as if of itself."""
        self.do(lambda: self._started().fleet.crash(container, number))

    def harm(self, faults: int | None = None, *, crashes: float = 0.3, pause: float = 0.3, seed: int = 0) -> Harm:
        """While the block runs, take away containers at random that work on something: `faults` times, or all the time.

        So many of them `crash`, as a share, the others are preempted; between two there are at most `pause` seconds.
        """
        return Harm(self, faults, crashes, pause, seed)
