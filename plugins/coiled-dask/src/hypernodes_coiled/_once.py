"""A task of ours that its worker dies under is told about, and not tried again by Dask itself.

Dask would give it to another worker in the same moment in which it tells of the death. Where the task is what kills,
that worker dies too, with the tasks of healthy items on it, and core could not tell who is to blame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distributed import SchedulerPlugin

__all__ = ["PREFIX", "Once"]

PREFIX = "hypernodes-"
"""How the keys of our tasks begin. Those of others are left alone."""


class Once(SchedulerPlugin):  # type: ignore[misc]
    """Counts all deaths that Dask allows a task as spent, for tasks of ours: the first one is an error."""

    name = "hypernodes-once"
    idempotent = True

    def update_graph(self, scheduler: Any, *, keys: Iterable[Any], **_: Any) -> None:
        for key in keys:
            if str(key).startswith(PREFIX) and key in scheduler.tasks:
                scheduler.tasks[key].suspicious = scheduler.allowed_failures
