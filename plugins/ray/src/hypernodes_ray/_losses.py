"""What an error of Ray's means: a worker that died, a node that died, or a cluster that is at fault."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypernodes.plugin import PlaceError, WorkerLostError

__all__ = ["Loss", "loss_of"]


class Loss(NamedTuple):
    """Why a call gave nothing. `unbegun` says that nobody is to blame: it is to be made again."""

    error: PlaceError
    unbegun: bool = False


def loss_of(error: BaseException) -> Loss:
    """What came of a call that Ray gave an error for."""
    from ray import exceptions as ray

    text = _first_line(error)
    if isinstance(error, ray.TaskCancelledError):
        return Loss(PlaceError("the call was cancelled on the Ray cluster"), unbegun=True)
    if isinstance(error, (ray.NodeDiedError, ray.ObjectLostError)) or _node_died(error):
        return Loss(WorkerLostError("the Ray node that ran this item died, and so did others that tried it"), True)
    if isinstance(error, ray.OutOfMemoryError) or (isinstance(error, ray.ActorDiedError) and _no_memory(error)):
        return Loss(
            WorkerLostError(
                "Ray killed the worker that ran this item, as its node ran out of memory; say what the node of the "
                "pipeline needs, @node(resources={'memory': '4GB'}), so that fewer run side by side "
                f"({_no_memory(error) or text})"
            )
        )
    if isinstance(error, ray.WorkerCrashedError):
        return Loss(WorkerLostError("the Ray worker that ran this item died (a signal, os._exit, or no memory left)"))
    if isinstance(error, (ray.ActorDiedError, ray.ActorUnavailableError)):
        return Loss(WorkerLostError(f"the Ray actor that ran this item died: {_cause(error)}"))
    if isinstance(error, ray.RuntimeEnvSetupError):
        return Loss(PlaceError(f"Ray could not set up the runtime_env of RayBackend: {error}"))
    missing = _missing(error)
    if missing is not None:
        return Loss(
            PlaceError(
                f"module '{missing}' is missing on the Ray cluster; install hypernodes-ray there in the version that "
                "is here, or let Ray do it: RayBackend(runtime_env={'pip': ['hypernodes-ray']})"
            )
        )
    if isinstance(error, ray.LocalRayletDiedError):
        return Loss(PlaceError("the Ray node of this machine died; call backend.close() and run again"))
    return Loss(PlaceError(f"the Ray cluster failed: {type(error).__name__}: {text}"))


def _node_died(error: BaseException) -> bool:
    from ray import exceptions as ray

    return isinstance(error, ray.ActorDiedError) and "node has died" in str(error)


def _no_memory(error: BaseException) -> str | None:
    """The line in which Ray says that a node ran out of memory."""
    lines = str(error).splitlines()
    return next((line.strip() for line in lines if "running low on memory" in line or "OUT_OF_MEMORY" in line), None)


def _missing(error: BaseException) -> str | None:
    """Which module of ours the cluster does not have."""
    todo: list[Any] = [error]
    for one in todo:
        name = getattr(one, "name", None)
        if isinstance(one, ModuleNotFoundError) and str(name).partition(".")[0].startswith("hypernodes"):
            return str(name)
        todo += [other for other in (getattr(one, "cause", None), one.__cause__) if other is not None][: 8 - len(todo)]
    text = str(error)
    return "hypernodes_ray" if "No module named 'hypernodes_ray" in text else None


def _cause(error: BaseException) -> str:
    """What Ray says of an actor's end, without its identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("The actor")), lines[0] if lines else "no reason")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
