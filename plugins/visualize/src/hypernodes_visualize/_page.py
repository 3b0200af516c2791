"""A page that needs nothing but itself: what it may run and how it may look is fixed by hashes in its policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from hypernodes_visualize._text import escape

__all__ = ["data_block", "page"]


def page(title: str, body: str, *, styles: Sequence[str], script: str = "") -> str:
    """An HTML document that fetches nothing: the policy allows these styles and this script, and no address at all."""
    allowed = " ".join(_hash(style) for style in styles) or "'none'"
    runs = _hash(script) if script else "'none'"
    policy = f"default-src 'none'; style-src {allowed}; script-src {runs}; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            *(f"<style>{style}</style>" for style in styles),
            "</head><body>",
            body,
            f"<script>{script}</script>" if script else "",
            "</body></html>\n",
        ]
    )


def data_block(name: str, values: Any) -> str:
    """Values for the page's script. Nothing in them can end the block or begin another."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
