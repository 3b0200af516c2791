"""What this machine has for nodes to use."""

from __future__ import annotations

import os
import sys

from hypernodes._demand import Demand

__all__ = ["machine"]

NVIDIA = "/proc/driver/nvidia/gpus"
"""Where the driver lists one folder for each GPU."""


def machine() -> Demand:
    """The CPUs that this process may use, the GPUs that it sees, and the machine's memory in bytes.

    GPUs are those that `CUDA_VISIBLE_DEVICES` names, else those that NVIDIA's driver lists. Memory that nobody tells of
    is taken to be without end.
    """
    return Demand(_cpus(), _gpus(), _memory())


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(os.listdir(NVIDIA)) if os.path.isdir(NVIDIA) else 0
    # CUDA takes no device that is named after one that does not exist, of which -1 is the usual one.
    named = [name.strip() for name in visible.split(",")]
    return next((at for at, name in enumerate(named) if name in ("", "-1")), len(named))


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize
