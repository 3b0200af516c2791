"""What a function refers to, remembered, so that it need not be walked through again while all of it is the same."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from operator import is_
from typing import Any, NamedTuple

from hypernodes._node import Node
from hypernodes._origin import origin_of_module
from hypernodes._resource import Resource

__all__ = ["Held", "held_by"]

_ABSENT = object()
_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), type(Ellipsis)})


class Held(NamedTuple):
    """One function and everything that it refers to, by identity; none of it can change and stay the same object."""

    func: Any
    code: types.CodeType
    defaults: tuple[Any, ...] | None
    keywords: tuple[Any, ...]
    cells: tuple[Any, ...]
    names: tuple[tuple[str, Any], ...]

    def still(self) -> bool:
        """Whether it refers to the same things as it did."""
        func, scope = self.func, self.func.__globals__
        return (
            func.__code__ is self.code
            and func.__defaults__ is self.defaults
            and _same(_keywords(func), self.keywords)
            and _same(_cells(func), self.cells)
            and all(scope.get(name, _ABSENT) is value for name, value in self.names)
        )


def held_by(func: Any, reached: Iterable[tuple[str, ...]]) -> Held | None:
    """What the function refers to; None where a part of it could change without notice.

    `reached` are the globals that its code names, each with the attributes read of it.
    """
    scope = func.__globals__
    names = {chain[0]: scope.get(chain[0], _ABSENT) for chain in reached}
    found = Held(func, func.__code__, func.__defaults__, _keywords(func), _cells(func), tuple(names.items()))
    values = (*(found.defaults or ()), *found.keywords, *found.cells, *names.values())
    return found if all(map(_is_fixed, values)) else None


def _keywords(func: Any) -> tuple[Any, ...]:
    given = func.__kwdefaults__
    return () if given is None else tuple(part for item in given.items() for part in item)


def _cells(func: Any) -> tuple[Any, ...]:
    found = []
    for cell in func.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            found.append(_ABSENT)
    return tuple(found)


def _same(now: tuple[Any, ...], then: tuple[Any, ...]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))


def _is_fixed(value: Any) -> bool:
    kind = type(value)
    if kind in _ATOMS or value is _ABSENT:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(_is_fixed, value))
    if isinstance(value, Node | Resource):
        return _is_fixed(value.func)
    if kind is types.FunctionType:
        # The user's own is walked through, and remembered, by itself; attributes set on it are not.
        return not vars(value)
    # Of libraries, which do not change while a program runs.
    if kind is types.ModuleType:
        return not _is_user(value.__name__)
    if kind in (types.BuiltinFunctionType, type):
        module = value.__module__ or "builtins"
        return not _is_user(module) and getattr(sys.modules.get(module), value.__name__, None) is value
    return False


def _is_user(module: str) -> bool:
    origin = origin_of_module(module)
    return origin is None or origin.kind == "user"
