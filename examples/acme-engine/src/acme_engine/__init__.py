"""The engine `loky` for hypernodes: nodes and items in the processes of the library loky."""

from acme_engine._engine import LokyEngine

__all__ = ["LokyEngine"]
