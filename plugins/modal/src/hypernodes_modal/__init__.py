"""Pipelines on Modal. The library itself is loaded when a backend is made or the local control plane is started."""

from __future__ import annotations
