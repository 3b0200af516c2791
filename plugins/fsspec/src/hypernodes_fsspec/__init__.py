"""`FsspecCache`: a cache that machines share, in any store that fsspec reaches."""

from hypernodes_fsspec._cache import FsspecCache

__all__ = ["FsspecCache"]
