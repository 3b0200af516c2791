"""The manifest: what this package brings to hypernodes."""

from __future__ import annotations

from collections.abc import Mapping

from hypernodes.plugin import hookimpl


@hookimpl
def exports() -> Mapping[str, str]:
    return {"ProgressCallback": "hypernodes_progress._callback:ProgressCallback"}
