"""The manifest: what this distribution adds to hypernodes. It says where the engine lies and imports none of it."""

from __future__ import annotations

from hypernodes.plugin import EngineSpec, hookimpl


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="loky",
            target="acme_engine._engine:LokyEngine",
            requires=frozenset({"processes"}),
            summary="processes of loky, started on demand and ended when idle",
        )
    ]
