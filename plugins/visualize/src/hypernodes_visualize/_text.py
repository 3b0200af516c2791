"""Text that others wrote, made safe to stand in markup, and how wide it is."""

from __future__ import annotations

import re
import unicodedata
from html import escape as _escape

__all__ = ["cut", "escape", "plain", "width"]

# Not allowed in XML, or able to make a line read other than it is: controls, surrogates, overrides of direction.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: str) -> str:
    """The text without characters that no picture may hold; each becomes a space."""
    return _UNFIT.sub(" ", text)


def escape(text: str) -> str:
    """The text for markup, in an element or in an attribute."""
    return _escape(plain(text), quote=True)


def cut(text: str, most: int) -> str:
    """The text in at most this many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def width(text: str, size: float) -> float:
    """How wide a line in a monospaced font of this size is, in the unit of the size."""
    return sum(_columns(char) for char in plain(text)) * 0.61 * size


def _columns(char: str) -> int:
    if ord(char) < 0x300:
        return 1
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
