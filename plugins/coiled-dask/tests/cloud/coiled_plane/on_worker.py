"""What Coiled adds to a worker, as a preload: the environment variables that were sent to the scheduler."""

from __future__ import annotations

import os
from typing import Any


async def dask_setup(worker: Any) -> None:
    async def update_env_vars(env: dict[str, str]) -> None:
        os.environ.update(env)

    worker.handlers["coiled_update_env_vars"] = update_env_vars
    os.environ.update(await worker.scheduler.coiled_env_vars())
