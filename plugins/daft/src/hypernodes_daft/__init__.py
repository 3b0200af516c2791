"""The engine `daft`: a map as a lazy dataframe, items as rows and nodes as columns."""

from hypernodes_daft._engine import DaftEngine

__all__ = ["DaftEngine"]
