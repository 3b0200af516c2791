"""The client of this process: the variables that it reads, and its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["close", "close_default_client", "exported"]


@contextlib.contextmanager
def exported(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables of this process, and put back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def close_default_client() -> None:
    """Close the client that `modal` keeps for the process. The next use makes one for the address of that time."""
    import modal

    close(modal.Client.from_env())


def close(client: Any) -> None:
    client.__exit__(None, None, None)  # older clients have no `close`
