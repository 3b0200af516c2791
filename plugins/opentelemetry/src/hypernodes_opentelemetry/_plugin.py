"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager

from hypernodes.plugin import hookimpl


@hookimpl
def exports() -> dict[str, str]:
    return {"TelemetryCallback": "hypernodes_opentelemetry._callback:TelemetryCallback"}


@hookimpl
def inject(carrier: dict[str, str]) -> None:
    if "opentelemetry.trace" not in sys.modules:
        return  # nobody has loaded the library, so there is no span; loading it would cost 50 ms to find that out
    from hypernodes_opentelemetry._crossing import inject

    inject(carrier)


@hookimpl
def extract(carrier: Mapping[str, str]) -> AbstractContextManager[object] | None:
    if "traceparent" not in carrier:
        return None
    from hypernodes_opentelemetry._crossing import extract

    return extract(carrier)
