"""Pictures of pipelines, and a report of a run as one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes_visualize._report import ReportCallback

__all__ = ["ReportCallback"]


def __getattr__(name: str) -> Any:
    if name != "ReportCallback":
        raise AttributeError(f"module 'hypernodes_visualize' has no attribute {name!r}")
    from hypernodes_visualize._report import ReportCallback

    return ReportCallback
