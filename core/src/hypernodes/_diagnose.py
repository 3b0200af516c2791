"""Which part of an object cannot be pickled, as a path that people can follow: `cfg.clients[0]._lock`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hypernodes._late import importing

__all__ = ["culprit"]

DEEPEST = 12
WIDEST = 1_000


def culprit(value: Any, name: str) -> str:
    """`'name'` with the path to the smallest part that does not survive pickling, and that part's type."""
    path, seen = name, {id(value)}
    for _ in range(DEEPEST):
        for step, part in _parts(value):
            if id(part) not in seen and not _survives(part):
                seen.add(id(part))
                path, value = path + step, part
                break
        else:
            break
    return f"'{path}' ({_kind(value)})"


def _survives(value: Any) -> bool:
    with importing("cloudpickle"):
        import cloudpickle

    try:
        cloudpickle.loads(cloudpickle.dumps(value, protocol=5))
    except KeyboardInterrupt:
        raise
    except BaseException:
        # Whatever a user's object does when it is pickled, it does not survive it.
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value that pickle would visit, each with how to reach it."""
    if isinstance(value, Mapping):
        for at, (key, part) in enumerate(value.items()):
            if at >= WIDEST:
                return
            yield f"[{key!r}]", part
    elif isinstance(value, list | tuple | set | frozenset):
        for at, part in enumerate(value):
            if at >= WIDEST:
                return
            yield f"[{at}]", part
    closure = getattr(value, "__closure__", None)
    code = getattr(value, "__code__", None)
    if code is not None:
        for variable, cell in zip(code.co_freevars, closure or (), strict=False):
            try:
                yield f".<closure {variable}>", cell.cell_contents
            except ValueError:
                # The cell is still empty.
                continue
        reach = getattr(value, "__globals__", {})
        for variable in code.co_names:
            if variable in reach:
                yield f".<global {variable}>", reach[variable]
        return
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict) and not isinstance(value, type):
        for attribute, part in list(state.items()):
            yield f".{attribute}", part
    if hasattr(value, "__self__") and not isinstance(value.__self__, type(__builtins__)):
        yield ".__self__", value.__self__


def _kind(value: Any) -> str:
    kind = type(value)
    return (
        f"a {kind.__qualname__}"
        if kind.__module__ in ("builtins", "__main__")
        else f"a {kind.__module__}.{kind.__qualname__}"
    )
