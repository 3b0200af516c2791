"""The cache."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from hypernodes.plugin import BytesCache, CacheError, Found, Kept, SigningKey, signing_key_of

__all__ = ["FsspecCache", "cache_at", "is_known"]

KEY_VARIABLE = "HYPERNODES_CACHE_KEY"
UNSIGNED = "#unsigned"
"""At the end of an address: as `unsigned=True`."""
WHOLE_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "adl", "oci", "oss", "tos", "memory"})
"""Protocols whose stores show an object when all of it has come, so that no temporary name is needed."""
REST = 30.0
"""Seconds for which a store that failed is left alone: a run of many items must not wait for it at every one."""
SUFFIX = ".tmp"
STALE = 3600.0


class FsspecCache(BytesCache):
    """Keeps entries in any store that fsspec reaches: `FsspecCache("s3://bucket/prefix", signing_key=...)`.

    Machines that reach the store share its entries. Entries are pickles, so they are signed: `signing_key` is bytes or
    text of 16 bytes or more, or `"env:NAME"`. `unsigned=True` does without, for a store to which only you can write.
    `storage_options` go to the file system. A store that fails is left alone for half a minute, with one warning.

    Pickles and `address` hold neither key nor options: elsewhere the key comes from the environment, and the options
    from wherever the file system finds them.

    Raises CacheError when the address has no scheme, or neither `signing_key` nor `unsigned=True` is given.
    """

    shared = True

    def __init__(
        self,
        url: str,
        *,
        signing_key: SigningKey | bytes | str | None = None,
        unsigned: bool = False,
        **storage_options: Any,
    ) -> None:
        if not is_address(url):
            raise CacheError(f"FsspecCache takes an address such as 's3://bucket/prefix', not {url!r}")
        who = f"FsspecCache('{_shown(url)}')"
        self.signing_key = signing_key_of(signing_key, who)
        if unsigned and self.signing_key is not None:
            raise CacheError(f"{who}: give signing_key or unsigned=True, not both")
        if not unsigned and self.signing_key is None:
            raise CacheError(
                f"{who} has no signing key. Its entries are pickles: who may write to the store could run code here. "
                "Give signing_key='env:HYPERNODES_CACHE_KEY', or unsigned=True if only you can write there"
            )
        self._set(url.rstrip("/"), unsigned, storage_options)

    def _set(self, url: str, unsigned: bool, options: Mapping[str, Any]) -> None:
        self.url = url
        self.unsigned = unsigned
        self.storage_options = dict(options)
        self.trouble = ""
        self._rests_until = 0.0

    @property
    def address(self) -> str:
        return self.url + (UNSIGNED if self.unsigned else "")

    @cached_property
    def _store(self) -> tuple[Any, str]:
        """The file system, and the path of the cache in it."""
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(self.url, **self.storage_options)
        return found[0], found[1].rstrip("/")

    @cached_property
    def _whole(self) -> bool:
        protocol = self._store[0].protocol
        return not WHOLE_OBJECTS.isdisjoint({protocol} if isinstance(protocol, str) else protocol)

    def load(self, key: str) -> Found | None:
        if self._off():
            return None
        return super().load(key)

    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        return not self._off() and super().save(key, value, note)

    def read(self, key: str, most: int | None = None) -> tuple[bytes | bytearray, int] | None:
        try:
            files, root = self._store
            path = f"{root}/{key[:2]}/{key}"
            if most is None:
                data: bytes = files.cat_file(path)
                return data, len(data)
            size = files.size(path)
            return files.cat_file(path, start=0, end=min(most, size)), size
        except FileNotFoundError:
            return None
        except Exception:
            self._rest()
            raise

    def write(self, key: str, parts: Sequence[bytes | memoryview], size: int) -> None:
        try:
            files, root = self._store
            path = f"{root}/{key[:2]}/{key}"
            if self._whole:
                self._put(files, path, parts)
                return
            files.makedirs(f"{root}/{key[:2]}", exist_ok=True)
            passing = f"{path}.{secrets.token_hex(8)}{SUFFIX}"
            try:
                self._put(files, passing, parts)
                files.mv(passing, path)
            except BaseException:
                try:
                    files.rm_file(passing)
                except Exception:
                    pass  # it is no entry, and `sweep` drops it
                raise
        except Exception:
            self._rest()
            raise

    @staticmethod
    def _put(files: Any, path: str, parts: Sequence[bytes | memoryview]) -> None:
        if len(parts) == 1:
            files.pipe_file(path, bytes(parts[0]))
            return
        with files.open(path, "wb") as target:
            for part in parts:
                target.write(part)

    def kept(self) -> Iterator[Kept]:
        files, root = self._store
        files.invalidate_cache()
        try:
            found = files.find(root, detail=True)
        except FileNotFoundError:
            return
        for path, facts in found.items():
            name = path.rpartition("/")[2]
            if len(name) == 64:
                yield Kept(name, int(facts.get("size") or 0), _seconds(facts))

    def delete(self, key: str) -> None:
        files, root = self._store
        try:
            files.rm_file(f"{root}/{key[:2]}/{key}")
        except FileNotFoundError:
            pass

    def sweep(self) -> None:
        files, root = self._store
        oldest = time.time() - STALE
        for path, facts in files.find(root, detail=True).items():
            if path.endswith(SUFFIX) and _seconds(facts) < oldest:
                files.rm_file(path)

    def _off(self) -> bool:
        if self.trouble:
            self.warn("off", f"nothing is read from it or kept in it: {self.trouble}")
            return True
        return time.monotonic() < self._rests_until

    def _rest(self) -> None:
        self._rests_until = time.monotonic() + REST

    def _settings(self) -> tuple[Any, ...]:
        return self.url, self.signing_key, self.unsigned

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FsspecCache):
            return NotImplemented
        return self._settings() == other._settings() and self.storage_options == other.storage_options

    def __hash__(self) -> int:
        return hash(self._settings())

    def __repr__(self) -> str:
        settings = [repr(_shown(self.url)), "unsigned=True" if self.unsigned else "signing_key=***"]
        settings += [f"{name}=***" for name in self.storage_options]
        return f"FsspecCache({', '.join(settings)})"

    def __reduce__(self) -> tuple[Callable[..., FsspecCache], tuple[Any, ...]]:
        return _elsewhere, (self.url, self.unsigned, self.signing_key and self.signing_key.variable)


def is_address(url: object) -> bool:
    return isinstance(url, str) and "://" in url


def is_known(url: str) -> bool:
    """Whether fsspec has a file system for the scheme of this address."""
    from fsspec.registry import get_filesystem_class, known_implementations, registry

    scheme = url.partition("://")[0].partition("::")[0]
    if scheme in registry or scheme in known_implementations:
        return True
    try:
        get_filesystem_class(scheme)  # one that a package of its own brings
    except (ValueError, ImportError):
        return False
    return True


def cache_at(url: str) -> FsspecCache:
    """The cache at an address that is text alone: its key is in the environment, or it ends in `#unsigned`."""
    if url.endswith(UNSIGNED):
        return FsspecCache(url.removesuffix(UNSIGNED), unsigned=True)
    if not os.environ.get(KEY_VARIABLE):
        raise CacheError(
            f"a cache that is opened by its address needs its key in the environment variable '{KEY_VARIABLE}'; "
            f"or add '{UNSIGNED}' to the address if only you can write there"
        )
    return FsspecCache(url, signing_key=f"env:{KEY_VARIABLE}")


def _elsewhere(url: str, unsigned: bool, variable: str | None) -> FsspecCache:
    """A cache that came from another process. A key that is missing here is told when it is used."""
    made = FsspecCache.__new__(FsspecCache)
    made._set(url, unsigned, {})
    if variable:
        try:
            made.signing_key = signing_key_of(f"env:{variable}", "it came from another process")
        except CacheError as error:
            made.trouble = str(error)
    return made


def _shown(url: str) -> str:
    """The address without a user and password."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{'...@' if '@' in host else ''}{host.rpartition('@')[2]}{slash}{path}"


def _seconds(facts: Mapping[str, Any]) -> float:
    """When a file was last written, in seconds since 1970, as far as its file system says."""
    for name in ("mtime", "LastModified", "last_modified", "modified", "updated", "created"):
        found = facts.get(name)
        if isinstance(found, int | float):
            return float(found)
        if isinstance(found, str):
            try:
                found = datetime.fromisoformat(found)
            except ValueError:
                continue
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return 0.0
