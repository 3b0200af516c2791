"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import BackendSpec, EngineSpec, hookimpl


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="dask",
            target="hypernodes_coiled._engine:DaskEngine",
            requires=frozenset({"dask.client"}),
            summary="the workers of a Dask cluster",
        )
    ]


@hookimpl
def backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="dask",
            target="hypernodes_coiled._backend:DaskBackend",
            provides=frozenset({"dask.client", "threads"}),
            default_engine="dask",
            summary="a Dask cluster: a local one, or one that you have",
        ),
        BackendSpec(
            name="coiled",
            target="hypernodes_coiled._coiled:CoiledBackend",
            provides=frozenset({"dask.client", "threads", "processes"}),
            default_engine="dask",
            summary="cloud machines that Coiled starts",
        ),
    ]
