"""What a plugin declares, checked: a manifest is believed only when every field is what it says it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from hypernodes._errors import PluginError, quoted
from hypernodes._specs import MODES, BackendSpec, CacheSpec, EngineSpec

__all__ = ["checked_specs"]

Spec = TypeVar("Spec", EngineSpec, BackendSpec, CacheSpec)

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


def checked_specs(declared: object, kind: type[Spec], hook: str, reserved: Iterable[str]) -> list[Spec]:
    """The specs that the hook `hook` returned, if all of them can be believed.

    Raises `PluginError` with what is wrong: not an iterable of `kind`, a field of another type, one name twice,
    or a name that is core's own (`reserved`).
    """
    if isinstance(declared, (str, bytes)) or not isinstance(declared, Iterable):
        raise PluginError(f"{hook}() returned {declared!r}, not a list of {kind.__name__}")
    specs: list[Spec] = []
    for spec in declared:
        if not isinstance(spec, kind):
            raise PluginError(f"{hook}() returned {spec!r} among its specs, where only {kind.__name__} may be")
        for fault in _faults(spec):
            raise PluginError(f"{hook}() declares '{spec.name}' with {fault}")
        if spec.name in reserved:
            raise PluginError(f"{hook}() declares '{spec.name}', a name that belongs to hypernodes itself")
        if any(other.name == spec.name for other in specs):
            raise PluginError(f"{hook}() declares '{spec.name}' twice")
        specs.append(spec)
    return specs


def _faults(spec: EngineSpec | BackendSpec | CacheSpec) -> Iterable[str]:
    # As objects: a dataclass holds whatever it was given, and its annotations are what is being checked.
    name: object = spec.name
    target: object = spec.target
    summary: object = spec.summary
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield "a name that is not made of letters, digits, '.', '_' and '-'"
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        yield f"target={target!r}, which is not an import path such as 'package.module:Class'"
    if not isinstance(summary, str):
        yield f"summary={summary!r}, which is not text"
    if isinstance(spec, CacheSpec):
        return
    modes: object = spec.modes
    if not isinstance(modes, tuple) or not all(mode in MODES for mode in modes):
        yield f"modes={modes!r}, which is not a tuple of {quoted(MODES)}"
    if isinstance(spec, EngineSpec):
        yield from _not_facts("requires", spec.requires)
        yield from _not_facts("opens_on", spec.opens_on)
        if spec.modes and spec.default_mode not in spec.modes:
            yield f"default_mode={spec.default_mode!r}, which is not one of its modes {quoted(spec.modes)}"
    else:
        default_engine: object = spec.default_engine
        yield from _not_facts("provides", spec.provides)
        if not isinstance(default_engine, str) or not _NAME.fullmatch(default_engine):
            yield f"default_engine={default_engine!r}, which is not an engine's name"


def _not_facts(field: str, facts: Iterable[object]) -> Iterable[str]:
    if not all(isinstance(fact, str) and fact != "" for fact in facts):
        yield f"{field}={set(facts)!r}, which is not a set of names"
