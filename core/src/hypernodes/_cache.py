"""What a cache is: values under keys, and what is known of each entry. Reading and writing never fail a run."""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypernodes._errors import CacheError, CacheWarning

__all__ = ["Cache", "Found", "Note", "bound_of", "found_in", "keep_in", "said"]

_saying = threading.Lock()


class Found(NamedTuple):
    """A hit; the value may be None."""

    value: Any


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of one entry without its value.

    `key` is the entry's key, `written` when it was saved, in seconds since 1970, `size` its length in bytes, and
    `facts` the note that `save` was given.
    """

    key: str
    written: float
    size: int
    facts: Mapping[str, Any]

    @property
    def node(self) -> str:
        """The node that made the value, or an empty string."""
        found = self.facts.get("node")
        return found if isinstance(found, str) else ""

    @property
    def code(self) -> Mapping[str, Any]:
        """The digest of each component of the node's code."""
        return self._mapping("code")

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The digest of what each parameter was given."""
        return self._mapping("inputs")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that the value holds."""
        found = self.facts.get("outputs")
        return tuple(map(str, found)) if isinstance(found, list | tuple) else ()

    def _mapping(self, name: str) -> Mapping[str, Any]:
        found = self.facts.get(name)
        return found if isinstance(found, Mapping) else {}


class Cache(ABC):
    """Where results are kept between runs. Subclass it to keep them elsewhere.

    A cache never fails a run. `load` and `save` raise nothing but KeyboardInterrupt: what goes wrong is a miss, or a
    value that is not kept, and one `CacheWarning` for each kind of trouble.
    """

    shared: bool = False
    """Whether other machines reach the same entries under the same `address`."""

    @property
    def address(self) -> str:
        """The text by which `open_cache` opens this cache elsewhere, or an empty string."""
        return ""

    @abstractmethod
    def load(self, key: str) -> Found | None:
        """The value saved under this key (64 hexadecimal digits), or None. Never a wrong one, never an exception."""

    @abstractmethod
    def save(self, key: str, value: Any, note: Mapping[str, Any]) -> bool:
        """Keep a value under a key. Whether it is kept, for others to load too; False comes with a warning.

        `note` is small, JSON-able and holds no values: `{"node": name, "code": {component: digest}, "inputs":
        {parameter: digest}, "outputs": [name]}`. It tells later why a key was not found.
        """

    def notes(self, node: str) -> Iterator[Note]:
        """What is known of the entries of this node, newest first. Nothing, unless a cache keeps notes."""
        return iter(())

    def close(self) -> None:  # noqa: B027 - most caches hold nothing open
        """Let go of what is held open. A cache may be used again afterwards."""

    def warn(self, kind: str, message: str) -> None:
        """Warn once for each kind of trouble in the life of this cache.

        Where warnings are errors it is logged instead: trouble with a cache never stops a run.
        """
        with _saying:
            said: set[str] = self.__dict__.setdefault("_said", set())
            if kind in said:
                return
            said.add(kind)
        try:
            warnings.warn(f"{self!r}: {message}", CacheWarning, stacklevel=3)
        except CacheWarning as warning:
            import logging

            logging.getLogger("hypernodes").warning("%s", warning)


def found_in(cache: Cache, key: str) -> Found | None:
    """What a cache has under a key. One that breaks its promise, and raises or gives something else, has nothing."""
    try:
        found = cache.load(key)
    except Exception as error:
        cache.warn("load raised", f"load() raised {said(error)}; values are computed again")
        return None
    if found is None or isinstance(found, Found):
        return found
    # A cache of somebody else's need not keep to types.
    cache.warn("load gave", f"load() gave {type(found).__name__}, not a Found; values are computed again")  # type: ignore[unreachable]
    return None


def keep_in(cache: Cache, key: str, value: Any, note: Mapping[str, Any]) -> None:
    """Have a cache keep a value; where it breaks its promise and raises, the value is not kept."""
    try:
        cache.save(key, value, note)
    except Exception as error:
        whose = f"the result of node '{note.get('node', '?')}'"
        cache.warn("save raised", f"{whose} is not kept: save() raised {said(error)}")


def bound_of(given: object, name: str, who: str) -> int | None:
    """A setting that bounds a cache: a whole number from 1 up, or None. Raises CacheError for anything else."""
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= 1):
        return given
    raise CacheError(f"{who}: {name} is {given!r}; give a whole number from 1 up")


def said(error: BaseException) -> str:
    """The type and message of an error, on one line and short enough for a warning."""
    try:
        text = " ".join(str(error).split())
    except Exception as unreadable:
        text = f"its message cannot be read: {type(unreadable).__name__}"
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
