"""The machine types that the control plane knows, and the search that the client does among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["VM_TYPES", "search"]


def _family(prefix: str, gib_a_core: int, sizes: dict[str, int]) -> Iterator[dict[str, Any]]:
    for size, cores in sizes.items():
        yield {
            "name": f"{prefix}.{size}",
            "cores": cores,
            "memory": cores * gib_a_core * 1024,
            "gpus": 0,
            "gpu_name": None,
            "backend_type": "vm_aws",
            "arch": "arm64" if prefix.endswith("g") else "x86_64",
            "coiled_credits": cores,
        }


_SIZES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "16xlarge": 64, "32xlarge": 128}

VM_TYPES: list[dict[str, Any]] = [
    *_family("m6i", 4, _SIZES),
    *_family("m7i", 4, {"large": 2, "xlarge": 4, "2xlarge": 8}),
    *_family("r6i", 8, _SIZES),
    *_family("c6i", 2, _SIZES),
    *_family("m7g", 4, {"large": 2, "xlarge": 4}),
    {
        "name": "g4dn.xlarge",
        "cores": 4,
        "memory": 16384,
        "gpus": 1,
        "gpu_name": "T4",
        "backend_type": "vm_aws",
        "arch": "x86_64",
        "coiled_credits": 4,
    },
]

_COMPARE = {
    "": lambda have, want: have == want,
    "gte": lambda have, want: have >= want,
    "lte": lambda have, want: have <= want,
}


def search(query: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The types that fit a query such as `cores=4&memory__gte=15000&arch=x86_64`."""
    return [vm for vm in VM_TYPES if all(_fits(vm, name, values[-1]) for name, values in query.items())]


def _fits(vm: dict[str, Any], name: str, wanted: str) -> bool:
    field, _, how = name.partition("__")
    if field not in vm:
        return True  # the page, the order
    have = vm[field]
    return _COMPARE[how](have, wanted if isinstance(have, str) else float(wanted))
