"""What goes wrong with a cluster, rather than with the nodes that run on it."""

from __future__ import annotations

from hypernodes import PlaceError

__all__ = ["CoiledLoginError", "CoiledStartError", "NoWorkersError", "SchedulerLostError"]


class SchedulerLostError(PlaceError):
    """The Dask scheduler went away, or stopped answering, while a run was under way.

    What a stream gave, or a cache kept, before that is not lost. The next run connects anew.
    """


class NoWorkersError(PlaceError):
    """There was no worker to run on for longer than the backend waits for one."""


class CoiledLoginError(PlaceError):
    """There is no token of a Coiled account, or Coiled does not take it."""


class CoiledStartError(PlaceError):
    """Coiled could not start the cluster. `__cause__` is what its client raised."""
