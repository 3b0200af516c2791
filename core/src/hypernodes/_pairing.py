"""Which backend runs which engine: what one requires must be within what the other provides, and no plugin objects."""

from __future__ import annotations

from hypernodes._discovery import headline
from hypernodes._errors import PluginError, quoted
from hypernodes._names import CORE_BACKENDS, CORE_ENGINES
from hypernodes._registry import backend_specs, installed
from hypernodes._specs import BackendSpec, EngineSpec

__all__ = ["hosts", "refusal"]


def refusal(backend: BackendSpec, engine: EngineSpec) -> str | None:
    """Why this backend cannot run this engine, as half a sentence; None when it can.

    First what the engine requires and the backend does not provide, then what plugins object (`refuse_pair`).
    Raises PluginError naming the plugin whose objection could not be had.
    """
    missing = engine.requires - backend.provides
    opens = bool(engine.opens_on) and engine.opens_on <= backend.provides
    if missing and not opens:
        provides = quoted(sorted(backend.provides)).replace("none", "nothing")
        instead = f", or {quoted(sorted(engine.opens_on))} to open that there by itself" if engine.opens_on else ""
        return f"it requires {quoted(sorted(missing))}{instead}, and backend '{backend.name}' provides {provides}"
    if backend.name in CORE_BACKENDS and engine.name in CORE_ENGINES:
        return None  # core's own pairs need no opinion, and so building a local pipeline loads no plugin
    for report, refuse_pair in installed().hooked("refuse_pair"):
        try:
            reason = refuse_pair(backend=backend, engine=engine)
        except Exception as error:
            raise PluginError(
                f"{report} failed when asked whether backend '{backend.name}' may run engine '{engine.name}': "
                f"{headline(error)}"
            ) from error
        if reason is not None and not isinstance(reason, str):
            raise PluginError(f"{report} answered refuse_pair() with {reason!r}, which is neither text nor None")
        if reason:
            return reason
    return None


def hosts(engine: EngineSpec) -> list[str]:
    """The names of installed backends that could run this engine."""
    able: list[str] = []
    for name, backend in backend_specs().items():
        try:
            if refusal(backend, engine) is None:
                able.append(name)
        except PluginError as error:
            import logging

            logging.getLogger("hypernodes").warning("%s", error)
    return able
