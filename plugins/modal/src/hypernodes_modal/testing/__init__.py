"""A Modal control plane on this machine: the unmodified `modal` client runs against it without an account."""

from __future__ import annotations

from hypernodes_modal.testing._harm import Harm
from hypernodes_modal.testing._plane import LocalModal
from hypernodes_modal.testing._records import App, Container, Function, Image, Volume

__all__ = ["App", "Container", "Function", "Harm", "Image", "LocalModal", "Volume"]
