"""The engine `daft`: a map as a lazy dataframe, items as rows and nodes as columns; and pipelines over dataframes."""

from hypernodes_daft._check import NativeMismatchError
from hypernodes_daft._engine import DaftEngine
from hypernodes_daft._frame import map_frame
from hypernodes_daft._native import native
from hypernodes_daft._types import ColumnTypeError

__all__ = ["ColumnTypeError", "DaftEngine", "NativeMismatchError", "map_frame", "native"]
