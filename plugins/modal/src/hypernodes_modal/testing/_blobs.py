"""Large values over HTTP, as the client sends and fetches them: blobs, and blocks of volumes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from aiohttp import web
from grpclib import Status

from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Blobs"]


class Blobs:
    """Serves the RPCs about blobs and the addresses that they answer with.

    Contents lie in the directory `content` under their checksums. A volume's files are read through `volume_file`.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.url = ""
        self.volume_file: Callable[[str, str], Any] = lambda volume_id, path: None
        self._runner: web.AppRunner | None = None
        self._contents = records.home / "content"
        self._blobs = records.home / "blobs"
        for folder in (self._contents, self._blobs):
            folder.mkdir(parents=True)

    async def open(self) -> None:
        site = web.Application(client_max_size=1 << 40)
        secret = f"/{secrets.token_hex(16)}"  # whoever knows an address may use it: nobody guesses these
        site.router.add_put(secret + "/blob/{id}", self._put_blob)
        site.router.add_get(secret + "/blob/{id}", self._get_blob)
        site.router.add_put(secret + "/block/{checksum}", self._put_block)
        site.router.add_get(secret + "/volume/{id}", self._get_range)
        self._runner = web.AppRunner(site, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{secret}"

    async def shut(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def content(self, checksum: str) -> Any:
        """Where the content with this SHA-256 lies, or would lie."""
        return self._contents / checksum

    def take(self, blob_id: str) -> bytes:
        path = self._blobs / blob_id
        if not path.exists():
            raise refuse(Status.NOT_FOUND, f"Blob '{blob_id}' not found")
        return bytes(path.read_bytes())

    async def BlobCreate(self, request: Any, caller: Caller) -> Any:
        blob_id = self.records.new_id("bl")
        url = f"{self.url}/blob/{blob_id}"
        urls = message("UploadUrlList", items=[url])
        return message("BlobCreateResponse", blob_id=blob_id, upload_url=url, blob_ids=[blob_id], upload_urls=urls)

    async def BlobGet(self, request: Any, caller: Caller) -> Any:
        if not (self._blobs / request.blob_id).exists():
            raise refuse(Status.NOT_FOUND, f"Blob '{request.blob_id}' not found")
        return message("BlobGetResponse", download_url=f"{self.url}/blob/{request.blob_id}")

    async def _put_blob(self, request: web.Request) -> web.Response:
        data = await request.read()
        (self._blobs / request.match_info["id"]).write_bytes(data)
        return web.Response(headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._blobs / request.match_info["id"])

    async def _put_block(self, request: web.Request) -> web.Response:
        data = await request.read()
        checksum = request.match_info["checksum"]
        if hashlib.sha256(data).hexdigest() != checksum:
            return web.Response(status=400, text="the content does not fit its checksum")
        self.content(checksum).write_bytes(data)
        return web.Response(text=checksum)

    async def _get_range(self, request: web.Request) -> web.Response:
        path = self.volume_file(request.match_info["id"], request.query["path"])
        start, length = int(request.query["start"]), int(request.query["len"])
        with open(path, "rb") as file:
            file.seek(start)
            return web.Response(body=file.read(length))
