"""Mounts and secrets: files and variables of the machine that containers are given."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpclib import Status

from hypernodes_modal.testing._blobs import Blobs
from hypernodes_modal.testing._records import Mount, Secret
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Mounts", "Secrets"]


class Mounts:
    """Serves the RPCs about mounts, and lays their files out for containers."""

    def __init__(self, records: Records, blobs: Blobs) -> None:
        self.records = records
        self._blobs = blobs
        self._laid_out: dict[str, Path] = {}

    async def MountBatchedCheckExistence(self, request: Any, caller: Caller) -> Any:
        missing = [one for one in request.sha256_hex_hashes if not self._blobs.content(one).exists()]
        return message("MountBatchedCheckExistenceResponse", missing_sha256_hex_hashes=missing)

    async def MountPutFile(self, request: Any, caller: Caller) -> Any:
        """Keep a file's content under its checksum. Without content this only asks whether it is known."""
        path = self._blobs.content(request.sha256_hex)
        which = request.WhichOneof("data_oneof")
        if which is not None and not path.exists():
            data = request.data if which == "data" else self._blobs.take(request.data_blob_id)
            if hashlib.sha256(data).hexdigest() != request.sha256_hex:
                raise refuse(Status.INVALID_ARGUMENT, "the content does not fit its checksum")
            path.write_bytes(data)
        return message("MountPutFileResponse", exists=path.exists())

    async def MountGetOrCreate(self, request: Any, caller: Caller) -> Any:
        """Make a mount of files, or answer for one that Modal itself keeps under a name: containers have those here."""
        files = {
            file.filename: (file.sha256_hex, file.mode if file.HasField("mode") else 0o644) for file in request.files
        }
        mount = self.records.mounts.new(lambda key: Mount(key, request.deployment_name, files))
        checksum = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        handle = message("MountHandleMetadata", content_checksum_sha256_hex=checksum)
        return message("MountGetOrCreateResponse", mount_id=mount.id, handle_metadata=handle)

    def lay_out(self, mount_id: str) -> Path:
        """The directory that holds the mount's files as from the root of a file system. It is made once."""
        known = self._laid_out.get(mount_id)
        if known is None:
            known = self._laid_out[mount_id] = self.records.home / "mounts" / mount_id
            for name, (checksum, mode) in self.records.mounts.get(mount_id).files.items():
                target = known / name.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._blobs.content(checksum), target)
                target.chmod(mode | 0o600)
            known.mkdir(parents=True, exist_ok=True)
        return known


def overlay(source: Path, target: Path) -> None:
    """Make everything in a directory visible in another: by links, and by real directories only where several meet.

    Linked and not copied, so that all containers share what Python compiles: 150 modules take 0.3 s each time.
    """
    for entry in os.scandir(source):
        place = target / entry.name
        if not place.is_symlink() and not place.exists():
            place.symlink_to(entry.path)
        elif entry.is_dir() and place.is_dir():
            if place.is_symlink():
                below = place.readlink()
                place.unlink()
                place.mkdir()
                overlay(below, place)
            overlay(Path(entry.path), place)
        elif not place.is_dir():
            place.unlink()
            place.symlink_to(entry.path)


class Secrets:
    """Serves the RPCs about secrets. Those given by name are there from the start."""

    def __init__(self, records: Records, named: Mapping[str, Mapping[str, str]]) -> None:
        self.records = records
        for name, values in named.items():
            secret = records.secrets.new(lambda key, n=name, v=values: Secret(key, n, dict(v)))  # type: ignore[misc]
            records.secrets.by_name["main", name] = secret

    async def SecretGetOrCreate(self, request: Any, caller: Caller) -> Any:
        secret = self.records.secrets.find(
            request, lambda key: Secret(key, request.deployment_name, dict(request.env_dict))
        )
        missing = [key for key in request.required_keys if key not in secret.values]
        if missing:
            raise refuse(Status.NOT_FOUND, f"Secret '{secret.name}' is missing key(s): {', '.join(missing)}")
        return message("SecretGetOrCreateResponse", secret_id=secret.id, metadata=self._metadata(secret))

    async def SecretGetInfo(self, request: Any, caller: Caller) -> Any:
        return message("SecretGetInfoResponse", metadata=self._metadata(self.records.secrets.get(request.secret_id)))

    async def SecretDelete(self, request: Any, caller: Caller) -> None:
        self.records.secrets.remove(request.secret_id)

    def _metadata(self, secret: Secret) -> Any:
        return message("SecretMetadata", name=secret.name, keys=sorted(secret.values))
