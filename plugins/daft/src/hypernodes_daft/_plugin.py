"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import EngineSpec, hookimpl


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="daft",
            target="hypernodes_daft._engine:DaftEngine",
            requires=frozenset({"threads"}),
            modes=(),
            summary="the map as a lazy Daft dataframe, items as rows and nodes as columns",
        )
    ]
