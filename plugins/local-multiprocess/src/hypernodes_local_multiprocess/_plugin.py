"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import EngineSpec, hookimpl


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="multiprocess",
            target="hypernodes_local_multiprocess._engine:MultiprocessEngine",
            requires=frozenset({"processes"}),
            summary="processes of this machine, for work that computes",
        )
    ]
