"""The names that core knows: its own engines, backend and caches, and what to install for those of its plugins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec

__all__ = ["CORE", "CORE_BACKENDS", "CORE_CACHES", "CORE_ENGINES", "FIRST_PARTY", "FIRST_PARTY_EXPORTS", "FirstParty"]

CORE = "hypernodes-core"

CORE_ENGINES: Mapping[str, EngineSpec] = {
    "sequential": EngineSpec(
        "sequential",
        "hypernodes._engines:SequentialEngine",
        modes=("sequential",),
        default_mode="sequential",
        summary="one node after another, one item after another",
        distribution=CORE,
    ),
    "async": EngineSpec(
        "async",
        "hypernodes._engines:AsyncEngine",
        modes=("sequential", "async"),
        default_mode="async",
        summary="coroutines overlap on an event loop; plain functions go to threads",
        distribution=CORE,
    ),
}
CORE_BACKENDS: Mapping[str, BackendSpec] = {
    "local": BackendSpec(
        "local",
        "hypernodes._local:LocalBackend",
        provides=frozenset({"threads", "processes"}),
        summary="this process and this machine",
        distribution=CORE,
    ),
}
CORE_CACHES: Mapping[str, CacheSpec] = {
    "disk": CacheSpec("disk", "hypernodes._disk:DiskCache", summary="a folder of this machine", distribution=CORE),
    "memory": CacheSpec("memory", "hypernodes._memory:MemoryCache", summary="this process", distribution=CORE),
}


@dataclass(frozen=True, slots=True)
class FirstParty:
    """A name that one of the project's own plugins brings: its distribution, and how to install it."""

    distribution: str
    install: str


FIRST_PARTY: Mapping[str, Mapping[str, FirstParty]] = {
    "engine": {
        "threaded": FirstParty("hypernodes-local-threaded", "hypernodes"),
        "multiprocess": FirstParty("hypernodes-local-multiprocess", "hypernodes"),
        "daft": FirstParty("hypernodes-daft", "'hypernodes[daft]'"),
        "dask": FirstParty("hypernodes-coiled", "'hypernodes[coiled]'"),
        "ray": FirstParty("hypernodes-ray", "'hypernodes[ray]'"),
    },
    "backend": {
        "modal": FirstParty("hypernodes-modal", "'hypernodes[modal]'"),
        "coiled": FirstParty("hypernodes-coiled", "'hypernodes[coiled]'"),
        "dask": FirstParty("hypernodes-coiled", "'hypernodes[coiled]'"),
        "ray": FirstParty("hypernodes-ray", "'hypernodes[ray]'"),
    },
    "cache": {
        "fsspec": FirstParty("hypernodes-fsspec", "'hypernodes[fsspec]'"),
    },
}
"""What to install for a name that is absent: a hint in messages, and nothing else."""

FIRST_PARTY_EXPORTS: Mapping[str, str] = {
    "ProgressCallback": "progress",
    "ReportCallback": "visualize",
    "TelemetryCallback": "telemetry",
}
"""The extra to install for a callback that is absent."""
