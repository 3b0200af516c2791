"""What the client asked, as tests look at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Request"]


@dataclass(frozen=True)
class Request:
    """One request: the name of its route, empty if there is none, and what came with it."""

    route: str
    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    body: Any = None
    raw: bytes = b""


@dataclass(frozen=True)
class Answer:
    """A status and a body of JSON."""

    body: Any = None
    status: int = 200
