"""What workers must know and nobody else: environment variables whose values are shown nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Secrets", "secrets_of"]


class Secrets:
    """Environment variables for workers, by name; the values are given here, or taken from the environment when needed.

    Its repr and its pickle hold names alone. Two are equal if their names and given values are.
    """

    __slots__ = ("_given", "names")

    def __init__(self, names: Iterable[str], given: Mapping[str, str] | None = None) -> None:
        self.names = tuple(sorted(names))
        self._given = dict(given or {})

    def reveal(self) -> dict[str, str]:
        """Names and values. Raises ValueError naming those that the environment does not have."""
        missing = [name for name in self.names if name not in self._given and name not in os.environ]
        if missing:
            raise ValueError(
                f"CoiledBackend: secrets={missing!r} are taken from the environment, which has no such variable; "
                "set it, or give the value: secrets={'NAME': value}"
            )
        return {name: self._given[name] if name in self._given else os.environ[name] for name in self.names}

    def __bool__(self) -> bool:
        return bool(self.names)

    def __repr__(self) -> str:
        return f"<secrets: {', '.join(self.names) or 'none'}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secrets) and (self.names, self._given) == (other.names, other._given)

    def __hash__(self) -> int:
        return hash(self.names)

    def __reduce__(self) -> tuple[Any, ...]:
        # Over there they are in the environment, where a worker has got them.
        return Secrets, (self.names,)


def secrets_of(value: object) -> Secrets:
    """The secrets that a user gave: a dict of names and values, or names of environment variables.

    Raises TypeError or ValueError, whose message names what is wrong and holds no value.
    """
    if value is None:
        return Secrets(())
    if isinstance(value, Secrets):
        return value
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(
            f"CoiledBackend: secrets= takes names of environment variables, ['OPENAI_API_KEY'], or names and values, "
            f"{{'OPENAI_API_KEY': value}}, and got a {type(value).__name__}"
        )
    given = value if isinstance(value, Mapping) else {}
    names = list(value)
    for name in names:
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            # not shown: who mixes up names and values has put a value here
            raise ValueError("CoiledBackend: secrets= holds a name that no environment variable can have")
    for name, text in given.items():
        if not isinstance(text, str):
            raise TypeError(f"CoiledBackend: secrets= gives '{name}' a {type(text).__name__}; it must be text")
    found = Secrets(names, given)
    found.reveal()
    return found
