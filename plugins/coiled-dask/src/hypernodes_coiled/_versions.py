"""Whether scheduler and workers run what this process runs: told in a sentence before anything is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import hypernodes
from hypernodes import VersionMismatchError
from hypernodes_coiled._link import Link

__all__ = ["check_versions", "mismatches"]

_CORE, _OURS = "hypernodes-core", "hypernodes-coiled"


def check_versions(link: Link) -> None:
    """Raise `VersionMismatchError` where a machine of the cluster cannot run what is packed here."""
    found = link.start(lambda: link.client.get_versions(packages=[_CORE, _OURS])).result()
    machines = {f"the scheduler at {link.address}": found["scheduler"]}
    machines |= {f"the worker {address}": told for address, told in found["workers"].items()}
    wrong = list(mismatches(machines))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise VersionMismatchError(f"the Dask cluster cannot run pipelines of this process: {wrong[0]}{more}")


def mismatches(machines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What does not fit, one sentence for each machine. A scheduler runs no nodes: its Python may be another."""
    python = ".".join(map(str, sys.version_info[:2]))
    for who, told in machines.items():
        theirs = ".".join(told["host"]["python"].split(".")[:2])
        packages = told["packages"]
        missing = [name for name in (_CORE, _OURS) if packages.get(name) is None]
        if missing:
            yield f"{who} lacks {' and '.join(missing)}; install there what is installed here"
        elif packages[_CORE] != hypernodes.__version__:
            yield f"{who} has {_CORE} {packages[_CORE]}, here it is {hypernodes.__version__}; give both the same"
        elif theirs != python and "scheduler" not in who:
            yield f"{who} runs Python {theirs}, here it is {python}, as pickled functions need; give both the same"
