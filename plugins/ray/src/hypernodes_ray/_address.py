"""Addresses of clusters: what forms there are, and whether anything answers there."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from hypernodes.plugin import IncompatibleEngineError, PlaceError

__all__ = ["Address", "address_of", "probe"]

PATIENCE = 3.0
"""Seconds that a cluster has to answer. Ray itself waits two minutes, and then ends the program."""

_FORMS = "None for a cluster of this machine, 'auto' for the one that runs on it, 'host:port', or 'ray://host:port'"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


class Address(NamedTuple):
    """Where a cluster is; `host` is empty where Ray looks for it itself. By `is_client` all goes through a proxy."""

    text: str
    host: str = ""
    port: int = 0
    is_client: bool = False


def address_of(text: object) -> Address | None:
    """The address that a user gave, or None for a cluster that is to be started; says what is wrong with others."""
    if text is None or text == "local":
        return None
    if not isinstance(text, str):
        raise IncompatibleEngineError(f"RayBackend: address={text!r}; give {_FORMS}")
    if text == "auto":
        return Address(text)
    rest = text.removeprefix("ray://")
    host, colon, port = rest.rpartition(":")
    if "/" in rest or not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise IncompatibleEngineError(f"RayBackend: address={text!r} is no address of a Ray cluster; give {_FORMS}")
    return Address(text, host.strip("[]"), int(port), text != rest)


def probe(address: Address) -> None:
    """Raise `PlaceError` unless something that may be Ray answers there within seconds."""
    if not address.host:
        return
    hint = (
        "start a cluster there (`ray start --head`), or give the right address: 'ray://host:10001' is the client's "
        "port, 'host:6379' the head's"
    )
    try:
        with socket.create_connection((address.host, address.port), PATIENCE) as found:
            speaks = _speaks(found)
    except OSError as error:
        why = f"no answer within {PATIENCE:g} s" if isinstance(error, TimeoutError) else _reason(error)
        raise PlaceError(f"RayBackend cannot reach a Ray cluster at '{address.text}': {why}; {hint}") from error
    if not speaks:
        raise PlaceError(f"RayBackend found something at '{address.text}' that does not speak as Ray does; {hint}")


def _speaks(found: socket.socket) -> bool:
    """Whether it begins as every server of Ray's does, which speak HTTP/2: with its settings."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    found.settimeout(PATIENCE)
    try:
        found.sendall(_PREFACE)
        head = b""
        while len(head) < 9:
            more = found.recv(9 - len(head))
            if not more:
                return False
            head += more
    except OSError:
        return False
    return head[3] == _SETTINGS


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
