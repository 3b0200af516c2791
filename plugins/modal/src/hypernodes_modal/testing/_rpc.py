"""gRPC over loopback, read off the descriptors of the installed `modal`: one handler for each RPC that it knows.

Nothing here or in the parts names a field that must exist: `message` drops what the installed protocol lacks, and an
RPC that no part serves is answered "unimplemented" and counted.
"""

from __future__ import annotations

import hmac
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from modal_proto import api_pb2

if TYPE_CHECKING:
    from grpclib.protocol import H2Protocol

    from hypernodes_modal.testing._records import Container

__all__ = ["Caller", "Endpoint", "Switchboard", "message", "refuse"]

SERVICE = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]
OPEN_TO_ALL = frozenset({"ClientHello"})


def message(name: str, /, **fields: Any) -> Any:
    """A message of this name, without the fields that are None or that the installed protocol does not have.

    None if it has no such message either: so a part of another message is left out.
    """
    kind = getattr(api_pb2, name, None)
    if kind is None:
        return None
    known = kind.DESCRIPTOR.fields_by_name
    return kind(**{field: value for field, value in fields.items() if value is not None and field in known})


def refuse(status: Status, why: str) -> GRPCError:
    """The error that the client turns into its own exception: NOT_FOUND into `NotFoundError`, and so on."""
    return GRPCError(status, why)


@dataclass(frozen=True)
class Caller:
    """Who calls: the program outside, or the container that was given this address."""

    url: str
    container: Container | None = None


class Switchboard:
    """Finds the part that serves an RPC, checks who calls, and counts."""

    def __init__(self, parts: Iterable[object], token: tuple[str, str]) -> None:
        self.token = token
        self.rpcs: Counter[str] = Counter()
        self.unimplemented: Counter[str] = Counter()
        self.errors: list[str] = []
        self._serving: dict[str, Callable[[Any, Caller], Any]] = {}
        for part in parts:
            for name in SERVICE.methods_by_name:
                if served := getattr(part, name, None):
                    assert name not in self._serving, f"two parts serve {name}"
                    self._serving[name] = served

    def handlers(self, caller: Callable[[], Caller]) -> dict[str, Handler]:
        """One handler for each RPC of the protocol, for an address that belongs to one caller."""
        return {
            f"/{SERVICE.full_name}/{name}": self._handler(name, method, caller)
            for name, method in SERVICE.methods_by_name.items()
        }

    def _handler(self, name: str, method: Any, caller: Callable[[], Caller]) -> Handler:
        request_type, reply_type = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        served = self._serving.get(name)

        async def serve(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            self.rpcs[name] += 1
            self._check(name, stream, caller())
            if served is None:
                self.unimplemented[name] += 1
                raise refuse(Status.UNIMPLEMENTED, f"LocalModal does not serve {name}")
            try:
                if method.server_streaming:
                    answers: AsyncIterator[Any] = served(request, caller())
                    async for answer in answers:
                        await stream.send_message(answer)
                else:
                    reply: Awaitable[Any] = served(request, caller())
                    await stream.send_message(await reply or reply_type())
            except GRPCError:
                raise
            except Exception as error:
                self.errors.append(f"{name}: {traceback.format_exc()}")
                raise refuse(Status.INTERNAL, f"LocalModal failed in {name}: {error!r}") from error

        cardinality = Cardinality.UNARY_STREAM if method.server_streaming else Cardinality.UNARY_UNARY
        return Handler(serve, cardinality, request_type, reply_type)

    def _check(self, name: str, stream: Stream[Any, Any], caller: Caller) -> None:
        if caller.container is not None or name in OPEN_TO_ALL:
            return  # a container is known by the address that only it was given
        told: Any = stream.metadata or {}
        sent = f"{told.get('x-modal-token-id', '')}:{told.get('x-modal-token-secret', '')}"
        if not hmac.compare_digest(sent.encode(), ":".join(self.token).encode()):
            raise refuse(Status.UNAUTHENTICATED, "Token validation failed: LocalModal does not know this token")


LONGEST = 100
"""Characters of a socket's path that every system takes."""


class Endpoint(Server):
    """One address of this machine. Closing it also closes the connections, for which the library would wait."""

    def __init__(self, switchboard: Switchboard, container: Container | None = None) -> None:
        self.url = ""
        self._container = container
        self._mapping_of_rpcs = switchboard.handlers(lambda: Caller(self.url, self._container))
        self._protocols: set[H2Protocol] = set()
        super().__init__([self])

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping_of_rpcs

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols = {known for known in self._protocols if not known.handler.closing}  # type: ignore[attr-defined]
        self._protocols.add(protocol)
        return protocol

    async def open(self, path: Path | None = None) -> str:
        """Listen at this path, which only this user can reach, or on loopback where there is none or it is too long."""
        if path is not None and len(str(path)) <= LONGEST:
            await self.start(path=str(path))
            self.url = f"unix://{path}"
        else:
            await self.start("127.0.0.1", 0)
            assert self._server is not None
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        return self.url

    async def shut(self) -> None:
        self.close()
        for protocol in self._protocols:
            if hasattr(protocol, "connection"):
                protocol.connection.close()
        await self.wait_closed()
