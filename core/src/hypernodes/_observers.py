"""What plugins watch and add while pipelines run: listeners, what crosses to a far side, caches by address.

A plugin that fails here never fails a run, but for a cache that cannot be opened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from hypernodes._discovery import PluginReport, headline
from hypernodes._errors import CacheError, PluginLoadError, without_secrets
from hypernodes._events import Callback
from hypernodes._registry import find_class, installed

__all__ = ["extract", "inject", "listeners", "open_cache", "progress_display", "subscribed"]


def progress_display() -> Callback:
    """What `progress=True` shows: the display of a plugin, or plain lines where none is installed."""
    from hypernodes._progress_lines import LineProgress

    try:
        found: Any = find_class("ProgressCallback")
    except PluginLoadError as error:
        _warn("progress is shown as plain lines: %s", str(error))
        found = None
    shown: Callback = (found or LineProgress)()
    return shown


def subscribed() -> bool:
    """Whether any plugin wants to listen to runs."""
    return any(True for _ in installed().hooked("subscribe"))


def listeners(run: Any) -> list[Callable[[Any], None]]:
    """The listeners that plugins give for this run. A plugin that fails to give one is logged and left out."""
    found: list[Callable[[Any], None]] = []
    for report, subscribe in installed().hooked("subscribe"):
        try:
            listener = subscribe(run=run)
        except Exception as error:
            _warn("%s hears nothing of this run: its hook subscribe() raised", report, error=error)
            continue
        if callable(listener):
            found.append(listener)
        elif listener is not None:
            _warn("%s hears nothing of this run: subscribe() returned %r, not a callable", report, listener)
    return found


def inject(carrier: dict[str, str]) -> None:
    """Let plugins add to `carrier` what their far side needs. What a failing plugin added is left out, and logged."""
    for report, add in installed().hooked("inject"):
        own = dict(carrier)
        try:
            add(carrier=own)
        except Exception as error:
            _warn("%s adds nothing to what crosses: its hook inject() raised", report, error=error)
            continue
        if all(isinstance(text, str) for pair in own.items() for text in pair):
            carrier.update(own)
        else:
            _warn("%s adds nothing to what crosses: inject() put in more than text keys and values", report)


@contextmanager
def extract(carrier: Mapping[str, str]) -> Iterator[None]:
    """Hold around tasks whatever plugins restore from `carrier`. A failing plugin is logged; the tasks run."""
    entered: list[tuple[PluginReport, AbstractContextManager[object]]] = []
    for report, restore in installed().hooked("extract"):
        try:
            manager = restore(carrier=carrier)
            if manager is not None:
                manager.__enter__()
                entered.append((report, manager))
        except Exception as error:
            _warn("%s restores nothing around these tasks: its hook extract() raised", report, error=error)
    try:
        yield
    finally:
        current = sys.exc_info()
        for report, manager in reversed(entered):
            try:
                manager.__exit__(*current)  # its answer is ignored: a plugin may look at an error, not swallow it
            except Exception as error:
                if error is not current[1]:
                    _warn("%s failed to clean up after these tasks", report, error=error)


def open_cache(url: str) -> Any | None:
    """The first cache that a plugin opens for this address, or None when it is nobody's.

    Raises CacheError naming the plugin that failed.
    """
    for report, open_one in installed().hooked("open_cache"):
        try:
            cache = open_one(url=url)
        except Exception as error:
            shown = without_secrets(url)
            why = headline(error).replace(url, shown)
            raise CacheError(f"{report} could not open the cache '{shown}': {why}") from error
        if cache is not None:
            return cache
    return None


def _warn(message: str, *values: object, error: BaseException | None = None) -> None:
    import logging

    logging.getLogger("hypernodes").warning(message, *values, exc_info=error)
