"""What a plugin declares about an engine, a backend or a cache, before its library is imported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["MODES", "BackendSpec", "CacheSpec", "EngineSpec"]

MODES = ("sequential", "async", "parallel")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine by name: where its class lies, what it needs of a place, which modes it takes.

    `target` is an import path, `"package.module:Class"`, loaded when the name is used.
    `requires` are facts that a backend must provide, for example `"threads"` or `"dask.client"`.
    `opens_on` are those that it must provide instead where the engine can open by itself what it requires, for example
    `"machine"`: then it runs inside of that place. Empty for an engine that cannot.
    `modes` are the values that `node_execution=` and `map_execution=` may take with this engine; an empty
    tuple says that the engine schedules both dimensions itself and that naming a mode is refused.
    `default_mode` fills a mode that the user did not name.
    """

    name: str
    target: str
    requires: frozenset[str] = frozenset()
    modes: tuple[str, ...] = MODES
    default_mode: str = "parallel"
    summary: str = ""
    distribution: str = field(default="", compare=False)
    opens_on: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "requires", _names(self.requires))
        object.__setattr__(self, "opens_on", _names(self.opens_on))


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A backend by name: where its class lies, what its place provides, which modes it takes.

    `provides` are the facts that engines may require. `default_engine` runs when none is named.
    `modes` are the modes that make sense there.
    """

    name: str
    target: str
    provides: frozenset[str] = frozenset()
    default_engine: str = "sequential"
    modes: tuple[str, ...] = MODES
    summary: str = ""
    distribution: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provides", _names(self.provides))


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """A kind of cache by name: where its class lies. Its addresses are opened by the hook `open_cache`."""

    name: str
    target: str
    summary: str = ""
    distribution: str = field(default="", compare=False)


def _names(facts: Iterable[str]) -> frozenset[str]:
    if isinstance(facts, str):
        raise TypeError(f"give facts as a set of names, such as {{{facts!r}}}, not as the string {facts!r}")
    return frozenset(facts)
