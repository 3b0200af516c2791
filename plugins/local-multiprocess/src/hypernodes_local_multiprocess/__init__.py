"""Worker processes for hypernodes."""
