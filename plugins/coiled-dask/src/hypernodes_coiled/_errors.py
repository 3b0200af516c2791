"""What goes wrong with a Dask cluster, rather than with the nodes that run on it."""

from __future__ import annotations

from hypernodes import PlaceError

__all__ = ["NoWorkersError", "SchedulerLostError"]


class SchedulerLostError(PlaceError):
    """The Dask scheduler went away, or stopped answering, while a run was under way.

    What a stream gave, or a cache kept, before that is not lost. The next run connects anew.
    """


class NoWorkersError(PlaceError):
    """There was no worker to run on for longer than the backend waits for one."""
