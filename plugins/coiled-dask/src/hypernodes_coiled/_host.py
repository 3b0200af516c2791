"""The process of a local cluster: a scheduler, and a nanny for each worker. It ends when its standard input does."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
import threading
from typing import Any

import dask
from distributed import Nanny, Scheduler
from distributed.security import Security

__all__ = ["main"]

SETTINGS = {
    # Core finds out which item kills workers; Dask would try it on four of them first.
    "distributed.scheduler.allowed-failures": 0,
    # Nodes may start processes.
    "distributed.worker.daemon": False,
    "distributed.scheduler.worker-saturation": "inf",
    "distributed.admin.large-graph-warning-threshold": "1TB",
    # Where gilknocker is installed, as it is with coiled, its thread may abort a worker that ends.
    "distributed.admin.system-monitor.gil.enabled": False,
}


def main(start: dict[str, Any]) -> None:
    """Run the cluster that `start` describes, and tell its address, or what went wrong, on the descriptor `tell`."""
    for name in ("distributed", "distributed.scheduler", "distributed.nanny", "distributed.core", "bokeh"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set({**SETTINGS, "temporary-directory": start["folder"]}):
        asyncio.run(_serve(start))
    shutil.rmtree(start["folder"], ignore_errors=True)  # a program that was killed cannot


async def _serve(start: dict[str, Any]) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_the_end() -> None:
        while sys.stdin.buffer.read(1024):
            continue
        loop.call_soon_threadsafe(over.set)

    with open(start["tell"], "w") as answers:
        try:
            scheduler, nannies = await _open(start)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
            return
        print(json.dumps({"address": scheduler.address}), file=answers)
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    await over.wait()
    await asyncio.gather(*(nanny.close(timeout=3) for nanny in nannies), return_exceptions=True)
    await scheduler.close()


async def _open(start: dict[str, Any]) -> tuple[Scheduler, list[Nanny]]:
    security = _security(**start["security"])
    here = {"host": "127.0.0.1", "protocol": "tls", "security": security, "dashboard_address": "127.0.0.1:0"}
    scheduler = await Scheduler(port=0, dashboard=False, **here)
    nannies = [
        Nanny(
            scheduler.address,
            name=f"worker-{number}",
            nthreads=start["threads"],
            memory_limit=start["memory"],
            resources=start["resources"] or None,
            local_directory=start["folder"],
            dashboard=False,
            silence_logs=logging.CRITICAL,
            **here,
        )
        for number in range(start["workers"])
    ]
    await asyncio.gather(*nannies)
    return scheduler, nannies


def _security(ca: str, certificate: str, key: str) -> Security:
    roles = {f"tls_{role}_{part}": value for role in ("client", "scheduler", "worker")
             for part, value in (("cert", certificate), ("key", key))}  # fmt: skip
    return Security(require_encryption=True, tls_ca_file=ca, **roles)
