"""Engines and backends by name, and the classes behind them and behind caches.

Core's own names need no look-up among plugins. Everything else is looked up among the
manifests of installed plugins, which are adopted once, on first need, and never on import.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hypernodes._discovery import Installed, PluginReport, adopt, headline, normalized
from hypernodes._errors import (
    DuplicateNameError,
    PluginError,
    PluginLoadError,
    UnknownNameError,
    did_you_mean,
    quoted,
)
from hypernodes._names import (
    CORE_BACKENDS,
    CORE_CACHES,
    CORE_ENGINES,
    FIRST_PARTY,
    FIRST_PARTY_EXPORTS,
    FirstParty,
)
from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec

__all__ = [
    "backend_spec",
    "backend_specs",
    "conflicts",
    "engine_spec",
    "engine_specs",
    "find_class",
    "installed",
    "load",
    "plugins",
    "reset",
]

Spec = TypeVar("Spec", EngineSpec, BackendSpec, CacheSpec)
NamedSpec = TypeVar("NamedSpec", EngineSpec, BackendSpec)

EXPORTED = "Callback"
"""How the names end that plugins may export."""


@dataclass(frozen=True, slots=True)
class _Names(Generic[Spec]):
    """The specs of one kind by name; a name that two plugins declare has two."""

    kind: str
    core: Mapping[str, Spec]
    declared: Mapping[str, list[Spec]] = field(default_factory=dict)

    def usable(self) -> dict[str, Spec]:
        """Each name that means one thing: core's, then the plugins' by name."""
        return dict(self.core) | {name: specs[0] for name, specs in sorted(self.declared.items()) if len(specs) == 1}

    def conflicts(self) -> list[str]:
        """A sentence for each name that cannot be used because it means more than one thing."""
        return [_conflict(self.kind, name, specs) for name, specs in sorted(self.declared.items()) if len(specs) > 1]

    def targeting(self, class_name: str) -> list[Spec]:
        return [spec for specs in self.declared.values() for spec in specs if _class_name(spec) == class_name]


@dataclass(frozen=True, slots=True)
class _Adopted:
    installed: Installed
    engines: _Names[EngineSpec]
    backends: _Names[BackendSpec]
    caches: _Names[CacheSpec]


_lock = threading.RLock()
_adopted: _Adopted | None = None
_adopting = False


def engine_spec(name: str) -> EngineSpec:
    """The engine called `name`.

    Raises UnknownNameError when no plugin brings it, PluginLoadError when the plugin that should is broken, and
    DuplicateNameError when two bring it.
    """
    return CORE_ENGINES.get(name) or _look_up(name, _known().engines)


def backend_spec(name: str) -> BackendSpec:
    """The backend called `name`; raises as `engine_spec` does."""
    return CORE_BACKENDS.get(name) or _look_up(name, _known().backends)


def engine_specs() -> dict[str, EngineSpec]:
    """Every engine that can be used by name: core's first."""
    return _known().engines.usable()


def backend_specs() -> dict[str, BackendSpec]:
    """Every backend that can be used by name: core's first."""
    return _known().backends.usable()


def plugins() -> list[PluginReport]:
    """Every installed plugin, also the broken and the disabled ones."""
    return list(_known().installed.reports)


def conflicts() -> list[str]:
    """A sentence for each name that more than one plugin declares, and that can therefore not be used."""
    known = _known()
    return [*known.engines.conflicts(), *known.backends.conflicts(), *known.caches.conflicts()]


