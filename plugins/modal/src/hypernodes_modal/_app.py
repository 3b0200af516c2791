"""Warm apps: one for each image, name, client and environment, shared by all backends that have these in common."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import modal
from modal import exception as failures

from hypernodes_modal import _entry, _errors, _image, _loop

logger = logging.getLogger("hypernodes")

STORED_BYTES = 1024 * 1024
"""What many calls share goes into the app's store when it is larger than this, and along with each call when not."""

LOG_PAUSES = (0.0, 0.5, 1.5)
"""Seconds to wait before each time that a log is asked for, as long as nothing is in it."""


@dataclass(frozen=True)
class AppKey:
    """What an app is; backends that agree on it share one.

    `options` are settings that a function has from its making on and cannot be given later: those of a backend that
    names them have an app of their own.
    """

    image: Any
    plugins: _image.Plugins
    packages: tuple[str, ...] | None
    name: str
    client: Any
    environment: str | None
    show_output: bool
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


class WarmApp:
    """An ephemeral app that runs, with one function; `close` when nobody uses it any more."""

    def __init__(self, key: AppKey) -> None:
        self.key, self.users = key, 0
        self.closed, self._closing = False, threading.Lock()
        self.loop = _loop.hold()
        self._store: Any = None
        self._store_context: Any = None
        self._store_lock = asyncio.Lock()
        self._stored: dict[str, asyncio.Task[None]] = {}
        try:
            _loop.wait_for(self.loop, self._open())
        except BaseException:
            _loop.release()
            raise

    async def _open(self) -> None:
        key = self.key
        try:
            if key.client is None and not modal.is_local():
                self.client = await modal.Client.from_env.aio()
            else:
                self.client = key.client or await modal.Client.from_env.aio()
            packages = _image.local_packages() if key.packages is None else key.packages
            image = _image.built(key.image, key.plugins, packages)
            self.app = modal.App(key.name, image=image, include_source=False)
            self.function = self.app.function(name="call", include_source=False, **key.options)(_entry.call)
            self._running = self.app.run(client=self.client, environment_name=key.environment)
            if key.show_output:
                with modal.enable_output():
                    await self._running.__aenter__()
            else:
                await self._running.__aenter__()
        except failures.Error as error:
            image_id = _errors.failed_build(error)
            if image_id is not None:
                raise _errors.build_failed(error, await self._build_log(image_id)) from error
            raise _errors.told(error, f"the app '{key.name}' was opened") from error

    async def _build_log(self, image_id: str) -> str:
        """The log of a build that failed, as far as Modal still gives it."""
        lines: list[str] = []
        try:
            image = modal.Image.from_id(image_id, client=self.client)
            async for line in image._logs.aio():
                lines.append(line)
        except failures.Error as unread:
            logger.debug("the log of image %s cannot be read: %s", image_id, unread)
        return "".join(lines)

    async def last_words(self) -> str:
        """What its containers have written last, as far as Modal tells; a line arrives there after a moment."""
        pieces: list[str] = []
        if "logs" not in dir(modal.App):
            return ""  # an older client cannot ask
        try:
            for pause in LOG_PAUSES:
                await asyncio.sleep(pause)
                async for entry in self.app.logs.tail.aio(_errors.LOG_LINES):
                    pieces.append(entry.message)
                if pieces:
                    break
        except failures.Error as unread:
            logger.debug("the log of the %s cannot be read: %s", self.dashboard, unread)
        return "".join(pieces)

    async def keep(self, parts: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
        """These parts as they travel: the small ones along with the call, the large ones once, by way of the store."""
        small = {digest: bytes(part) for digest, part in parts.items() if len(part) <= STORED_BYTES}
        large = [digest for digest in parts if digest not in small]
        for digest in large:
            if digest not in self._stored:
                self._stored[digest] = asyncio.ensure_future(self._put(digest, bytes(parts[digest])))
        try:
            for digest in large:
                await asyncio.shield(self._stored[digest])
        except Exception:
            for digest in large:
                self._stored.pop(digest, None)  # the next call that needs it tries again
            raise
        return small, large

    async def _put(self, digest: str, part: bytes) -> None:
        async with self._store_lock:
            if self._store is None:
                context = modal.Dict.ephemeral(client=self.client, environment_name=self.key.environment)
                self._store = await context.__aenter__()
                self._store_context = context
        await self._store.put.aio(digest, part)

    @property
    def store(self) -> Any:
        """The `modal.Dict` of large parts; None as long as there are none."""
        return self._store

    @property
    def dashboard(self) -> str:
        return f"app '{self.key.name}', {self.app.app_id}"

    def close(self) -> None:
        """Stop the app; the second time there is nothing left to do."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
        try:
            _loop.wait_for(self.loop, self._close())
        finally:
            _loop.release()

    async def _close(self) -> None:
        # Stopping the app first stops what runs, and with it the spending.
        for context in (self._running, self._store_context):
            if context is not None:
                try:
                    await context.__aexit__(None, None, None)
                except failures.Error as error:
                    logger.warning("Modal failed while the %s was closed: %s", self.dashboard, error)


_apps: dict[AppKey, WarmApp] = {}
_lock = threading.RLock()
_registered = False


def acquire(key: AppKey) -> WarmApp:
    """The running app of this key, started now if need be."""
    with _lock:
        app = _apps.get(key)
        if app is None:
            app = _apps[key] = WarmApp(key)
            _close_at_exit()
        app.users += 1
        return app


def release(app: WarmApp) -> None:
    """One user less; the last one closes it."""
    with _lock:
        app.users -= 1
        over = not app.users
        if over and _apps.get(app.key) is app:
            del _apps[app.key]
    if over:
        app.close()


def retire(app: WarmApp) -> None:
    """Let no more backends join it: something is wrong with it. Those that use it keep it until they are closed."""
    with _lock:
        if _apps.get(app.key) is app:
            del _apps[app.key]


def _close_at_exit() -> None:
    """Close all apps when the program ends, before Modal's client ends its own threads: the latest registered is first.

    Where Modal was imported after the first run of a pipeline, places are closed too late for it.
    """
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_close_all)


def _close_all() -> None:
    with _lock:
        open_apps = list(_apps.values())
    for app in reversed(open_apps):
        app.close()


def _forget() -> None:
    """A forked child owns no app."""
    _apps.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
