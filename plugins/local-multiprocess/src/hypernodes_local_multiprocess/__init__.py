"""The engine `multiprocess`: nodes and items in a pool of processes that outlives its workers."""

from hypernodes_local_multiprocess._engine import MultiprocessEngine
from hypernodes_local_multiprocess._pool import ProcessPool

__all__ = ["MultiprocessEngine", "ProcessPool"]
