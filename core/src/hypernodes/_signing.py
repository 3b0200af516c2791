"""The key that signs a cache's entries. It is never shown, never pickled and never written."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from hypernodes._errors import CacheError, a_kind

__all__ = ["VARIABLE", "SigningKey", "signing_key_of"]

VARIABLE = "HYPERNODES_CACHE_KEY"
"""The environment variable that holds the key of caches opened by address, and of those that were pickled."""

SHORTEST = 16


class SigningKey:
    """A secret that makes and checks signatures. Its pickle says where to find the secret, and does not hold it."""

    __slots__ = ("_secret", "variable")

    def __init__(self, secret: bytes, variable: str = VARIABLE) -> None:
        self._secret = secret
        self.variable = variable

    def sign(self, content: bytes) -> bytes:
        """HMAC-SHA-256, 32 bytes."""
        return hmac.digest(self._secret, content, "sha256")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SigningKey):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(hashlib.sha256(self._secret).digest())

    def __repr__(self) -> str:
        return "SigningKey(***)"

    def __reduce__(self) -> tuple[Callable[[str], SigningKey], tuple[str]]:
        return _from_environment, (self.variable,)


def signing_key_of(given: SigningKey | bytes | str | None, who: str) -> SigningKey | None:
    """The key that a user gave: bytes or text that are the key, or `"env:NAME"`, the variable that holds it.

    Raises CacheError, without the key, when it is too short or the variable is not set; `who` begins the sentence.
    """
    if given is None or isinstance(given, SigningKey):
        return given
    if isinstance(given, str) and given.startswith("env:"):
        return _from_environment(given.removeprefix("env:"), who)
    if not isinstance(given, bytes | bytearray | str):
        raise CacheError(f"{who}: signing_key is {a_kind(given)}; give bytes, text, or 'env:NAME'")
    return _checked(given, VARIABLE, f"{who}: signing_key")


def _from_environment(name: str, who: str = "a signed cache that came from another process") -> SigningKey:
    found = os.environ.get(name)
    if not found:
        raise CacheError(f"{who}: its signing key is looked for in the environment variable '{name}', which is not set")
    return _checked(found, name, f"{who}: the environment variable '{name}'")


def _checked(given: bytes | bytearray | str, variable: str, what: str) -> SigningKey:
    secret = given.encode() if isinstance(given, str) else bytes(given)
    if len(secret) < SHORTEST:
        raise CacheError(
            f"{what} has {len(secret)} bytes, and a signing key needs {SHORTEST} at the least; "
            "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return SigningKey(secret, variable)
