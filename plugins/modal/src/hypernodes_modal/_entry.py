"""What a container runs: one function, imported by name, that takes bytes and gives bytes.

It is never pickled, so that another Python or a missing package is a sentence here, before anything is unpickled. Old
Pythons must be able to import this module, so hypernodes itself is imported when a call has been looked at.
"""

from __future__ import annotations

import os
import sys
import time
from collections import OrderedDict
from typing import Any

KEPT_BYTES = 512 * 1024 * 1024
"""How much of what came by way of the store a container keeps."""

_kept: OrderedDict[str, bytes] = OrderedDict()


def call(told: dict[str, Any], payload: bytes, parts: dict[str, bytes], store: Any) -> tuple[Any, dict[str, Any]]:
    """Run one request; gives its reply, or a text that says why it cannot be taken, and facts about the call.

    `told` says with which Python it was packed, and which parts lie in the `store`, a `modal.Dict`, by their digest.
    Without a payload nothing is done but to look.
    """
    started = time.perf_counter()
    reply = _refusal(told) or _run(told, payload, parts, store)
    return reply, {"seconds": time.perf_counter() - started, "container": os.environ.get("MODAL_TASK_ID", "")}


def _refusal(told: dict[str, Any]) -> str:
    theirs, ours = tuple(told["python"]), tuple(sys.version_info[:2])
    if theirs != ours:
        sent, here = (".".join(map(str, version)) for version in (theirs, ours))
        return (
            f"the pipeline was packed by Python {sent}, the image has Python {here}; give both the same, such as "
            f"modal.Image.debian_slim(python_version='{sent}')"
        )
    try:
        import cloudpickle  # noqa: F401

        import hypernodes.plugin  # noqa: F401
    except ImportError as error:
        return f"the image cannot run hypernodes: {type(error).__name__}: {error}"
    return ""


def _run(told: dict[str, Any], payload: bytes, parts: dict[str, bytes], store: Any) -> bytes:
    if not payload:
        return b""
    from hypernodes.plugin import receive

    return receive(payload, _Parts(parts, told["stored"], store))


class _Parts(dict):  # type: ignore[type-arg]
    """What requests share, by digest: what came along, and what lies in the store, which is fetched when needed."""

    def __init__(self, parts: dict[str, bytes], stored: list[str], store: Any) -> None:
        super().__init__(parts)
        self.stored, self.store = frozenset(stored), store

    def __contains__(self, digest: object) -> bool:
        return super().__contains__(digest) or digest in self.stored

    def __missing__(self, digest: str) -> bytes:
        if digest not in self.stored:
            raise KeyError(digest)
        found = _kept.get(digest)
        if found is None:
            found = _kept[digest] = self.store[digest]
            while len(_kept) > 1 and sum(map(len, _kept.values())) > KEPT_BYTES:
                _kept.popitem(last=False)
        _kept.move_to_end(digest)
        return found
