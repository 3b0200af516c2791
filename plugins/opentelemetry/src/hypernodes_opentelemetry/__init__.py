"""Traces of pipelines through OpenTelemetry. The library itself is loaded when `TelemetryCallback` is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes_opentelemetry._callback import TelemetryCallback

__all__ = ["TelemetryCallback"]


def __getattr__(name: str) -> Any:
    if name == "TelemetryCallback":
        from hypernodes_opentelemetry._callback import TelemetryCallback

        return TelemetryCallback
    raise AttributeError(f"module 'hypernodes_opentelemetry' has no attribute {name!r}")
