"""What a plugin may tell hypernodes, and what it may watch: every hook, when it is called, what happens if it raises.

A plugin is one entry point in the group `hypernodes`. It names a light module, the manifest, whose functions are
marked with `hypernodes.plugin.hookimpl`. A manifest returns import paths; the library behind them is imported when
one of its names is used. Hooks register and observe; running goes through engines and backends, never through hooks.

A hook implementation may leave out arguments that it does not need. Hooks are called plugin by plugin, so that one
that raises stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from hypernodes._cache import Cache
    from hypernodes._diagram import Diagram
    from hypernodes._specs import BackendSpec, CacheSpec, EngineSpec

__all__ = [
    "NAMES",
    "backends",
    "caches",
    "draw",
    "engines",
    "exports",
    "extract",
    "hookimpl",
    "hookspec",
    "inject",
    "open_cache",
    "refuse_pair",
    "subscribe",
]

PROJECT = "hypernodes"
NAMES = (
    *("engines", "backends", "caches", "exports", "refuse_pair", "subscribe", "inject", "extract", "open_cache"),
    "draw",
)
"""Every hook; a plugin that implements another name is set aside, since that is nearly always a misspelling."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def engines() -> Iterable[EngineSpec]:  # type: ignore[empty-body]
    """The engines that this plugin brings.

    Called once a process, when the manifest is adopted: on the first look-up of a name that core does not own, on
    the first run, or by the command line; never on import. If it raises, or returns anything but specs, the plugin
    is set aside as broken and named in later errors; the others go on.
    """


@hookspec
def backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """The backends that this plugin brings. Called when `engines` is; the same happens if it raises."""


@hookspec
def caches() -> Iterable[CacheSpec]:  # type: ignore[empty-body]
    """The kinds of cache that this plugin brings. Called when `engines` is; the same happens if it raises."""


@hookspec
def exports() -> Mapping[str, str]:  # type: ignore[empty-body]
    """The callbacks that this plugin brings, for `from hypernodes import NameOfIt`: class names ending in `Callback`,
    each with its import path, such as `{"ChartCallback": "my_package.chart:ChartCallback"}`.

    Called when such a name is first asked for. If it raises, or returns anything else, that is logged and the plugin
    exports nothing.
    """


@hookspec(firstresult=True)
def refuse_pair(backend: BackendSpec, engine: EngineSpec) -> str | None:
    """Say in half a sentence why this backend must not run this engine, or None to agree.

    Called when a backend is built with an engine that it could run by `requires` and `provides`; not for a pair
    that is all core's. The first objection wins. If it raises, building the backend fails with a `PluginError`
    that names the plugin.
    """


@hookspec
def subscribe(run: Any) -> Callable[[Any], None] | None:
    """A listener for the events of this run, or None to hear nothing. `run` is the run's context, read-only.

    Called once a run or map, in the process where the user called it, before the first node. If it raises, that is
    logged and the plugin hears nothing of this run.
    """


@hookspec
def inject(carrier: dict[str, str]) -> None:
    """Add what your far side needs to know, such as trace headers, to the carrier: text keys and values.

    Called before a stage leaves this process. If it raises, or puts in anything but text, that is logged and the
    carrier goes without this plugin's additions.
    """


@hookspec
def extract(carrier: Mapping[str, str]) -> AbstractContextManager[object] | None:
    """A context manager to hold around the tasks of one payload, made from what `inject` put into the carrier.

    Called on the far side. If it raises, or its `__enter__` or `__exit__` does, that is logged and the tasks run
    without it; it cannot swallow the tasks' own errors.
    """


@hookspec(firstresult=True)
def open_cache(url: str) -> Cache | None:
    """The cache behind this address, or None if the address is not yours.

    Called when an address `scheme://...` is opened: by `cache=`, by the command line, and on the far side only for
    caches that are shared. The first cache wins. If it raises, opening fails with a `CacheError` that names the plugin.
    """


@hookspec(firstresult=True)
def draw(diagram: Diagram, form: str, orient: str) -> str | bytes | None:
    """This diagram as a file of the form `form`, a suffix such as `"svg"`, or None if you do not draw that form.

    Called by `Pipeline.visualize` when the picture is looked at or saved. `orient` is `"TB"` or `"LR"`. The first
    picture wins. If it raises, the user gets a `PluginError` that names the plugin; errors of hypernodes stay as they
    are.
    """
