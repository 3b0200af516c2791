"""Daft's runner for Ray in this process: claimed, quiet on the cluster too, and made anew for another cluster."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

from hypernodes.plugin import PlaceError
from hypernodes_daft import _runner

__all__ = ["claim"]

_lock = threading.Lock()
_cluster: tuple[str, str] | None = None
"""The cluster that Daft's runner was last used on, and this program's job there."""
_planner: Any = None
"""What plans queries there. It ends when nobody holds it."""


def claim() -> ModuleType:
    """Daft, with its runner for Ray claimed for this process, on the cluster that this process is connected to.

    Raises `PlaceError` where that cannot be: Daft has one runner for each process.
    """
    global _cluster, _planner
    import ray

    client: Any = ray.util.client.ray  # whose functions say nothing of types
    if client.is_connected():
        raise PlaceError(
            "Daft's runner for Ray is not driven through Ray's client: give RayBackend the address of the cluster's "
            "head, 'host:6379', or 'auto' on one of its machines, instead of one with ray://"
        )
    with _lock:
        daft = _runner.load()
        try:
            from daft import runners
            from daft.runners import flotilla
        except ImportError as error:
            raise PlaceError(
                f"Daft's runner for Ray cannot be loaded ({error}); pip install 'hypernodes-daft[ray]'"
            ) from error
        runner: Any = runners.set_runner_ray(noop_if_initialized=True)
        if runner.name != "ray":
            raise PlaceError(
                f"this process already runs Daft on '{runner.name}', and Daft has one runner for each process: "
                "DaftEngine(runner='ray') cannot be used beside DaftEngine() or map_frame. Run one of them in another "
                "process"
            )
        context = ray.get_runtime_context()
        here = (str(context.gcs_address), str(context.get_job_id()))
        if here != _cluster:
            if _cluster is not None:
                runner.flotilla_plan_runner = None  # it was on a cluster that is closed
                flotilla._FLOTILLA_RUNNER_NAME_SUFFIX = None
            _planner = _woken(flotilla)
            _cluster = here
    return daft


def _woken(flotilla: Any) -> Any:
    """Start what plans Daft's queries on the cluster, where it does not run yet, before Daft does it.

    What it starts inherits its environment. Daft itself passes none along, and its workers tell of their use.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    head = flotilla.get_head_node_id()
    return flotilla.RemoteFlotillaRunner.options(
        name=flotilla.get_flotilla_runner_actor_name(),
        namespace=flotilla.FLOTILLA_RUNNER_NAMESPACE,
        get_if_exists=True,
        runtime_env={"env_vars": _runner.quiet()},
        scheduling_strategy=head and NodeAffinitySchedulingStrategy(node_id=head, soft=False),
    ).remote()
