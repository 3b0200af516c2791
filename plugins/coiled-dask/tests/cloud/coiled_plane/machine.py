"""One machine of a cluster, run as a program: `python machine.py '{"kind": ..., "folder": ..., "opts": ...}'`.

It is a scheduler or a worker of the real `distributed`, with what Coiled adds to both: environment variables that
a client sends to the scheduler alone reach all workers, those that come later too.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

ON_WORKER = Path(__file__).with_name("on_worker.py")


async def scheduler(folder: Path, opts: dict[str, Any]) -> None:
    from dask.utils import parse_timedelta
    from distributed import Scheduler
    from distributed.diagnostics.plugin import SchedulerPlugin
    from tornado.ioloop import PeriodicCallback

    sent: dict[str, str] = {}
    # Counted from the first work on: how long machines take to start must not decide whether a cluster lives.
    idle_timeout = opts.pop("idle_timeout", None)

    class Arrivals(SchedulerPlugin):
        def add_worker(self, scheduler: Any, worker: str) -> None:
            name = scheduler.workers[worker].name
            (folder / f"{name}.arrived").touch()

        def update_graph(self, scheduler: Any, *_: Any, **__: Any) -> None:
            if idle_timeout and not scheduler.idle_timeout:
                scheduler.idle_timeout = parse_timedelta(idle_timeout)
                PeriodicCallback(scheduler.check_idle, 50).start()

    async def update_env_vars(env: dict[str, str]) -> None:
        sent.update(env)
        os.environ.update(env)
        await server.broadcast(msg={"op": "coiled_update_env_vars", "env": env})

    async def unset_env_vars(unset: list[str]) -> None:
        for name in unset:
            sent.pop(name, None)
            os.environ.pop(name, None)

    async def env_vars() -> dict[str, str]:
        return sent

    async def set_keepalive(keepalive: str) -> None:
        (folder / "keepalive").write_text(str(keepalive), encoding="utf-8")

    server = Scheduler(**opts)
    server.handlers["coiled_update_env_vars"] = update_env_vars
    server.handlers["coiled_unset_env_vars"] = unset_env_vars
    server.handlers["coiled_env_vars"] = env_vars
    server.handlers["coiled_set_keepalive"] = set_keepalive
    async with server:
        server.add_plugin(Arrivals())
        draft = folder / "address.draft"
        draft.write_text(server.address, encoding="utf-8")
        draft.rename(folder / "address")
        await _finished_or_told(server)


async def worker(folder: Path, opts: dict[str, Any], class_name: str) -> None:
    from distributed.utils import import_term

    cls = import_term(class_name)
    address = folder / "address"
    while not address.exists():
        await asyncio.sleep(0.02)
    async with cls(address.read_text(encoding="utf-8"), preload=[str(ON_WORKER)], **opts) as server:
        await _finished_or_told(server)


async def _finished_or_told(server: Any) -> None:
    """Wait until the server has ended by itself, somebody says SIGTERM, or who started this has gone."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    # Nobody writes to standard input: it can be read only when the other end has closed.
    loop.add_reader(sys.stdin.fileno(), told.set)
    waits = [asyncio.ensure_future(server.finished()), asyncio.ensure_future(told.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    loop.remove_reader(sys.stdin.fileno())
    for wait in waits:
        wait.cancel()


def main() -> None:
    spec = json.loads(sys.argv[1])
    folder = Path(spec["folder"])
    if spec["kind"] == "scheduler":
        asyncio.run(scheduler(folder, spec["opts"]))
    else:
        asyncio.run(worker(folder, spec["opts"], spec["class"]))


if __name__ == "__main__":
    main()
