"""Sequential, async, parallel: what each dimension of a run may overlap, and with which engine by default."""

from __future__ import annotations

from hypernodes._errors import IncompatibleEngineError, did_you_mean, quoted
from hypernodes._specs import MODES, EngineSpec

__all__ = ["check_mode", "default_engine", "fill_modes"]


def check_mode(owner: str, option: str, mode: object) -> None:
    """Raise `IncompatibleEngineError` (a ValueError) for a mode that does not exist."""
    if mode is not None and mode not in MODES:
        raise IncompatibleEngineError(
            f"{owner}: {option}={mode!r}{did_you_mean(mode, MODES)}; the modes are {quoted(MODES)}"
        )


def default_engine(node_execution: str | None, map_execution: str | None) -> str:
    """The engine when none is named: processes for parallel, asyncio for async, else one after another."""
    modes = (node_execution, map_execution)
    if "parallel" in modes:
        return "multiprocess"
    return "async" if "async" in modes else "sequential"


def fill_modes(
    owner: str, spec: EngineSpec, node_execution: str | None, map_execution: str | None, *, named: bool
) -> tuple[str, str]:
    """Both modes, with what the user left open filled in.

    An engine the user named fills in its own default; where only modes were named the open one is sequential.
    Raises `IncompatibleEngineError` for a mode that the engine does not take.
    """
    for option, mode in (("node_execution", node_execution), ("map_execution", map_execution)):
        if mode is None:
            continue
        if not spec.modes:
            raise IncompatibleEngineError(
                f"{owner}: {option}={mode!r} cannot be combined with engine '{spec.name}', which schedules nodes and "
                f"items itself; leave {option} out"
            )
        if mode not in spec.modes:
            raise IncompatibleEngineError(
                f"{owner}: engine '{spec.name}' cannot run {option}={mode!r}, it takes {quoted(spec.modes)}; "
                f"leave engine= out to get one that can"
            )
    open_mode = spec.default_mode if named else "sequential"
    return node_execution or open_mode, map_execution or open_mode
