"""The control plane that the tests of this package share, so that containers stay warm."""

from __future__ import annotations

from hypernodes.testing import no_leaks
from hypernodes_modal.testing.fixtures import local_modal, local_modal_session, modal_anywhere, modal_anywhere_session

__all__ = ["local_modal", "local_modal_session", "modal_anywhere", "modal_anywhere_session", "no_leaks"]
