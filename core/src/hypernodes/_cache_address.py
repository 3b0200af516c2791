"""A cache by its address: a folder, `memory:NAME`, or whatever a plugin opens."""

from __future__ import annotations

import os
import re
from typing import Any

from hypernodes._cache import Cache
from hypernodes._errors import CacheError, NodeDefinitionError, a_kind, without_secrets
from hypernodes._settings import INHERIT

__all__ = ["checked_cache", "open_cache"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://")


def open_cache(address: str | os.PathLike[str] | Cache) -> Cache:
    """The cache behind an address; a cache is its own.

    `memory:` and `memory:NAME` are in this process, the same at every call. `scheme://...` is opened by a plugin. All
    else is the path of a folder. An address holds no secret: caches opened by address are signed with the key in the
    environment variable HYPERNODES_CACHE_KEY, where it is set.

    Raises CacheError when the address is nobody's, or its plugin fails.
    """
    if isinstance(address, Cache):
        return address
    if not isinstance(address, str | os.PathLike):
        raise CacheError(
            f"cache={address!r} is {a_kind(address)}; give a cache such as DiskCache('.cache'), or the path of a folder"
        )
    text = os.fspath(address)
    if isinstance(address, str):
        if text.startswith("memory:") and not text.startswith("memory://"):
            from hypernodes._memory import named

            return named(text.removeprefix("memory:"))
        scheme = _SCHEME.match(text)
        if scheme:
            return _from_plugin(text, scheme[1])
    from hypernodes._disk import DiskCache
    from hypernodes._signing import VARIABLE  # hashing, which importing hypernodes is spared

    return DiskCache(text, signing_key=f"env:{VARIABLE}" if os.environ.get(VARIABLE) else None)


def _from_plugin(url: str, scheme: str) -> Cache:
    from hypernodes import _observers

    found = _observers.open_cache(url)
    if found is None:
        raise CacheError(
            f"no installed plugin opens the cache '{without_secrets(url)}'; "
            f"the one for '{scheme}://' and other stores comes with: pip install \"hypernodes[fsspec]\""
        )
    if not isinstance(found, Cache):
        raise CacheError(f"a plugin opened '{without_secrets(url)}' as {a_kind(found)}, which is no hypernodes.Cache")
    return found


def checked_cache(name: str, cache: object) -> Any:
    """The cache itself, where its address needs no plugin: a folder is the one that it is now."""
    if cache is None or cache is INHERIT or isinstance(cache, Cache):
        return cache
    if isinstance(cache, type) and issubclass(cache, Cache):
        raise NodeDefinitionError(
            f"pipeline '{name}': cache={cache.__name__} is a class; call it: {cache.__name__}(...)"
        )
    if not isinstance(cache, str | os.PathLike):
        raise NodeDefinitionError(
            f"pipeline '{name}': cache={cache!r} is no cache; give one, such as DiskCache('.cache'), the path of a "
            "folder, or None to switch caching off"
        )
    return cache if isinstance(cache, str) and "://" in cache else open_cache(cache)
