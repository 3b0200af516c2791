"""A request that is out: how it is carried, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

__all__ = ["How", "Out", "Request", "Turns"]


class Turns:
    """Lets so many requests at a time be with the cluster; None lets all."""

    def __init__(self, at_once: int | None = None) -> None:
        self._turns = nullcontext() if at_once is None else asyncio.Semaphore(at_once)

    async def __aenter__(self) -> None:
        await self._turns.__aenter__()

    async def __aexit__(self, *fault: Any) -> None:
        await self._turns.__aexit__(*fault)


@dataclass(frozen=True, eq=False)
class How:
    """How requests are carried: their name on the dashboard, and what each uses of its worker's resources."""

    label: str = "request"
    resources: Mapping[str, float] | None = None
    priority: int = 0
    turns: Turns = field(default_factory=Turns)


class Request(Future[bytes]):
    """A request that is out. One that is given up is stopped on its worker, too."""

    def __init__(self, give_up: Callable[[Request], None]) -> None:
        super().__init__()
        self._give_up = give_up

    def cancel(self) -> bool:
        if self.cancelled():
            return True
        given_up = super().cancel()
        if given_up:
            self._give_up(self)
        return given_up


@dataclass(eq=False)
class Out:
    """What the loop knows of a request: its task here, the key of its Dask task, and what was decided over its head."""

    verdict: asyncio.Future[None]
    carrier: asyncio.Task[None] | None = None
    resources: Mapping[str, float] | None = None
