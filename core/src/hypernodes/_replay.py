"""The call of a node that failed, kept to be made again."""

from __future__ import annotations

from typing import Any

from hypernodes._diagnose import culprit
from hypernodes._failure import text_of
from hypernodes._flow import function_of
from hypernodes._node import Node

__all__ = ["KeptCall"]


class KeptCall:
    """A node and what it was called with. It shows neither in its repr.

    It always survives being pickled: where the node or an input does not, `lost` says which. It is read only when
    somebody asks for it, so that what cannot be read here costs nothing else.
    """

    __slots__ = ("_call", "_lost", "_packed")

    def __init__(self, node: Node[..., Any], inputs: dict[str, Any]) -> None:
        self._call: tuple[Node[..., Any], dict[str, Any]] | None = (node, inputs)
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
        node, inputs = self._known()
        value = function_of(node)(**inputs)
        if not node.is_async:
            return value
        from hypernodes._loops import run_coroutine

        return run_coroutine(value)

    def _known(self) -> tuple[Node[..., Any], dict[str, Any]]:
        if self.lost or self._call is None:
            raise ValueError(self._lost)
        return self._call

    def __reduce__(self) -> tuple[Any, ...]:
        if self._call is None:
            return _unpacked, (self._packed, self._lost)
        import cloudpickle

        node, inputs = self._call
        try:
            return _unpacked, (cloudpickle.dumps((node, inputs), protocol=5), "")
        except (Exception, SystemExit, GeneratorExit) as error:
            return _unpacked, (b"", f"{_fault(node, inputs)} cannot be pickled: {text_of(error)}")

    def __repr__(self) -> str:
        return "<the call of a node, kept>"


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
