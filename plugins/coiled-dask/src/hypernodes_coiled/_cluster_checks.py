"""Values of cluster options that cannot be: found when the backend is made, not two minutes into its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["check_values"]

LEAST_MEMORY = 2**27
"""Less than 128 MiB is a number whose unit was forgotten."""
LEAST_DISK = 2**30
SPOT = ("on-demand", "spot", "spot_with_fallback")


def check_values(owner: str, options: Mapping[str, Any], shown: Mapping[str, str]) -> None:
    """Raise ValueError for the first option whose value cannot be, or which does not go with another.

    `options` have the client's names, `shown` says by which name the user gave each.
    """
    for real, value in options.items():
        check = _CHECKS.get(real)
        # None means something to the client: no credentials, no time-out
        reason = check(value) if check and value is not None else None
        if reason:
            raise ValueError(f"{owner}: {shown[real]}={value!r}; {reason}")
    for one, others, reason in _CONFLICTS:
        for other in others:
            if options.get(one) and options.get(other):
                raise ValueError(f"{owner}: {shown[one]}= and {shown[other]}= do not go together: {reason}")
    for both, reason in _both(options):
        raise ValueError(f"{owner}: {shown[both]}={options[both]!r}; {reason}")


def _both(options: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Values that are wrong because of another."""
    wrong = []
    cpu = options.get("worker_cpu")
    if isinstance(cpu, int) and cpu < 2 and not options.get("arm"):
        wrong.append(("worker_cpu", "an x86 machine has 2 or more; a single one needs arm=True"))
    region = options.get("backend_options") or {}
    if "region" in options and {"region", "region_name"} & set(region):
        wrong.append(("region", "backend_options= names a region too; give one of them"))
    wait, workers = options.get("wait_for_workers"), _start_of(options.get("n_workers"))
    if isinstance(wait, int) and not isinstance(wait, bool) and workers is not None and wait > workers:
        wrong.append(("wait_for_workers", f"only {workers} are started"))
    return wrong


def _start_of(workers: Any) -> int | None:
    """How many workers a cluster starts with."""
    if isinstance(workers, list):
        return int(workers[0] if len(workers) == 2 else workers[1])
    return None if workers is None else int(workers)


_CONFLICTS = (
    ("worker_vm_types", ("worker_cpu", "worker_memory"), "a type says how much of each it has"),
    ("scheduler_vm_types", ("scheduler_cpu", "scheduler_memory"), "a type says how much of each it has"),
    ("software", ("container",), "each is a whole environment"),
)


def _workers(value: Any) -> str | None:
    if _is_count(value, 1):
        return None
    if isinstance(value, list) and len(value) in (2, 3) and all(_is_count(one, 0) for one in value):
        return None if value == sorted(value) and value[-1] else "a range goes from the fewest to the most"
    return "give a whole number, 1 or more, or a range, (fewest, most), for a cluster that grows and shrinks"


def _memory(value: Any) -> str | None:
    return _amount(value, LEAST_MEMORY, "'16 GiB'")


def _disk(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None if value > 0 else "a disk has 1 GiB or more"  # a plain number is GiB to the client
    return _amount(value, LEAST_DISK, "'100 GiB'")


def _amount(value: Any, least: int, example: str) -> str | None:
    """A size, or two that a machine's lies between."""
    from dask.utils import parse_bytes

    if value == "*":
        return None
    sizes = value if isinstance(value, list) else [value]
    if len(sizes) not in (1, 2) or any(isinstance(size, bool) for size in sizes):
        return f"give a size such as {example}, or two to choose between"
    for size in sizes:
        try:
            found = parse_bytes(size)
        except (ValueError, TypeError):
            return f"{size!r} is no size; write it like {example}"
        if found < least:
            return f"{size!r} means {found} bytes; write the unit: {example}"
    return None


def _cpu(value: Any) -> str | None:
    if value == "*" or _is_count(value, 1):
        return None
    if isinstance(value, list) and len(value) == 2 and all(_is_count(one, 1) for one in value):
        return None if value == sorted(value) else "a range goes from the fewest to the most"
    return "give a whole number of CPUs, or two to choose between"


def _gpu(value: Any) -> str | None:
    return None if isinstance(value, bool) or _is_count(value, 1) else "give a whole number of GPUs, or True for one"


def _types(value: Any) -> str | None:
    fits = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    return None if fits else "give names of machine types, such as ['m6i.xlarge']"


def _duration(value: Any) -> str | None:
    from dask.utils import parse_timedelta

    try:
        seconds = parse_timedelta(value)
    except (ValueError, TypeError, KeyError):
        seconds = None
    return None if seconds and seconds > 0 else "give a time such as '20 minutes'"


def _spot(value: Any) -> str | None:
    return None if value in SPOT else f"give True, False or one of {', '.join(map(repr, SPOT))}"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "give a name"


def _texts(value: Any) -> str | None:
    fits = isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair)
    return None if fits else "give names and values, both text"


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "n_workers": _workers,
    "worker_memory": _memory,
    "scheduler_memory": _memory,
    "worker_disk_size": _disk,
    "scheduler_disk_size": _disk,
    "worker_cpu": _cpu,
    "scheduler_cpu": _cpu,
    "worker_gpu": _gpu,
    "worker_vm_types": _types,
    "scheduler_vm_types": _types,
    "idle_timeout": _duration,
    "cluster_timeout": _duration,
    "spot_policy": _spot,
    "region": _text,
    "name": _text,
    "software": _text,
    "container": _text,
    "workspace": _text,
    "environ": _texts,
    "tags": _texts,
}
