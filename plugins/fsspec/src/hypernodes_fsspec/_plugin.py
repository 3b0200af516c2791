"""The manifest: what this distribution adds to hypernodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.plugin import CacheSpec, hookimpl

if TYPE_CHECKING:
    from hypernodes.plugin import Cache


@hookimpl
def caches() -> list[CacheSpec]:
    return [
        CacheSpec(
            name="fsspec",
            target="hypernodes_fsspec._cache:FsspecCache",
            summary="any store that fsspec reaches, shared by machines",
        )
    ]


@hookimpl(trylast=True)  # fsspec reaches nearly everything: whoever knows an address better goes first
def open_cache(url: str) -> Cache | None:
    from hypernodes_fsspec._cache import cache_at, is_known

    return cache_at(url) if is_known(url) else None
