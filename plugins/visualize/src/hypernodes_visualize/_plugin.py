"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.plugin import hookimpl

if TYPE_CHECKING:
    from hypernodes.plugin import Diagram


@hookimpl
def draw(diagram: Diagram, form: str, orient: str) -> str | bytes | None:
    from hypernodes_visualize._draw import draw as drawn

    return drawn(diagram, form, orient)


@hookimpl
def exports() -> dict[str, str]:
    return {"ReportCallback": "hypernodes_visualize._report:ReportCallback"}
