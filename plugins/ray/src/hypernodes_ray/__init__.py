"""Ray: the backend `ray` says which cluster, the engine `ray` how work is cut into its tasks and actors."""

from hypernodes_ray._backend import RayBackend
from hypernodes_ray._engine import RayEngine

__all__ = ["RayBackend", "RayEngine"]
