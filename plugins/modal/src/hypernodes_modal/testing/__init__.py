"""A Modal control plane on this machine: the unmodified `modal` client runs against it without an account."""

from __future__ import annotations

from hypernodes_modal.testing._plane import LocalModal

__all__ = ["LocalModal"]
