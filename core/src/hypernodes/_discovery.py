"""Which plugins are installed and what became of each: found by entry point, adopted once, set aside when broken.

The loop over entry points is our own, with one `try` for each: pluggy's loader lets one broken package stop all.
Each plugin has a plugin manager of its own for the same reason: a bad signature, an unknown hook or an odd plugin
object is then that plugin's fault alone. `tryfirst` and `trylast` still order the plugins.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypernodes._errors import PluginError, quoted
from hypernodes._manifest import checked_specs
from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    from pluggy import PluginManager

__all__ = ["GROUP", "Installed", "PluginReport", "adopt", "headline", "normalized"]

GROUP = "hypernodes"
"""The entry-point group of manifests."""

_LONGEST_HEADLINE = 300


@dataclass(frozen=True, slots=True)
class PluginReport:
    """One installed plugin and what became of it.

    `name` is the entry point's, `target` its value, `distribution` and `version` say which package brought it and
    `file` where its manifest lies. `state` is "ready", "broken" (`error` says why in a line, `traceback` in full,
    `cause` is the exception) or "disabled" (HYPERNODES_PLUGINS leaves it out).
    """

    name: str
    distribution: str
    version: str
    target: str
    state: str = "ready"
    file: str = ""
    hooks: tuple[str, ...] = ()
    engines: tuple[EngineSpec, ...] = ()
    backends: tuple[BackendSpec, ...] = ()
    caches: tuple[CacheSpec, ...] = ()
    error: str = ""
    traceback: str = ""
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"plugin '{self.name}' of {self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Installed:
    """The plugins of this process, adopted: a report of each, and the hooks of those that are ready."""

    reports: tuple[PluginReport, ...] = ()
    _hooked: dict[str, list[tuple[PluginReport, Callable[..., Any]]]] = field(default_factory=dict)

    def hooked(self, hook: str) -> list[tuple[PluginReport, Callable[..., Any]]]:
        """The plugins that implement `hook`, in calling order, each with the call that asks it alone."""
        return self._hooked.get(hook, [])


def adopt(own_engines: Collection[str], own_backends: Collection[str], own_caches: Collection[str]) -> Installed:
    """Import every installed manifest that HYPERNODES_PLUGINS allows and ask it what it brings.

    A plugin that fails in any way but Ctrl-C becomes a report with state "broken". Names in `own_engines`,
    `own_backends` and `own_caches` are core's; a plugin that declares one is broken too.
    """
    allowed = _allowed()
    trace = os.environ.get("HYPERNODES_TRACE_HOOKS", "") not in ("", "0")
    reports: list[PluginReport] = []
    ordered: dict[str, list[tuple[int, PluginReport, Callable[..., Any]]]] = {}
    for found in _installed_manifests():
        report, entry_point = found
        if entry_point is None:
            reports.append(report)
            continue
        if allowed is not None and allowed.isdisjoint({normalized(report.name), normalized(report.distribution)}):
            reports.append(replace(report, state="disabled"))
            continue
        try:
            report, implemented = _adopted(report, entry_point, own_engines, own_backends, own_caches, trace)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reports.append(broken(report, error))
            continue
        reports.append(report)
        for name, (rank, call) in implemented.items():
            ordered.setdefault(name, []).append((rank, report, call))
    hooked = {
        name: [(report, call) for _, report, call in sorted(calls, key=lambda entry: entry[0])]
        for name, calls in ordered.items()
    }
    return Installed(tuple(reports), hooked)


def broken(report: PluginReport, error: BaseException) -> PluginReport:
    """The report of a plugin that is set aside because of `error`."""
    import traceback

    text = "".join(traceback.format_exception(error))
    nothing = replace(report, hooks=(), engines=(), backends=(), caches=())
    return replace(nothing, state="broken", error=headline(error), traceback=text, cause=error)


def headline(error: BaseException) -> str:
    """`ValueError: what it said`, on one line and of bounded length."""
    try:
        said = " ".join(str(error).split())
    except Exception as unreadable:
        said = f"its message cannot be read ({type(unreadable).__name__})"
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return line if len(line) <= _LONGEST_HEADLINE else f"{line[:_LONGEST_HEADLINE]}..."


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _allowed() -> set[str] | None:
    """The names in HYPERNODES_PLUGINS, or None when it is not set and every plugin may load."""
    listed = os.environ.get("HYPERNODES_PLUGINS")
    return None if listed is None else {normalized(name.strip()) for name in listed.split(",") if name.strip()}


def _installed_manifests() -> Iterator[tuple[PluginReport, EntryPoint | None]]:
    """Each entry point of the group in a fixed order; without an entry point, a package whose list is unreadable."""
    from importlib.metadata import distributions  # late: it is most of what a first look-up costs

    manifests: dict[tuple[str, str], tuple[PluginReport, EntryPoint | None]] = {}
    seen: set[str] = set()
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt")
            if not text or GROUP not in text:
                continue
            listed = distribution.entry_points.select(group=GROUP)
            owner, version = distribution.name, distribution.version
            if not listed or normalized(owner) in seen:  # the first on the path is the one that imports find
                continue
            seen.add(normalized(owner))
        except Exception as error:
            report = broken(PluginReport("?", _label(distribution), "", "entry_points.txt"), error)
            manifests[report.distribution, ""] = (report, None)
            continue
        for entry_point in listed:
            report = PluginReport(entry_point.name, owner, version, entry_point.value)
            manifests[normalized(owner), entry_point.name] = (report, entry_point)
    for key in sorted(manifests):
        yield manifests[key]


def _label(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", distribution))


def _adopted(
    report: PluginReport,
    entry_point: EntryPoint,
    own_engines: Collection[str],
    own_backends: Collection[str],
    own_caches: Collection[str],
    trace: bool,
) -> tuple[PluginReport, dict[str, tuple[int, Callable[..., Any]]]]:
    """The report of a plugin that is ready, and for each hook its rank in the calling order and its call."""
    import pluggy

    from hypernodes import hookspecs

    manifest = entry_point.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(manifest, name=report.name)
    manager.check_pending()
    implemented = {name: (rank, _call(report, manager, name, trace)) for name, rank in _ranks(manager, manifest)}
    if not implemented:
        raise PluginError(
            f"'{report.target}' implements no hook; mark its functions with @hypernodes.plugin.hookimpl, "
            f"and name them after hooks: {quoted(hookspecs.NAMES)}"
        )
    engines: list[EngineSpec] = []
    backends: list[BackendSpec] = []
    caches: list[CacheSpec] = []
    if "engines" in implemented:
        engines = checked_specs(implemented["engines"][1](), EngineSpec, "engines", own_engines)
    if "backends" in implemented:
        backends = checked_specs(implemented["backends"][1](), BackendSpec, "backends", own_backends)
    if "caches" in implemented:
        caches = checked_specs(implemented["caches"][1](), CacheSpec, "caches", own_caches)
    ready = replace(
        report,
        file=str(getattr(sys.modules.get(entry_point.module), "__file__", None) or ""),
        hooks=tuple(sorted(implemented)),
        engines=tuple(replace(spec, distribution=report.distribution) for spec in engines),
        backends=tuple(replace(spec, distribution=report.distribution) for spec in backends),
        caches=tuple(replace(spec, distribution=report.distribution) for spec in caches),
    )
    return ready, implemented


def _ranks(manager: PluginManager, manifest: object) -> Iterator[tuple[str, int]]:
    for caller in manager.get_hookcallers(manifest) or ():
        for implementation in caller.get_hookimpls():
            if implementation.wrapper or implementation.hookwrapper:
                raise PluginError(
                    f"its hook '{caller.name}' is a wrapper; each plugin is asked alone, so there is nothing to wrap"
                )
            yield caller.name, implementation.trylast - implementation.tryfirst


def _call(report: PluginReport, manager: PluginManager, hook: str, trace: bool) -> Callable[..., Any]:
    """A function that asks this plugin alone and returns its one answer."""
    caller = getattr(manager.hook, hook)

    def ask(**arguments: object) -> Any:
        if trace:
            sys.stderr.write(f"hypernodes: {hook}({', '.join(arguments)}) asks {report}\n")
        answers = caller(**arguments)
        if caller.spec.opts.get("firstresult"):
            return answers
        return answers[0] if answers else None

    return ask
