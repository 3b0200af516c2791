"""Things that are made on first use, shared by everybody who asks, and closed together when nobody uses them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Held", "Keep", "log"]

GRACE = 5.0
"""Seconds that closing waits for calls that are still under way: those of a run that was stopped."""


class Held(NamedTuple):
    """One thing and how it is closed. With a `loop` it belongs to that event loop: there `aclose` closes it, if
    anything does, and `close` does so from elsewhere.
    """

    value: Any
    close: Callable[[], object]
    loop: Any = None
    aclose: Callable[[], Any] | None = None


class Keep:
    """Things made on first use and closed together, the latest first.

    Who uses them says so by `enter` and `leave`: closing waits a little for them, and leaves it to the last of them
    if they take longer.
    """

    def __init__(self) -> None:
        self.made: dict[Any, Held] = {}
        self.faults: list[BaseException] = []
        self._failed: tuple[str, dict[Any, BaseException]] = ("", {})
        self._making: dict[Any, threading.RLock] = {}
        # Taken again by the same thread where a signal's handler ends the process on top of it.
        self._lock = threading.RLock()
        # A list, since appending and popping need no lock: 0.04 us each.
        self._users: list[None] = []
        self._quiet = threading.Condition()
        self._closing = self._left = self._over = False
        self._stops: list[Callable[[], object]] = []

    # -- making

    def once(self, key: Any, make: Callable[[], Any], close: Callable[[Any], object]) -> Any:
        """What `make` gave the first time; others who ask meanwhile wait, and try themselves where it raised."""

        def held() -> Held:
            value = make()
            return Held(value, lambda: close(value))

        return self.hold(key, held).value

    def hold(self, key: Any, make: Callable[[], Held]) -> Held:
        """The same with all that is to be said of it."""
        found = self.made.get(key)
        if found is not None:
            return found
        with self._lock:
            making = self._making.setdefault(key, threading.RLock())
        with making:
            found = self.made.get(key)
            if found is None:
                found = self.put(key, make())
        return found

    def put(self, key: Any, held: Held) -> Held:
        """Keep something that is made already."""
        with self._lock:
            self.made[key] = held
        return held

    def lock(self, key: Any, make: Callable[[], Any]) -> Any:
        """The lock under which something is made for which threads do not wait."""
        with self._lock:
            return self._making.setdefault(key, make())

    def failed(self, key: Any, run: str) -> BaseException | None:
        """What it raised when it was to be made for this call."""
        return self._failed[1].get(key) if self._failed[0] == run else None

    def fail(self, key: Any, run: str, error: BaseException) -> None:
        """Remember that; of the latest call alone, since another may have better luck."""
        with self._lock:
            if self._failed[0] != run:
                self._failed = (run, {})
            self._failed[1][key] = error

    # -- using

    def enter(self) -> None:
        """Say that something of it is used from now on, until `leave`."""
        self._users.append(None)

    def leave(self) -> None:
        self._users.pop()
        if self._closing:
            with self._quiet:
                self._quiet.notify_all()
                last = (self._left or self._over) and not self._users
            if last:
                self.end()

    @property
    def in_use(self) -> bool:
        return self._left and bool(self._users)

    # -- closing

    def before_end(self, stop: Callable[[], object]) -> None:
        """Have `stop` called when closing begins, before users are waited for: it lets go of those who only wait."""
        self._stops.append(stop)
        if self._closing:
            self._stop()

    def _stop(self) -> None:
        self._closing = True
        while self._stops:
            self._stops.pop()()

    def close(self) -> list[BaseException]:
        """Close everything, also where something raises; what was raised, here and where event loops ended before."""
        self._stop()
        stopped = self._wait()
        return stopped if self.in_use else [*stopped, *self._close_all()]

    async def aclose(self) -> list[BaseException]:
        """The same on the running loop; what belongs to another loop is closed on that one."""
        import asyncio

        loop = asyncio.get_running_loop()
        self._stop()
        if self._users:
            await asyncio.to_thread(self._wait)
            if self.in_use:
                return []
        for held in self._taken():
            try:
                if held.loop is loop and held.aclose is not None:
                    await held.aclose()
                elif held.aclose is not None:
                    await asyncio.to_thread(held.close)
                else:
                    held.close()
            except BaseException as error:
                self.faults.append(error)
        return self._told()

    def end(self) -> None:
        """Close everything now that nobody is left who could be told what it raises: that is logged."""
        for fault in self._close_all():
            log(fault)

    def take(self, loop: object) -> list[Held]:
        """What belongs to this event loop, the latest first; it is no longer kept."""
        with self._lock:
            for key in [key for key in self._making if isinstance(key, tuple) and key[-1] is loop]:
                del self._making[key]
            found = [key for key, held in self.made.items() if held.loop is loop]
            return [self.made.pop(key) for key in reversed(found)]

    def faulty(self, error: BaseException) -> None:
        """Something that was taken from here could not be closed."""
        if self._over:
            log(error)
        else:
            self.faults.append(error)

    def _wait(self) -> list[BaseException]:
        """Wait for those who still use something; what stopped the waiting."""
        stopped: list[BaseException] = []
        with self._quiet:
            self._closing = True
            try:
                self._quiet.wait_for(lambda: not self._users, GRACE)
            except KeyboardInterrupt as error:
                stopped.append(error)
            self._left = bool(self._users)
        return stopped

    def _close_all(self) -> list[BaseException]:
        for held in self._taken():
            try:
                held.close()
            except BaseException as error:
                self.faults.append(error)
        return self._told()

    def _taken(self) -> list[Held]:
        with self._lock:
            made, self.made = list(self.made.values()), {}
        return made[::-1]

    def _told(self) -> list[BaseException]:
        told, self.faults, self._over = self.faults, [], True
        return told


def log(error: BaseException) -> None:
    """Tell of an error that nobody is there to catch."""
    import logging

    logging.getLogger("hypernodes").error("%s", error, exc_info=error)
