"""A backend that is open: requests become calls of one function, and their replies futures."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from modal import exception as failures

from hypernodes import VersionMismatchError
from hypernodes.plugin import Demand, PlaceError, Session, WorkerLostError, payload_of
from hypernodes_modal import _app, _errors
from hypernodes_modal._cost import Ledger

logger = logging.getLogger("hypernodes")

LARGEST = 512 * 1024 * 1024
"""Bytes that one request or one shared part may have."""

PROBES = 3
"""Empty calls that may die in a row: a single container may always be taken away."""

NOTHING = Demand()


class ModalSession(Session):
    """Carries requests to containers. A call that nobody waits for any more is cancelled at Modal, the newest first."""

    warm = True

    def __init__(self, backend: Any, key: _app.AppKey, ledger: Ledger) -> None:
        self.backend, self.ledger = backend, ledger
        self.workers = backend.max_concurrent
        self.app = _app.acquire(key)
        ledger.apps.add(str(self.app.app.app_id))
        self.calls: dict[int, Call] = {}
        self._functions: dict[Demand, Any] = {}
        self.proven = False  # whether a container ever answered
        self._probe: asyncio.Task[None] | None = None

    def sized(self, demand: Demand) -> Session:
        self.function_options(demand)  # what cannot be had is said before anything is sent
        return _Sized(self, demand)

    def submit(self, payload: bytes) -> Future[bytes]:
        return self.send(NOTHING, payload, {})

    def submit_request(self, frames: Sequence[Any], blobs: Mapping[str, bytes]) -> Future[bytes]:
        return self.send(NOTHING, payload_of(frames, {}), blobs)

    def send(self, demand: Demand, payload: bytes, blobs: Mapping[str, bytes]) -> Future[bytes]:
        """Let a container that has what is asked for take a request."""
        for size in (len(payload), *map(len, blobs.values())):
            if size > LARGEST:
                raise PlaceError(
                    f"{size / 1024**2:,.0f} MB would be sent to Modal at once, and {LARGEST / 1024**2:,.0f} MB is the "
                    f"most; {_errors.VOLUME}"
                )
        call = Call(self, demand, payload, blobs)
        self.calls[id(call)] = call
        self.app.loop.call_soon_threadsafe(call.start)
        return call.future

    def function_options(self, demand: Demand) -> dict[str, Any]:
        options: dict[str, Any] = self.backend.function_options(demand)
        return options

    def function(self, demand: Demand) -> Any:
        """The app's function with this backend's options, and what a demand asks for beyond them."""
        found = self._functions.get(demand)
        if found is None:
            options = self.function_options(demand)
            found = self.app.function.with_options(**options) if options else self.app.function
            self._functions[demand] = found
        return found

    async def prove(self, demand: Demand) -> None:
        """Raise `PlaceError` if not even an empty call comes home: containers die as they start."""
        if self._probe is None:
            self._probe = asyncio.ensure_future(self._look(demand))
        await asyncio.shield(self._probe)

    async def _look(self, demand: Demand) -> None:
        try:
            for tries_left in reversed(range(PROBES)):
                try:
                    call = await self.function(demand).spawn.aio(_told(()), b"", {}, None)
                    await call.get.aio()
                    self.proven = True
                    break
                except failures.InternalFailure as error:
                    if not tries_left:
                        raise _errors.dying(error, str(self.app.app.app_id), await self.app.last_words()) from error
        finally:
            self._probe = None

    def doubt(self) -> None:
        """The place itself failed: what opens next opens anew, and this ends with its run."""
        self.warm = False
        _app.retire(self.app)

    def abort(self) -> None:
        for call in reversed(list(self.calls.values())):
            call.future.cancel()

    def close(self) -> None:
        self.abort()
        _app.release(self.app)


class _Sized(Session):
    """The session for calls that need this much."""

    def __init__(self, session: ModalSession, demand: Demand) -> None:
        self.session, self.demand = session, demand

    def submit_request(self, frames: Sequence[Any], blobs: Mapping[str, bytes]) -> Future[bytes]:
        return self.session.send(self.demand, payload_of(frames, {}), blobs)

    def close(self) -> None:
        """The session itself is closed."""


class Call:
    """One request on its way: spawned, waited for, and cancelled when its future is.

    The future stays pending until it has its reply, so that it can be cancelled at any time.
    """

    def __init__(self, session: ModalSession, demand: Demand, payload: bytes, parts: Mapping[str, Any]) -> None:
        self.session, self.demand, self.payload, self.parts = session, demand, payload, parts
        self.future: Future[bytes] = Future()
        self.future.add_done_callback(self._ended)
        self._spawned: Any = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    def _ended(self, future: Future[bytes]) -> None:
        self.session.calls.pop(id(self), None)
        if future.cancelled():
            loop = self.session.app.loop
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        # Between the two there is nothing to cancel yet: `_run` looks when the call has been spawned.
        if self._spawned is not None and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            reply = await self._call()
        except asyncio.CancelledError:
            await self._cancel()
        except Exception as error:
            if not isinstance(error, WorkerLostError):
                self.session.doubt()
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
        else:
            if reply is not None and self.future.set_running_or_notify_cancel():
                self.future.set_result(reply)

    async def _call(self) -> bytes | None:
        session, app = self.session, self.session.app
        try:
            if self.future.cancelled():
                return None
            small, stored = await app.keep(self.parts)
            function = session.function(self.demand)
            self._spawned = await function.spawn.aio(_told(stored), self.payload, small, app.store if stored else None)
            if self.future.cancelled():
                await self._cancel()
                return None
            reply, facts = await self._spawned.get.aio()
        except failures.Error as error:
            lost = _errors.lost(error, session.backend.timeout)
            if lost is None:
                raise _errors.told(error, "a call ran", app.dashboard) from error
            if not session.proven and not isinstance(error, failures.FunctionTimeoutError):
                await session.prove(self.demand)
            raise lost from error
        except (PlaceError, asyncio.CancelledError):
            raise
        except Exception as error:
            if self._spawned is None:
                raise _errors.told(error, "a call was sent", app.dashboard) from error
            # What user code raises is in the reply. So this was raised before the container took the call.
            raise PlaceError(
                f"a container could not start: {type(error).__name__}: {error}; does the image hold what the backend's "
                f"packages import? ({app.dashboard})"
            ) from error
        session.proven = True
        session.ledger.book(facts["seconds"], facts["container"], session.backend.hourly(self.demand))
        if isinstance(reply, str):
            raise VersionMismatchError(reply) if "packed by" in reply else PlaceError(reply)
        return bytes(reply)

    async def _cancel(self) -> None:
        if self._spawned is None:
            return
        try:
            await self._spawned.cancel.aio()
        except failures.Error as error:
            # Where the app is closed, that has stopped the call.
            level = logging.DEBUG if self.session.app.closed else logging.WARNING
            logger.log(level, "a call that nobody waits for could not be cancelled at Modal: %s", error)


def _told(stored: Sequence[str]) -> dict[str, Any]:
    return {"python": list(sys.version_info[:2]), "stored": list(stored)}
