"""Pipelines on Modal. The library itself is loaded when a backend is made or the local control plane is started."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes_modal._backend import ModalBackend
    from hypernodes_modal._cost import Cost
    from hypernodes_modal._image import default_image, uv_image

__all__ = ["Cost", "ModalBackend", "default_image", "uv_image"]

_HOMES = {"Cost": "_cost", "ModalBackend": "_backend", "default_image": "_image", "uv_image": "_image"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hypernodes_modal' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hypernodes_modal.{_HOMES[name]}"), name)
