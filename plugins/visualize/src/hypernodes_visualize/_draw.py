"""Each form of a picture, from the diagram."""

from __future__ import annotations

from hypernodes.plugin import Diagram
from hypernodes_visualize._graphviz import dot_of, png_of
from hypernodes_visualize._layout import lay_out
from hypernodes_visualize._mermaid import mermaid_of
from hypernodes_visualize._page import page
from hypernodes_visualize._svg import STYLE, svg_of

__all__ = ["FORMS", "draw"]

FORMS = ("svg", "png", "dot", "mmd", "html")

_PAGE_STYLE = (
    "body{margin:1.5rem;background:#f1f3f5}body .hn{max-width:none}"  # what is wide is scrolled, not shrunk
    "@media (prefers-color-scheme:dark){body{background:#0e1013}}"
)


def draw(diagram: Diagram, form: str, orient: str) -> str | bytes | None:
    """The diagram in this form; None for one that is not ours."""
    if form == "svg":
        return svg_of(diagram, lay_out(diagram, orient))
    if form == "html":
        svg = svg_of(diagram, lay_out(diagram, orient), style=False)
        return page(diagram.name, svg, styles=[_PAGE_STYLE, STYLE])
    if form == "png":
        return png_of(diagram, orient)
    if form == "dot":
        return dot_of(diagram, orient)
    return mermaid_of(diagram, orient) if form == "mmd" else None
