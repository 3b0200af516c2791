"""What one call of a node needs while it runs, in the words that engines and backends are asked in."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hypernodes._errors import NodeDefinitionError, did_you_mean, quoted

__all__ = ["Demand", "checked_names", "demand_of", "size_in_bytes", "told"]

_KINDS = ("cpus", "gpus", "memory")
_SCALES = ((12, "TB"), (9, "GB"), (6, "MB"), (3, "KB"))
_UNITS = {"": 1, "b": 1} | {
    spelling: scale**power
    for power, letter in enumerate("kmgt", 1)
    for spelling, scale in ((letter, 1000), (f"{letter}b", 1000), (f"{letter}i", 1024), (f"{letter}ib", 1024))
}


class Demand(NamedTuple):
    """An amount of each resource; `memory` in bytes. Fractions of CPUs and GPUs are allowed, 0 means none is needed."""

    cpus: float = 0
    gpus: float = 0
    memory: int = 0

    def __str__(self) -> str:
        return ", ".join(told(kind, amount) for kind, amount in self._asdict().items() if amount) or "nothing"


def told(kind: str, amount: float) -> str:
    """An amount of one kind as people say it: `1 GPU`, `0.5 CPUs`, `4 GB of memory`."""
    if kind == "memory":
        scale, unit = next(((10**power, unit) for power, unit in _SCALES if amount >= 10**power), (1, "bytes"))
        return f"{amount / scale:.3g} {unit} of memory"
    return f"{amount:,g} {kind[:-1].upper()}{'' if amount == 1 else 's'}"


def demand_of(owner: str, resources: object) -> Demand:
    """Resources as a user names them. Raises `NodeDefinitionError` for unknown kinds and amounts that make no sense."""
    if isinstance(resources, Demand):
        return resources
    if not isinstance(resources, Mapping):
        raise NodeDefinitionError(
            f"{owner}: resources={resources!r}; give a dict, such as {{'cpus': 2, 'gpus': 1, 'memory': '4GB'}}"
        )
    found: dict[str, Any] = {}
    for kind, amount in resources.items():
        if kind not in _KINDS:
            raise NodeDefinitionError(
                f"{owner}: resources names {kind!r}{did_you_mean(kind, _KINDS)}; it takes {quoted(_KINDS)}"
            )
        found[kind] = size_in_bytes(owner, "resources['memory']", amount) if kind == "memory" else amount
        if kind != "memory":
            finite = isinstance(amount, int | float) and not isinstance(amount, bool) and math.isfinite(amount)
            if not finite or amount < 0:
                raise NodeDefinitionError(f"{owner}: resources[{kind!r}]={amount!r}; give a number, 0 or more")
    return Demand(**found)


def size_in_bytes(owner: str, option: str, size: object) -> int:
    """`512_000_000`, `"512MB"`, `"4GB"` (powers of 1000) or `"4GiB"` (powers of 1024) as bytes."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    if isinstance(size, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", size)
        if found is not None and found[2].lower() in _UNITS:
            return int(float(found[1]) * _UNITS[found[2].lower()])
    raise NodeDefinitionError(f"{owner}: {option}={size!r}; give bytes as a whole number, or text such as '4GB'")


def checked_names(owner: str, option: str, names: object) -> tuple[str, ...]:
    """One name or several as a tuple; each a string that is not empty, and given once."""
    found = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (names,)
    for name in found:
        if not isinstance(name, str) or not name:
            raise NodeDefinitionError(f"{owner}: {option} holds {name!r}; give names as strings")
        if found.count(name) > 1:
            raise NodeDefinitionError(f"{owner}: {option} names {name!r} twice")
    return tuple(found)
