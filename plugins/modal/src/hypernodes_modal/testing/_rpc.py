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
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream
from modal_proto import api_pb2

if TYPE_CHECKING:
    from hypernodes_modal.testing._records import Container

__all__ = ["Caller", "Switchboard", "message", "refuse"]

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
    """Finds the part that serves an RPC, checks who calls, and counts. `served` is called after each."""

    def __init__(self, parts: Iterable[object], token: tuple[str, str], served: Callable[[], None]) -> None:
        self.token = token
        self._served = served
        self.rpcs: Counter[str] = Counter()
        self.unimplemented: Counter[str] = Counter()
        self.errors: list[str] = []
        self._serving: dict[str, Callable[[Any, Caller], Any]] = {}
        for part in parts:
            for name in SERVICE.methods_by_name:
                if method := getattr(part, name, None):
                    assert name not in self._serving, f"two parts serve {name}"
                    self._serving[name] = method

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
            finally:
                self._served()

        cardinality = Cardinality.UNARY_STREAM if method.server_streaming else Cardinality.UNARY_UNARY
        return Handler(serve, cardinality, request_type, reply_type)

    def _check(self, name: str, stream: Stream[Any, Any], caller: Caller) -> None:
        if caller.container is not None or name in OPEN_TO_ALL:
            return  # a container is known by the address that only it was given
        told: Any = stream.metadata or {}
        sent = f"{told.get('x-modal-token-id', '')}:{told.get('x-modal-token-secret', '')}"
        if not hmac.compare_digest(sent.encode(), ":".join(self.token).encode()):
            raise refuse(Status.UNAUTHENTICATED, "Token validation failed: LocalModal does not know this token")
