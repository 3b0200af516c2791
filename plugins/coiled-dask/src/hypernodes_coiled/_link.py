"""A connection to a scheduler: Dask's asynchronous client, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from distributed import Client
from distributed.versions import VersionMismatchWarning

from hypernodes import PlaceError

__all__ = ["Link"]

T = TypeVar("T")
_THREAD = "hypernodes-dask"
PATIENCE = 10.0
"""Seconds in which a client that is closed must have said goodbye."""


def _is_ours(record: logging.LogRecord) -> bool:
    return record.threadName == _THREAD


for _name in ("distributed.client", "distributed.core", "distributed.comm"):
    # A connection of ours that breaks is told as an exception, and not in a traceback of its attempts to reconnect.
    logging.getLogger(_name).addFilter(lambda record: not _is_ours(record))


class _Client(Client):  # type: ignore[misc]
    """A client that does not read our own source code anew for each request, as `coiled` asks of it for dashboards."""

    @staticmethod
    def _get_computation_code(*_: Any, **__: Any) -> tuple[()]:
        return ()


class Link:
    """An open connection. Raises `PlaceError` when no scheduler answers within `timeout` seconds."""

    def __init__(self, address: str, security: Any = None, *, timeout: float = 30.0) -> None:
        self.address = address
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(security, timeout)), name=_THREAD, daemon=True
        )
        self._thread.start()
        try:
            with warnings.catch_warnings():
                # Other versions of dask or numpy may do; of hypernodes and Python, which may not, we tell ourselves.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                self._opened.result()
        except BaseException:
            if self._opened.done():
                self._thread.join()
            raise

    async def _live(self, security: Any, timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        options = {"asynchronous": True, "set_as_default": False, "name": "hypernodes", "security": security}
        client = _Client(self.address, timeout=timeout, **options)
        try:
            self.client = await client
        except Exception as error:
            with suppress(Exception):  # of what is only half there
                await asyncio.wait_for(client.close(), PATIENCE)
            self._opened.set_exception(_unreachable(self.address, error))
            return
        self._opened.set_result(None)
        await self._closing.wait()
        with suppress(TimeoutError, OSError):  # the scheduler is gone, or frozen: there is nobody to say goodbye to
            await asyncio.wait_for(self.client.close(), PATIENCE)
        # What is still under way closes its sockets itself; cancelled with the loop it would leave them open.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1)

    def start(self, call: Callable[[], Awaitable[T]]) -> Future[T]:
        """Call something on the loop and await it there. Raises RuntimeError when the link is closed."""

        async def run() -> T:
            return await call()

        running = run()
        try:
            return asyncio.run_coroutine_threadsafe(running, self.loop)
        except RuntimeError:
            running.close()
            raise

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call something on the loop; nothing happens when the link is closed."""
        try:
            self.loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return

    def close(self) -> None:
        """Close the client and end the thread."""
        self.post(self._closing.set)
        self._thread.join()


def _unreachable(address: str, error: Exception) -> PlaceError:
    told = PlaceError(
        f"no Dask scheduler answers at {address}: {type(error).__name__}: {error}; "
        "check the address, that the scheduler runs, and that its TLS settings are those given by security="
    )
    told.__cause__ = error
    return told
