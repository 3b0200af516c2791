"""Links that make a volume or a mounted file visible under the path that a container was promised.

Containers share this machine's file system, so the path itself is made, as a link, and taken away again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["Links"]


class Links:
    """The links that were made, and which containers need them."""

    def __init__(self) -> None:
        self._made: dict[Path, Path] = {}
        self._users: dict[Path, set[str]] = {}
        self._folders: list[Path] = []

    def check(self, target: Path) -> None:
        """Raise ValueError if there is something of the machine's own at this path."""
        if target not in self._made and (target.is_symlink() or target.exists()):
            raise ValueError(
                f"LocalModal cannot mount anything at '{target}': containers share this machine's file system, and "
                "there is something at that path already. Mount under a path that is free, such as one in a "
                "temporary directory"
            )

    def place(self, target: Path, source: Path, user: str) -> None:
        """Let a path lead to a directory or file, until the container with this id has ended or another needs it."""
        self.check(target)
        if target in self._made and self._made[target] != source:
            if self._users[target]:
                raise ValueError(
                    f"LocalModal cannot mount two things at '{target}' at once: another container has "
                    f"'{self._made[target].name}' there"
                )
            self._remove(target)
        if target not in self._made:
            try:
                self._make_folder(target.parent)
                target.symlink_to(source)
            except OSError as error:
                raise ValueError(
                    f"LocalModal cannot mount anything at '{target}': {error.strerror}. "
                    "Mount under a path that you may write to, such as one in a temporary directory"
                ) from error
            self._made[target] = source
        self._users.setdefault(target, set()).add(user)

    def overlay(self, source: Path, target: Path, user: str) -> None:
        """Make everything in a directory visible below a path of the machine."""
        for entry in source.iterdir():
            place = target / entry.name
            if place.is_dir() and place not in self._made and entry.is_dir():
                self.overlay(entry, place, user)
            else:
                self.place(place, entry, user)

    def release(self, user: str) -> None:
        for users in self._users.values():
            users.discard(user)

    def shut(self) -> None:
        for target in list(self._made):
            self._remove(target)
        for folder in reversed(self._folders):
            with suppress(OSError):  # somebody has put something else there meanwhile
                folder.rmdir()

    def _remove(self, target: Path) -> None:
        del self._made[target]
        with suppress(FileNotFoundError):
            target.unlink()

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir()
            self._folders.append(folder)
