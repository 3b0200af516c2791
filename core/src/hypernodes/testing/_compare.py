"""Exact comparison of what came back with what the reference interpreter expects."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from hypernodes.testing._oracle import Failed, Fails

__all__ = ["compare"]


def compare(expected: Any, actual: Any, *, any_order: bool = False) -> None:
    """Raise `AssertionError`, naming the place, unless `actual` is `expected` in value, order and exact type.

    NaN equals NaN, -0.0 differs from 0.0, arrays agree in dtype, shape and content, exceptions in type and
    `args`. Where `expected` holds `Fails`, `actual` must be the raised exception or a `Failure` with the same
    exception type, text, path and item; `any_order` accepts any of its candidates instead of the first.
    """
    difference = _difference(expected, actual, "result", any_order)
    if difference:
        raise AssertionError(difference)


def _difference(want: Any, got: Any, at: str, any_order: bool) -> str:
    """The first difference as a sentence, or an empty string."""
    if isinstance(want, Fails):
        misses = [_failure_difference(one, got, at) for one in want.candidates]
        return misses[0] if not any_order or all(misses) else ""
    if type(want) is not type(got):
        return f"at {at}: expected {_shown(want)}, got {_shown(got)}"
    if isinstance(want, Mapping):
        return _mapping_difference(want, got, at, any_order)
    if isinstance(want, (list, tuple)):
        if len(want) != len(got):
            return f"at {at}: expected {len(want)} values, got {len(got)}: {_shown(want)} and {_shown(got)}"
        parts = [(a, b, f"{at}[{i}]") for i, (a, b) in enumerate(zip(want, got, strict=True))]
        return _first(parts, any_order)
    if isinstance(want, (set, frozenset)):
        return _difference(sorted(want, key=_spelling), sorted(got, key=_spelling), f"{at} (sorted)", any_order)
    if isinstance(want, BaseException):
        return _difference(want.args, got.args, f"{at}.args", any_order)
    if dataclasses.is_dataclass(want) and not isinstance(want, type):
        names = [field.name for field in dataclasses.fields(want)]
        return _first([(getattr(want, n), getattr(got, n), f"{at}.{n}") for n in names], any_order)
    if isinstance(want, enum.Enum):
        return "" if want is got else f"at {at}: expected the member {want!r}, got another object {got!r}"
    if type(want).__module__ == "numpy" and hasattr(want, "dtype"):
        facts = [(want.dtype.str, got.dtype.str, f"{at}.dtype"), (want.shape, got.shape, f"{at}.shape")]
        return _first([*facts, (want.tolist(), got.tolist(), f"{at}.tolist()")], any_order)
    # repr tells -0.0 from 0.0 and holds every digit; NaN is NaN
    same = repr(want) == repr(got) if isinstance(want, (float, complex)) else bool(want == got)
    return "" if same else f"at {at}: expected {_shown(want)}, got {_shown(got)}"


def _first(parts: list[tuple[Any, Any, str]], any_order: bool) -> str:
    return next((miss for want, got, at in parts if (miss := _difference(want, got, at, any_order))), "")


def _mapping_difference(want: Mapping[Any, Any], got: Mapping[Any, Any], at: str, any_order: bool) -> str:
    keys = _difference(list(want), list(got), f"{at}.keys()", any_order)
    return keys or _first([(want[key], got[key], f"{at}[{key!r}]") for key in want], any_order)


def _failure_difference(want: Failed, got: Any, at: str) -> str:
    """Compare one failure with an exception that was raised or a `Failure` in its place."""
    from hypernodes import Failure, RemoteError, failure_of

    failure = failure_of(got) if isinstance(got, BaseException) else got
    if not isinstance(failure, Failure):
        return f"at {at}: expected the failure of {' > '.join(want.path)} ({_shown(want.error)}), got {_shown(got)}"
    error = got if isinstance(got, BaseException) else failure.error
    found: dict[str, tuple[object, object]] = {
        "type name": (type(want.error).__name__, failure.type_name.rpartition(".")[2]),
        "text": (str(want.error), failure.message),
        "path": (want.path, tuple(failure.path)),
        "items": (want.items, tuple(failure.items)),
        "item": (next((at for at in want.items if at is not None), None), failure.item),
    }
    if not isinstance(error, RemoteError) or _can_be_rebuilt(want.error):
        found["exception"] = (type(want.error), type(error))
        found["args"] = (repr(want.error.args), repr(getattr(error, "args", None)))
    misses = [f"{name}: expected {a!r}, got {b!r}" for name, (a, b) in found.items() if a != b]
    return f"at {at}, in the failure of {' > '.join(want.path)}: {'; '.join(misses)}" if misses else ""


def _can_be_rebuilt(error: BaseException) -> bool:
    """Whether the exception's own `__reduce__` gives it back, which is what travelling takes."""
    reduced = error.__reduce__()
    try:
        reduced[0](*reduced[1])  # type: ignore[operator]
    except Exception:
        return False
    return True


def _spelling(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 200 else text[:200] + '...'}"
