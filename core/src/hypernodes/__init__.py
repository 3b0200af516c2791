"""hypernodes."""
