"""The call of a node that failed, kept to be made again."""

from __future__ import annotations

from typing import Any

from hypernodes._diagnose import culprit
from hypernodes._failure import text_of
from hypernodes._flow import function_of
from hypernodes._node import Node
from hypernodes._resource import Need
from hypernodes._scope import opened

__all__ = ["KeptCall"]

Needs = tuple[tuple[str, Need], ...]


class KeptCall:
    """A node and what it was called with. It shows neither in its repr. Resources are built anew for a call.

    It always survives being pickled: where the node or an input does not, `lost` says which. It is read only when
    somebody asks for it, so that what cannot be read here costs nothing else.
    """

    __slots__ = ("_call", "_lost", "_packed")

    def __init__(self, node: Node[..., Any], inputs: dict[str, Any], needs: Needs = ()) -> None:
        self._call: tuple[Node[..., Any], dict[str, Any], Needs] | None = (node, inputs, needs)
        self._packed = b""
        self._lost = ""

    @property
    def lost(self) -> str:
        """Why there is no call to make; empty where there is one."""
        if self._call is None and not self._lost:
            try:
                import pickle

                self._call = pickle.loads(self._packed)
            except (Exception, SystemExit, GeneratorExit) as error:
                self._lost = f"{type(error).__qualname__}: {text_of(error)}"
        return self._lost

    @property
    def inputs(self) -> dict[str, Any]:
        return dict(self._known()[1])

    def call(self) -> Any:
        node, inputs, needs = self._known()
        if not needs:
            return _called(node, function_of(node)(**inputs))
        from hypernodes._acquire import supplied

        call = supplied((node.name,), needs, function_of(node), is_async=node.is_async, alone=True)
        with opened() as scope:
            return _called(node, call(scope, **inputs))

    def _known(self) -> tuple[Node[..., Any], dict[str, Any], Needs]:
        if self.lost or self._call is None:
            raise ValueError(self._lost)
        return self._call

    def __reduce__(self) -> tuple[Any, ...]:
        if self._call is None:
            return _unpacked, (self._packed, self._lost)
        import cloudpickle

        node, inputs, _ = self._call
        try:
            return _unpacked, (cloudpickle.dumps(self._call, protocol=5), "")
        except (Exception, SystemExit, GeneratorExit) as error:
            return _unpacked, (b"", f"{_fault(node, inputs)} cannot be pickled: {text_of(error)}")

    def __repr__(self) -> str:
        return "<the call of a node, kept>"


def _called(node: Node[..., Any], value: Any) -> Any:
    if not node.is_async:
        return value
    from hypernodes._loops import run_coroutine

    return run_coroutine(value)


def _unpacked(packed: bytes, lost: str) -> KeptCall:
    kept = KeptCall.__new__(KeptCall)
    kept._call, kept._packed, kept._lost = None, packed, lost
    return kept


def _fault(node: Node[..., Any], inputs: dict[str, Any]) -> str:
    """The input at fault, or else the function."""
    import cloudpickle

    for name, value in inputs.items():
        try:
            cloudpickle.dumps(value, protocol=5)
        except (Exception, SystemExit, GeneratorExit):
            return f"the input {culprit(value, name)}"
    return f"node '{node.name}'"
