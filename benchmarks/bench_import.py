"""What `import hypernodes` costs a fresh interpreter: milliseconds over a bare one, and modules."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

from _measure import QUICK, Table

COUNT = "import sys; before = set(sys.modules); {}; print(len(set(sys.modules) - before))"


BYTECODE = tempfile.TemporaryDirectory()
"""Compiled once, as an installer does, wherever the sources lie and whatever the environment says about it."""

ENVIRONMENT = {**os.environ, "PYTHONPYCACHEPREFIX": BYTECODE.name, "PYTHONDONTWRITEBYTECODE": ""}


def seconds(code: str) -> float:
    """Seconds of CPU for one start of a fresh interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def modules(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", COUNT.format(code)], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def over_bare(code: str, turns: int) -> float:
    """Milliseconds over an interpreter that does nothing, each at its quickest: what disturbs a start only adds."""
    seconds(code)
    starts = [(seconds(code), seconds("pass")) for _ in range(turns)]
    return 1e3 * (min(ours for ours, _ in starts) - min(bare for _, bare in starts))


if __name__ == "__main__":
    table = Table("Importing, CPU time in fresh interpreters", "what", "over a bare interpreter", "modules", "goal")
    for what, goal in (
        ("import hypernodes", "<= 30 ms"),
        ("import inspect", ""),
        ("import asyncio, concurrent.futures", ""),
        ("import hypernodes.plugin", ""),
    ):
        table.row(what, f"{over_bare(what, 3 if QUICK else 31):.1f} ms", modules(what), goal)
