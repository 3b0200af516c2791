"""Addresses on this machine, for one caller each, which close whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grpclib.const import Handler
from grpclib.server import Server

from hypernodes_modal.testing._rpc import Caller, Switchboard

if TYPE_CHECKING:
    from grpclib.protocol import H2Protocol

    from hypernodes_modal.testing._records import Container

__all__ = ["Endpoint", "accept_no_more"]

LONGEST = 100
"""Characters of a socket's path that every system takes."""

TURNS = 5
"""Turns of the loop after which a connection that was accepted has its transport."""


class Descriptor(Protocol):
    def fileno(self) -> int: ...


class Endpoint(Server):
    """One address of this machine. Closing it also ends the connections, for which the library would wait."""

    def __init__(self, switchboard: Switchboard, container: Container | None = None) -> None:
        self.url = ""
        self._socket: Path | None = None
        self._container = container
        self._mapping_of_rpcs = switchboard.handlers(lambda: Caller(self.url, self._container))
        self._transports: set[asyncio.BaseTransport] = set()
        super().__init__([self])

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping_of_rpcs

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        connect = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            self._transports = {known for known in self._transports if not known.is_closing()}
            self._transports.add(transport)
            connect(transport)

        protocol.connection_made = connection_made  # type: ignore[method-assign]
        return protocol

    async def open(self, path: Path | None = None) -> str:
        """Listen at this path, which only this user can reach, or on loopback where there is none or it is too long."""
        if path is not None and len(str(path)) <= LONGEST:
            await self.start(path=str(path))
            self.url, self._socket = f"unix://{path}", path
        else:
            await self.start("127.0.0.1", 0)
            assert self._server is not None
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        return self.url

    async def shut(self) -> None:
        if self._server is None:
            return
        await accept_no_more(self._server.sockets)  # type: ignore[attr-defined]
        for transport in self._transports:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.abort()  # what a caller does not read must not hold it up
        self.close()
        await self.wait_closed()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)


async def accept_no_more(sockets: Iterable[Descriptor]) -> None:
    """Stop listening, and let those arrive that were accepted: a server that is closed meanwhile would forget them."""
    for socket in sockets:
        asyncio.get_running_loop().remove_reader(socket.fileno())
    for _ in range(TURNS):
        await asyncio.sleep(0)
