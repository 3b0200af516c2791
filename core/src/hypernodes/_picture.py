"""A picture of a pipeline: made in the form that is asked for, when it is asked for, by the plugin that draws it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypernodes._errors import GraphError, HypernodesError, PluginError, PluginLoadError, did_you_mean, quoted
from hypernodes._whole import write_whole

if TYPE_CHECKING:
    from hypernodes._diagram import Diagram

__all__ = ["ORIENTS", "Picture", "check_orient"]

ORIENTS = ("TB", "LR")
_SUFFIXES = {"mermaid": "mmd", "gv": "dot", "htm": "html"}
_KNOWN = ("svg", "png", "dot", "mmd", "html")


@dataclass(frozen=True)
class Picture:
    """A diagram to look at. A notebook shows it; `save` writes it; `svg`, `mermaid` and `dot` are its texts.

    Each form is drawn when it is asked for. Raises `PluginLoadError` where no installed plugin draws that form.
    """

    diagram: Diagram
    orient: str = "TB"

    @property
    def svg(self) -> str:
        """A self-contained SVG document."""
        return self._text("svg")

    @property
    def mermaid(self) -> str:
        """A Mermaid flowchart, for pages that render those."""
        return self._text("mmd")

    @property
    def dot(self) -> str:
        """The diagram in Graphviz' language."""
        return self._text("dot")

    def save(self, filename: str | os.PathLike[str]) -> Path:
        """Write the picture; the suffix says in which form: `.svg`, `.png`, `.dot`, `.mmd` or `.html`.

        The file appears whole or not at all. Returns its path. Raises `GraphError` for a name without a suffix.
        """
        path = Path(filename)
        suffix = path.suffix.removeprefix(".").lower()
        if not suffix:
            raise GraphError(
                f"pipeline '{self.diagram.name}': the filename {str(filename)!r} says no form; "
                f"end it with one of {quoted(f'.{form}' for form in _KNOWN)}"
            )
        drawn = self.draw(_SUFFIXES.get(suffix, suffix))
        write_whole(path, drawn if isinstance(drawn, bytes) else drawn.encode())
        return path

    def draw(self, form: str) -> str | bytes:
        """The picture in this form, from the first plugin that draws it: `"svg"`, `"png"`, `"dot"`, `"mmd"`, `"html"`.

        Raises `PluginLoadError` where none does, and `PluginError` naming the plugin whose drawing failed.
        """
        from hypernodes import _registry

        hooked = _registry.installed().hooked("draw")
        for report, draw in hooked:
            try:
                drawn: object = draw(diagram=self.diagram, form=form, orient=self.orient)
            except HypernodesError:
                raise
            except Exception as error:
                what = f"pipeline '{self.diagram.name}' as '{form}'"
                raise PluginError(f"{report} could not draw {what}: {type(error).__name__}: {error}") from error
            if isinstance(drawn, str | bytes):
                return drawn
        if not hooked:
            raise PluginLoadError(
                f"pipeline '{self.diagram.name}' cannot be drawn: no installed plugin draws pictures; "
                'pip install "hypernodes[visualize]" brings one'
            )
        raise PluginLoadError(
            f"pipeline '{self.diagram.name}' cannot be drawn as '{form}'{did_you_mean(form, _KNOWN)}; "
            f"no installed plugin draws that, and these are usual: {quoted(_KNOWN)}"
        )

    def _text(self, form: str) -> str:
        drawn = self.draw(form)
        return drawn if isinstance(drawn, str) else drawn.decode()

    def __repr__(self) -> str:
        nodes, edges = len(self.diagram.nodes), len(self.diagram.edges)
        return f"<picture of pipeline '{self.diagram.name}': {nodes} boxes, {edges} arrows>"

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "image/svg+xml": self.svg}


def check_orient(pipeline: str, orient: object) -> str:
    """`orient` if it is one, else a `GraphError` that says what is."""
    if orient not in ORIENTS:
        raise GraphError(
            f"pipeline '{pipeline}': orient={orient!r}{did_you_mean(orient, ORIENTS)}; "
            "give 'TB' (top to bottom) or 'LR' (left to right)"
        )
    return str(orient)
