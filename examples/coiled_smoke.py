"""A first try on Coiled: two small machines of your own cloud account, for a few minutes and a few cents.

    pip install "hypernodes[coiled]"
    coiled login
    python coiled_smoke.py [--region us-east-1] [--workers 2]

It starts a cluster, runs a nested pipeline there, lets one item fail, ends the cluster, and says whether all was as it
should be.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time

from hypernodes import CoiledBackend, Failure, LocalBackend, Pipeline, PlaceError, node


@node(output_name="machine")
def find_out(x: int) -> str:
    import platform

    return platform.node()


@node(output_name="root")
def take_root(x: int) -> float:
    return float(x**0.5) if x >= 0 else float("not a number of ours")


@node(output_name="line")
def describe(x: int, root: float, machine: str) -> str:
    return f"the root of {x} is {root:.3f}, says {machine}"


@node(output_name="secret_arrived")
def look_for_secret(x: int) -> bool:
    return os.environ.get("SMOKE_SECRET") == "hushed"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--region")
    arguments.add_argument("--workers", type=int, default=2)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")

    backend = CoiledBackend(
        cpu=2,
        memory="8 GiB",
        workers=chosen.workers,
        region=chosen.region,
        idle_timeout="10 minutes",
        secrets={"SMOKE_SECRET": "hushed"},
        credentials=None,
        tags={"purpose": "smoke"},
    )
    far = Pipeline(nodes=[find_out, take_root, look_for_secret], name="far", backend=backend)
    pipeline = Pipeline(nodes=[far, describe], name="main", backend=LocalBackend())
    try:
        with backend:
            started = time.perf_counter()
            rows = pipeline.map([{"x": x} for x in (*range(1000), -1)], on_error="return")
            first = time.perf_counter() - started
            started = time.perf_counter()
            pipeline.map([{"x": x} for x in range(1000)])
            again = time.perf_counter() - started
    except PlaceError as error:
        print(f"not as it should be: {error}", file=sys.stderr)
        return 1

    *good, failed = rows
    machines = {row["machine"] for row in good}
    print(good[9]["line"])
    print(f"{len(good)} items on {len(machines)} machines: {first:.1f} s with the start, {again:.2f} s without")
    right = (
        [row["root"] for row in good] == [x**0.5 for x in range(1000)]
        and all(row["secret_arrived"] for row in good)
        and isinstance(failed, Failure)
        and failed.where == "main (item 1000) > far > take_root"
    )
    print("all as it should be" if right else "not as it should be")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
