"""The GPUs that Modal rents out, and what they cost: a dated table, for estimates where Modal is not asked."""

from __future__ import annotations

import difflib

AS_OF = "June 2026"

GPUS = {
    "T4": 0.59,
    "L4": 0.80,
    "A10": 1.10,
    "L40S": 1.95,
    "A100": 2.10,
    "A100-40GB": 2.10,
    "A100-80GB": 2.50,
    "RTX-PRO-6000": 3.03,
    "H100": 3.95,
    "H100!": 3.95,
    "H200": 4.54,
    "B200": 6.25,
    "B200+": 6.25,
}
"""US dollars an hour for one, by the name that Modal gives it."""

CORE = 0.047
"""US dollars an hour for a physical core."""

GIBIBYTE = 0.008
"""US dollars an hour for a GiB of memory."""

LEAST_CORES, LEAST_MIB = 0.125, 128
"""What a container is given that asks for nothing."""

_OLD_NAMES = {"A10G": "A10", "ANY": "T4"}


def near_gpu(kind: str) -> str | None:
    """None for a GPU that is known; else a hint which one may be meant, empty if none is near."""
    if kind in GPUS or kind in _OLD_NAMES:
        return None
    near = difflib.get_close_matches(kind, GPUS, n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def gpu_price(gpu: str | None) -> float | None:
    """US dollars an hour for all GPUs of a container; None for a kind that is not in the table."""
    if gpu is None:
        return 0.0
    kind, _, count = gpu.partition(":")
    price = GPUS.get(_OLD_NAMES.get(kind, kind))
    return None if price is None else price * int(count or 1)
