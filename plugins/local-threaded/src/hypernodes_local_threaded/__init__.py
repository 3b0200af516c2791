"""The engine `threaded`: nodes and items in a pool of threads, for work that waits on input and output."""

from hypernodes_local_threaded._engine import ThreadedEngine

__all__ = ["ThreadedEngine"]
