"""Volumes of both versions, as directories of this machine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._blobs import Blobs
from hypernodes_modal.testing._links import Links
from hypernodes_modal.testing._records import Volume
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Volumes"]

BLOCK = 8 * 1024 * 1024
"""Bytes in which files of a volume are sent and fetched."""


class Volumes:
    """Serves the RPCs about volumes. Containers share a volume's directory; commits and reloads are counted."""

    def __init__(self, records: Records, blobs: Blobs, links: Links) -> None:
        self.records, self._blobs, self._links = records, blobs, links
        blobs.volume_file = lambda volume_id, path: self._path(volume_id, path)

    def check(self, definition: Any) -> None:
        """Refuse a function that cannot have its volumes where it wants them on this machine."""
        for mount in definition.volume_mounts:
            if not Path(mount.mount_path).is_relative_to("/root"):
                try:
                    self._links.check(Path(mount.mount_path))
                except ValueError as error:
                    raise refuse(Status.INVALID_ARGUMENT, str(error)) from error

    def link(self, mount: Any, root: Path, container_id: str) -> None:
        """Make a volume visible where a container mounts it: paths below /root are in the container's own too."""
        source, path = self.records.volumes.get(mount.volume_id).path, Path(mount.mount_path)
        if getattr(mount, "sub_path", ""):
            source = source / mount.sub_path.lstrip("/")
            source.mkdir(parents=True, exist_ok=True)
        if path.is_relative_to("/root"):
            own = root / path.relative_to("/root")
            own.parent.mkdir(parents=True, exist_ok=True)
            own.symlink_to(source)
            try:
                self._links.place(path, source, container_id)
            except ValueError:
                return  # the machine's own /root is not ours; the container's working directory has it
        else:
            self._links.place(path, source, container_id)

    # volumes ----------------------------------------------------------------------------------------------------

    async def VolumeGetOrCreate(self, request: Any, caller: Caller) -> Any:
        def build(volume_id: str) -> Volume:
            path = self.records.home / "volumes" / volume_id
            path.mkdir(parents=True)
            return Volume(volume_id, request.deployment_name, path, request.version or 1)

        volume = self.records.volumes.find(request, build)
        return message(
            "VolumeGetOrCreateResponse", volume_id=volume.id, version=volume.version, metadata=self._metadata(volume)
        )

    async def VolumeGetById(self, request: Any, caller: Caller) -> Any:
        volume = self.records.volumes.get(request.volume_id)
        return message("VolumeGetByIdResponse", volume_id=volume.id, metadata=self._metadata(volume))

    async def VolumeHeartbeat(self, request: Any, caller: Caller) -> None:
        self.records.volumes.get(request.volume_id)

    async def VolumeCommit(self, request: Any, caller: Caller) -> Any:
        self.records.volumes.get(request.volume_id).commits += 1
        return message("VolumeCommitResponse", skip_reload=False)

    async def VolumeReload(self, request: Any, caller: Caller) -> None:
        self.records.volumes.get(request.volume_id).reloads += 1

    async def VolumeDelete(self, request: Any, caller: Caller) -> None:
        shutil.rmtree(self.records.volumes.remove(request.volume_id).path)

    async def VolumeRename(self, request: Any, caller: Caller) -> None:
        volume = self.records.volumes.get(request.volume_id)
        names = self.records.volumes.by_name
        for key in [key for key, named in names.items() if named is volume]:
            names[key[0], request.name] = names.pop(key)
        volume.name = request.name

    async def VolumeList(self, request: Any, caller: Caller) -> Any:
        items = [
            message("VolumeListItem", label=volume.name, volume_id=volume.id, metadata=self._metadata(volume))
            for volume in self.records.volumes.by_name.values()
        ]
        return message("VolumeListResponse", items=items, environment_name=request.environment_name)

    def _metadata(self, volume: Volume) -> Any:
        return message("VolumeMetadata", version=volume.version, name=volume.name)

    # files ------------------------------------------------------------------------------------------------------

    def _path(self, volume_id: str, path: str) -> Path:
        """A path in a volume. It must not lead out of it."""
        home = self.records.volumes.get(volume_id).path
        found = home / path.lstrip("/")
        if not found.resolve().is_relative_to(home.resolve()):
            raise refuse(Status.INVALID_ARGUMENT, f"'{path}' leads out of the volume")
        return found

    def _existing(self, volume_id: str, path: str) -> Path:
        found = self._path(volume_id, path)
        if not found.exists():
            raise refuse(Status.NOT_FOUND, f"No such file or directory: '{path}'")
        return found

    def _new(self, volume_id: str, path: str, keep: bool) -> Path:
        target = self._path(volume_id, path)
        if keep and target.exists():
            raise refuse(Status.ALREADY_EXISTS, f"{path}: already exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    async def VolumePutFiles(self, request: Any, caller: Caller) -> None:
        keep = request.disallow_overwrite_existing_files
        targets = [self._new(request.volume_id, file.filename, keep) for file in request.files]
        for file, target in zip(request.files, targets, strict=True):
            shutil.copyfile(self._blobs.content(file.sha256_hex), target)

    async def VolumePutFiles2(self, request: Any, caller: Caller) -> Any:
        """Put files together of blocks, or name the blocks that are missing."""
        missing = [
            message("VolumePutFiles2Response").MissingBlock(
                file_index=number, block_index=position, put_url=f"{self._blobs.url}/block/{checksum}"
            )
            for number, file in enumerate(request.files)
            for position, checksum in enumerate(block.contents_sha256.hex() for block in file.blocks)
            if not self._blobs.content(checksum).exists()
        ]
        if not missing:
            keep = request.disallow_overwrite_existing_files
            targets = [self._new(request.volume_id, file.path, keep) for file in request.files]
            for file, target in zip(request.files, targets, strict=True):
                with target.open("wb") as out:
                    for block in file.blocks:
                        out.write(self._blobs.content(block.contents_sha256.hex()).read_bytes())
                    out.truncate(file.size)
        return message("VolumePutFiles2Response", missing_blocks=missing)

    async def VolumeGetFile2(self, request: Any, caller: Caller) -> Any:
        size = self._file(request).stat().st_size
        start = min(request.start, size)
        length = min(request.len or size, size - start)
        urls = [
            f"{self._blobs.url}/volume/{request.volume_id}?"
            + urlencode({"path": request.path, "start": at, "len": min(BLOCK, start + length - at)})
            for at in range(start, start + length, BLOCK)
        ]
        return message("VolumeGetFile2Response", get_urls=urls, size=size, start=start, len=length)

    async def VolumeGetFile(self, request: Any, caller: Caller) -> Any:
        data = self._file(request).read_bytes()
        part = data[request.start : request.start + (request.len or len(data))]
        return message("VolumeGetFileResponse", data=part, size=len(data), start=request.start, len=len(part))

    def _file(self, request: Any) -> Path:
        found = self._existing(request.volume_id, request.path)
        if not found.is_file():
            raise refuse(Status.INVALID_ARGUMENT, f"'{request.path}' is not a file")
        return found

    async def VolumeListFiles(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        yield message("VolumeListFilesResponse", entries=self._entries(request))

    async def VolumeListFiles2(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        yield message("VolumeListFiles2Response", entries=self._entries(request))

    def _entries(self, request: Any) -> list[Any]:
        home = self.records.volumes.get(request.volume_id).path
        found = self._existing(request.volume_id, request.path)
        if found.is_file():
            paths = [found]
        else:
            paths = sorted(found.rglob("*") if request.recursive else found.iterdir())
        entries = [self._entry(home, path) for path in paths]
        return entries[: request.max_entries] if request.HasField("max_entries") else entries

    def _entry(self, home: Path, path: Path) -> Any:
        types, known = api_pb2.FileEntry, path.stat()
        kind = types.DIRECTORY if path.is_dir() else types.FILE
        where = path.relative_to(home).as_posix()
        return message("FileEntry", path=where, type=kind, mtime=int(known.st_mtime), size=known.st_size)

    async def VolumeRemoveFile(self, request: Any, caller: Caller) -> None:
        found = self._existing(request.volume_id, request.path)
        if not found.is_dir():
            found.unlink()
        elif request.recursive:
            shutil.rmtree(found)
        else:
            raise refuse(Status.INVALID_ARGUMENT, f"'{request.path}' is a directory: remove it recursively")

    async def VolumeRemoveFile2(self, request: Any, caller: Caller) -> None:
        await self.VolumeRemoveFile(request, caller)

    async def VolumeCopyFiles(self, request: Any, caller: Caller) -> None:
        target = self._path(request.volume_id, request.dst_path)
        for name in request.src_paths:
            source = self._existing(request.volume_id, name)
            into = target / source.name if target.is_dir() or len(request.src_paths) > 1 else target
            into.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, into, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, into)

    async def VolumeCopyFiles2(self, request: Any, caller: Caller) -> None:
        await self.VolumeCopyFiles(request, caller)
