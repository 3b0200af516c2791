"""The processes of a cluster: started with an environment of their own, ended by their ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask.config

from hypernodes_coiled._local import end_group

__all__ = ["end", "has_ended", "start"]

MACHINE = Path(__file__).with_name("machine.py")


def start(spec: dict[str, Any], config: dict[str, Any], environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start one machine in a process group of its own. What it prints goes to the log. It ends with this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DASK_", "AWS_"))}
    environment |= {
        "DASK_CONFIG": str(log.parent / "no-config"),
        "DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(config),
        **environ,
    }
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, str(MACHINE), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            cwd=log.parent,
        )


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has. It is not reaped, so that its id, which names its group, is not given to another."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(processes: list[subprocess.Popen[bytes]], grace: float) -> None:
    """Ask all to end, and end what is left of their groups as soon as they have, or after `grace` seconds."""
    processes = [process for process in processes if process.returncode is None]
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    until = time.monotonic() + grace
    while time.monotonic() < until and not all(map(has_ended, processes)):
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.wait()
        end_group(process.pid)
        assert process.stdin is not None
        process.stdin.close()
