"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import BackendSpec, EngineSpec, hookimpl


@hookimpl
def backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            name="modal",
            target="hypernodes_modal._backend:ModalBackend",
            provides=frozenset({"threads", "processes", "machine", "modal"}),
            default_engine="container",
            modes=("async", "parallel"),
            summary="containers on Modal, with GPUs where they are asked for",
        )
    ]


@hookimpl
def engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            name="container",
            target="hypernodes_modal._engine:ContainerEngine",
            requires=frozenset({"modal"}),
            modes=("async", "parallel"),
            summary="items spread over Modal's containers",
        )
    ]


@hookimpl
def refuse_pair(backend: BackendSpec, engine: EngineSpec) -> str | None:
    if backend.name != "modal":
        return None
    if engine.name == "dask":
        return "Dask schedules over a cluster of its own, and Modal's containers are none"
    if engine.modes == ("sequential",):
        return "it runs one item after another, and containers are there to run many; leave engine= out"
    return None
