"""The options of `coiled.Cluster`, by names that say what they mean here, checked before anything is started."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from hypernodes_coiled._cluster_checks import check_values

__all__ = ["FRIENDLY", "cluster_options", "cluster_signature"]

OWNER = "CoiledBackend"

FRIENDLY = {
    "workers": "n_workers",
    "memory": "worker_memory",
    "cpu": "worker_cpu",
    "gpu": "worker_gpu",
    "gpu_type": "worker_gpu_type",
    "vm_types": "worker_vm_types",
    "disk": "worker_disk_size",
    "spot": "spot_policy",
}
"""Names of `CoiledBackend` and what `coiled.Cluster` calls them."""

REFUSED = {
    "asynchronous": "a backend waits for its cluster itself",
    "cloud": "the account is the one of the token; choose with workspace=",
    "custom_widget": "a backend shows nothing while it starts; it logs",
    "account": "Coiled calls it workspace= now",
    "package_sync": "Coiled has replaced it; give package_sync_only=, software= or container=",
    "compute_purchase_option": "Coiled calls it spot_policy= now, and here it is spot=",
    "batch_job_ids": "it belongs to Coiled's batch jobs",
    "batch_job_container": "it belongs to Coiled's batch jobs",
}
"""Options of `coiled.Cluster` that a backend cannot take, and why."""


def cluster_options(given: Mapping[str, Any], threads_per_worker: Any) -> dict[str, Any]:
    """The options as `coiled.Cluster` takes them, from those that a user gave by either name.

    Raises TypeError for a name that there is not or not here, and ValueError for values that cannot be.
    """
    signature = cluster_signature()
    shown: dict[str, str] = {}
    options: dict[str, Any] = {}
    for name, value in given.items():
        real = FRIENDLY.get(name, name)
        _check_name(name, real, signature)
        if real in options:
            raise ValueError(f"{OWNER}: {shown[real]}= and {name}= are two names of one option; give one of them")
        options[real], shown[real] = _plain(real, value), name
    check_values(OWNER, options, shown)
    return _with_worker_options(options, threads_per_worker)


def cluster_signature() -> frozenset[str]:
    """The names that the installed `coiled.Cluster` takes.

    Raises ImportError with what to install when there is no coiled.
    """
    try:
        import coiled
    except ModuleNotFoundError as error:
        if error.name != "coiled":
            raise
        raise ImportError(
            f"{OWNER} needs Coiled's client, which is not installed: pip install 'hypernodes-coiled[coiled]'"
        ) from error
    return frozenset(inspect.signature(coiled.Cluster.__init__).parameters) - {"self"}


def _check_name(name: str, real: str, signature: frozenset[str]) -> None:
    if real in REFUSED:
        raise TypeError(f"{OWNER} takes no {name}=: {REFUSED[real]}")
    if real not in signature or real.startswith("_"):
        known = [*FRIENDLY, "secrets", "threads_per_worker", "max_workers", *(signature - REFUSED.keys())]
        near = difflib.get_close_matches(name, [one for one in known if not one.startswith("_")], n=1)
        hint = f"did you mean {near[0]}=?" if near else "its own are those of coiled.Cluster"
        raise TypeError(f"{OWNER} has no option {name}=; {hint}")


def _plain(real: str, value: Any) -> Any:
    """A value in the form that the client takes, where people may write it in a handier one."""
    if real == "spot_policy" and isinstance(value, bool):
        return "spot_with_fallback" if value else "on-demand"
    if real in ("worker_vm_types", "scheduler_vm_types") and isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, tuple) else value


def _with_worker_options(options: dict[str, Any], threads_per_worker: Any) -> dict[str, Any]:
    """The options with what belongs into `worker_options`: threads, and the GPUs that nodes may ask for."""
    worker = dict(options.get("worker_options") or {})
    if threads_per_worker is not None:
        if isinstance(threads_per_worker, bool) or not isinstance(threads_per_worker, int) or threads_per_worker < 1:
            raise ValueError(f"{OWNER}: threads_per_worker={threads_per_worker!r}; give a whole number, 1 or more")
        if "nthreads" in worker:
            raise ValueError(
                f"{OWNER}: threads_per_worker= and worker_options={{'nthreads': ...}} are two names of one option; "
                "give one of them"
            )
        worker["nthreads"] = threads_per_worker
    gpus = int(options.get("worker_gpu") or 0)
    if gpus:
        worker["resources"] = {"GPU": gpus, **(worker.get("resources") or {})}
    return {**options, "worker_options": worker} if worker else options
