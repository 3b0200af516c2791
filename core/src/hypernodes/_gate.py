"""What a call of a node must pass before it begins: limits by name, and the resources of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hypernodes._node import Node
    from hypernodes._settings import Setting

__all__ = ["Gate", "gates_of"]


class Gate(NamedTuple):
    """At most `most` units may be taken at a time, of which one call takes `takes`; or, with `per`, `most` calls may
    begin in `per` seconds. `key` names what is counted, the same for all calls that count together in a run.
    """

    key: str
    most: float
    takes: float = 1
    per: float | None = None


def gates_of(node: Node[..., Any], path: tuple[str, ...], setting: Setting, backend: Any) -> tuple[Gate, ...]:
    """The gates of one step; raises `GraphError` for a limit that nobody declares, or for more than there can be."""
    return ()


def gate_limits(limits: Mapping[str, Any]) -> None:
    """Placeholder until limits can be declared."""
