"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import BackendSpec, EngineSpec, hookimpl


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="ray",
            target="hypernodes_ray._engine:RayEngine",
            requires=frozenset({"ray.runtime"}),
            opens_on=frozenset({"machine"}),
            summary="tasks and actors of a Ray cluster, driven from here",
        )
    ]


@hookimpl
def backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="ray",
            target="hypernodes_ray._backend:RayBackend",
            provides=frozenset({"ray.runtime", "threads", "processes"}),
            default_engine="ray",
            summary="a Ray cluster: a local one that it starts, or one that is there",
        )
    ]
