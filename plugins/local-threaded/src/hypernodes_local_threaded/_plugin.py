"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import EngineSpec, hookimpl


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="threaded",
            target="hypernodes_local_threaded._engine:ThreadedEngine",
            requires=frozenset({"threads"}),
            summary="threads of this process, for work that waits",
        )
    ]
