"""What a call of a node must pass before it begins: limits by name, and the resources of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from hypernodes._demand import Demand, told
from hypernodes._errors import GraphError, did_you_mean
from hypernodes._quota import Quota, quotas_of

if TYPE_CHECKING:
    from hypernodes._node import Node
    from hypernodes._settings import Setting

__all__ = ["Gate", "gates_of", "limits_of"]


class Gate(NamedTuple):
    """At most `most` units may be taken at a time, of which one call takes `takes`; or, with `per`, `most` calls may
    begin in any `per` seconds. `key` names what is counted, the same for all calls that count together in a run, and
    `name` is what people call it.
    """

    key: str
    most: float
    takes: float = 1
    per: float | None = None
    name: str = ""


def gates_of(node: Node[..., Any], path: tuple[str, ...], setting: Setting, backend: Any) -> tuple[Gate, ...]:
    """The gates of one step; raises `GraphError` for a limit that nobody declares, or for more than there can be."""
    if not (node.limit or node.resources):
        return ()
    limits = [
        Gate(f"limit {quota.key}", quota.most, 1, quota.per, f"limit '{quota.name}' ({quota.rule})")
        for quota in limits_of(node, path, setting, backend)
    ]
    return (*limits, *_machine_gates(node, path, backend))


def limits_of(node: Node[..., Any], path: tuple[str, ...], setting: Setting, backend: Any) -> tuple[Quota, ...]:
    """What the names of a node's limits stand for: the nearest pipeline's declaration, else its backend's."""
    if not node.limit:
        return ()
    known = {quota.name: quota for quota in setting.limits}
    label = type(backend).__name__
    for name, quota in quotas_of(label, backend.limits).items():
        known.setdefault(name, quota._replace(origin=label, key=f"{name} of {label} {setting.place}"))
    for name in node.limit:
        if name not in known:
            where = " > ".join(path)
            raise GraphError(
                f"node '{where}' counts against limit '{name}', which nobody declares{did_you_mean(name, known)}; "
                f"declare it on a pipeline around the node, limits={{'{name}': 8}} for 8 calls at once or "
                f"{{'{name}': '100/minute'}} for a rate, or on the node's backend, LocalBackend(limits=...)"
            )
    return tuple([known[name] for name in node.limit])


def _machine_gates(node: Node[..., Any], path: tuple[str, ...], backend: Any) -> Iterator[Gate]:
    have = backend.capacity() if node.resources else None
    if have is None:
        return
    for kind, asked, most in zip(Demand._fields, node.resources or (), have, strict=True):
        if asked > most:
            raise GraphError(
                f"node '{' > '.join(path)}' needs {told(kind, asked)} for each call, but backend '{backend.name}' has "
                f"{told(kind, most)}; ask for less in @node(resources=...), or tell the backend what there is, "
                f"as in LocalBackend(resources={{'{kind}': {asked:g}}})"
            )
        if asked:
            # Those who count by the same amount count together: there is one machine.
            yield Gate(f"{kind} of {most!r}", most, asked, None, f"its {told(kind, asked)}")
