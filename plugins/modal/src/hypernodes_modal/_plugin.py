"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from hypernodes.plugin import BackendSpec, hookimpl


@hookimpl
def backends() -> list[BackendSpec]:
    return []
