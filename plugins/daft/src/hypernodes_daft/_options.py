"""Options that are checked when they are given."""

from __future__ import annotations

__all__ = ["check_count"]


def check_count(option: str, count: object, *, optional: bool = False) -> None:
    """Raise `ValueError` unless it is a whole number of at least 1, or None where it is optional."""
    if optional and count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        left = ", or leave it out" if optional else ""
        raise ValueError(f"DaftEngine: {option}={count!r}; give a whole number, 1 or more{left}")
