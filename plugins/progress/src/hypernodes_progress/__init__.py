"""`ProgressCallback`: runs shown while they go on, live in terminals and notebooks, as plain lines elsewhere."""

from hypernodes_progress._callback import ProgressCallback

__all__ = ["ProgressCallback"]