def load(spec: EngineSpec | BackendSpec | CacheSpec) -> type:
    """The class behind a spec, imported now.

    Raises PluginLoadError, with the original as its cause, when the import fails in any way but Ctrl-C, or when the
    target is not a class.
    """
    module_name, _, class_name = spec.target.partition(":")
    try:
        found: object = getattr(importlib.import_module(module_name), class_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a library may even call sys.exit() when imported
        raise PluginLoadError(
            f"{_kind(spec)} '{spec.name}' of {_owner(spec)} could not be imported from '{spec.target}': "
            f"{headline(error)}"
        ) from error
    if not isinstance(found, type):
        raise PluginLoadError(
            f"{_kind(spec)} '{spec.name}' of {_owner(spec)} names '{spec.target}', which is not a class: {found!r}"
        )
    return found


def find_class(class_name: str) -> type | None:
    """The engine, backend or cache class called `class_name`, or None when nobody brings it.

    For `from hypernodes import ModalBackend`. Raises PluginLoadError, which is an ImportError, when the class is
    known but its plugin is broken or not installed, and DuplicateNameError when two plugins bring it.
    """
    claims: list[EngineSpec | BackendSpec | CacheSpec]
    claims = [*CORE_ENGINES.values(), *CORE_BACKENDS.values(), *CORE_CACHES.values()]
    for own in claims:
        if _class_name(own) == class_name:
            return load(own)
    if not class_name[:1].isupper() or not class_name.isidentifier():
        return None  # what `import` itself asks a package for, such as a submodule, is no reason to load plugins
    known = _known()
    claims = [*known.engines.targeting(class_name), *known.backends.targeting(class_name)]
    claims += known.caches.targeting(class_name)
    if len({spec.target for spec in claims}) > 1:
        raise DuplicateNameError(
            f"'{class_name}' is brought by {_owners(claims)}; import it from the package that you mean: "
            + quoted(sorted({spec.target.partition(":")[0] for spec in claims}))
        )
    if claims:
        return load(claims[0])
    if class_name.endswith(EXPORTED):
        return _exported(class_name)
    for kind, names in FIRST_PARTY.items():
        for name, first_party in names.items():
            if class_name == f"{name.capitalize()}{kind.capitalize()}":
                raise _absent(f"'{class_name}'", first_party, PluginLoadError)
    return None


def _exported(class_name: str) -> type | None:
    """The callback of that name that a plugin exports."""
    found: dict[str, PluginReport] = {}
    for report, exports in installed().hooked("exports"):
        try:
            declared = dict(exports())
        except Exception as error:
            _log("%s exports nothing: its hook exports() raised", report, error)
            continue
        if class_name in declared:
            found.setdefault(str(declared[class_name]), report)
    if len(found) > 1:
        owners = ", ".join(f"{report} ({target})" for target, report in found.items())
        raise DuplicateNameError(f"'{class_name}' is brought by {owners}; import it from the package that you mean")
    for target, report in found.items():
        module, _, name = target.partition(":")
        try:
            exported: type = getattr(importlib.import_module(module), name)
        except Exception as error:
            raise PluginLoadError(f"'{class_name}' of {report} could not be loaded: {headline(error)}") from error
        return exported
    extra = FIRST_PARTY_EXPORTS.get(class_name)
    if extra is not None:
        raise PluginLoadError(f"'{class_name}' is not installed; pip install \"hypernodes[{extra}]\" brings it")
    return None


def _log(message: str, report: PluginReport, error: BaseException) -> None:
    import logging

    logging.getLogger("hypernodes").warning(message, report, exc_info=error)


def installed() -> Installed:
    """The plugins of this process with their hooks, adopted on the first call."""
    return _known().installed


def reset() -> None:
    """Forget every adopted plugin, so that the next need looks again; for tests."""
    global _adopted
    with _lock:
        _adopted = None


def _known() -> _Adopted:
    """What is installed, adopted on the first call in this process."""
    return _adopted or _adopt()


def _adopt() -> _Adopted:
    global _adopted, _adopting
    with _lock:
        if _adopted is not None:
            return _adopted
        if _adopting:
            raise PluginError(
                "a plugin's manifest looked up an engine or a backend while it was being loaded; "
                "a manifest returns specs with import paths, and leaves everything else to the modules behind them"
            )
        _adopting = True
        try:
            installed = adopt(CORE_ENGINES, CORE_BACKENDS, CORE_CACHES)
        finally:
            _adopting = False
        engines: dict[str, list[EngineSpec]] = {}
        backends: dict[str, list[BackendSpec]] = {}
        caches: dict[str, list[CacheSpec]] = {}
        for report in installed.reports:
            for engine in report.engines:
                engines.setdefault(engine.name, []).append(engine)
            for backend in report.backends:
                backends.setdefault(backend.name, []).append(backend)
            for cache in report.caches:
                caches.setdefault(cache.name, []).append(cache)
        _adopted = _Adopted(
            installed,
            _Names("engine", CORE_ENGINES, engines),
            _Names("backend", CORE_BACKENDS, backends),
            _Names("cache", CORE_CACHES, caches),
        )
        return _adopted


def _look_up(name: str, names: _Names[NamedSpec]) -> NamedSpec:
    declared = names.declared.get(name, [])
    if len(declared) == 1:
        return declared[0]
    if declared:
        raise DuplicateNameError(_conflict(names.kind, name, declared))
    first_party = FIRST_PARTY[names.kind].get(name)
    reports = plugins()
    for report in reports:
        if report.state == "broken" and report.name == name:
            raise _set_aside(f"{names.kind} '{name}'", report) from report.cause
    if first_party:
        raise _absent(f"{names.kind} '{name}'", first_party, UnknownNameError)
    usable: dict[str, NamedSpec] = names.usable()
    other, others = ("backend", backend_specs()) if names.kind == "engine" else ("engine", engine_specs())
    if name in others or name in FIRST_PARTY[other]:
        hint = f"; '{name}' is {_a(other)}, not {_a(names.kind)}"
    else:
        hint = did_you_mean(name, [*usable, *FIRST_PARTY[names.kind]])
    lines = [f"unknown {names.kind} '{name}'{hint}"]
    lines.append(f"available {names.kind}s: {quoted(usable)}")
    lines += [f"note: {report} failed to load: {report.error}" for report in reports if report.state == "broken"]
    disabled = [report.name for report in reports if report.state == "disabled"]
    if disabled:
        lines.append(f"note: HYPERNODES_PLUGINS leaves out {quoted(disabled)}")
    raise UnknownNameError("\n".join(lines))


def _set_aside(what: str, report: PluginReport) -> PluginLoadError:
    return PluginLoadError(f"{what} cannot be used: {report} is installed but failed to load: {report.error}")


def _absent(what: str, kind_and_name: FirstParty, error: type[PluginError]) -> PluginError:
    for report in plugins():
        if normalized(report.distribution) != kind_and_name.distribution:
            continue
        if report.state == "broken":
            found = _set_aside(what, report)
            found.__cause__ = report.cause
            return found
        if report.state == "disabled":
            return error(f"{what} comes with {report}, which is installed but left out by HYPERNODES_PLUGINS")
    return error(f"{what} comes with a separate package: pip install {kind_and_name.install}")


def _conflict(kind: str, name: str, specs: Iterable[EngineSpec | BackendSpec | CacheSpec]) -> str:
    return (
        f"{kind} '{name}' is declared by {_owners(specs)}; uninstall one of them, "
        f"or set HYPERNODES_PLUGINS to the plugins that you want"
    )


def _owners(specs: Iterable[EngineSpec | BackendSpec | CacheSpec]) -> str:
    return " and by ".join(_owner(spec) for spec in specs)


def _owner(spec: EngineSpec | BackendSpec | CacheSpec) -> str:
    return f"'{spec.distribution}'" if spec.distribution else "an unknown package"


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "engine" else f"a {kind}"


def _kind(spec: EngineSpec | BackendSpec | CacheSpec) -> str:
    return {EngineSpec: "engine", BackendSpec: "backend", CacheSpec: "cache"}[type(spec)]


def _class_name(spec: EngineSpec | BackendSpec | CacheSpec) -> str:
    return spec.target.partition(":")[2]
