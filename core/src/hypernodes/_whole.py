"""Files that are whole: readers see the old one or the new one, never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at every instant it is the old one or the new one. Raises `OSError`."""
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")  # 40 characters are at most 160 bytes
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        # Nobody knows the file beside it: name the one that was asked for.
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
