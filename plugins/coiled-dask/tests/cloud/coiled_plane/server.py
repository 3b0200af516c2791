"""The control plane itself: an HTTP server on the loopback that keeps what it was asked."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from coiled_plane.certificate import Certificate
from coiled_plane.clusters import PlaneCluster
from coiled_plane.requests import Answer, Request
from coiled_plane.routes import NOT_FOUND, find

__all__ = ["TOKEN", "WORKSPACE", "ControlPlane"]

TOKEN = "loopback-token-0d9f3a"
WORKSPACE = "loopback"


class ControlPlane:
    """A running control plane. `close()` ends it and all machines that it started.

    `patience` is how many seconds it holds back the details of a cluster that is still starting. `worker_errors` are
    the reasons for which the first workers of the next cluster do not start. With `hold` clusters start for ever.
    """

    def __init__(self, folder: Path, *, token: str = TOKEN, workspace: str = WORKSPACE) -> None:
        self.folder = folder
        self.token = token
        self.workspace = workspace
        self.patience = 60.0
        self.worker_errors: list[str] = []
        self.hold = False
        self.requests: list[Request] = []
        self.clusters: list[PlaneCluster] = []
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        self._ids = itertools.count(1001)
        self._lock = threading.Lock()
        self._certificate = Certificate.make(folder)
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="coiled-plane")
        self._thread.start()

    # what tests ask --------------------------------------------------------------------------------------------------

    def asked(self, route: str) -> list[Request]:
        """The requests of this route so far, in order."""
        return [request for request in self.requests if request.route == route]

    @property
    def unknown(self) -> list[str]:
        """The requests that no route answers."""
        return [f"{request.method} {request.path}" for request in self.requests if not request.route]

    @property
    def payload(self) -> dict[str, Any]:
        """What the latest cluster was asked for with."""
        payload: dict[str, Any] = self.asked("create")[-1].body
        return payload

    @property
    def running(self) -> list[PlaneCluster]:
        """The clusters that are starting or ready."""
        return [cluster for cluster in self.clusters if cluster.look() in ("starting", "ready")]

    def answer(self, route: str, status: int, body: Any = None, times: int = 1) -> None:
        """Answer the next requests of this route so, instead of as usual."""
        self._answers[route].extend([Answer(body, status)] * times)

    # what routes do --------------------------------------------------------------------------------------------------

    def create(self, payload: dict[str, Any]) -> PlaneCluster:
        number = next(self._ids)
        folder = self.folder / f"cluster-{number}"
        folder.mkdir()
        cluster = PlaneCluster(number, payload["name"], payload, folder, self._certificate)
        with self._lock:
            errors, self.worker_errors = self.worker_errors, []
            self.clusters.append(cluster)
        if not self.hold:
            cluster.start(errors)
        return cluster

    def cluster(self, number: str) -> PlaneCluster:
        return next(cluster for cluster in self.clusters if cluster.id == int(number))

    def respond(self, request: Request, authorization: str | None) -> Answer:
        """The answer to one request, which is kept."""
        found = find(request.method, request.path)
        name = found[0] if found else ""
        request = Request(name, request.method, request.path, request.query, request.body, request.raw)
        with self._lock:
            self.requests.append(request)
            planned = self._answers[name].popleft() if self._answers[name] else None
        if found is None:
            return NOT_FOUND
        if name != "uploaded" and authorization not in (f"Token {self.token}", f"ApiToken {self.token}"):
            return Answer({"detail": "Invalid token."}, 401)
        return planned or found[1](self, request, found[2])

    # its life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the server and every machine."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for cluster in self.clusters:
            cluster.stop("the control plane has closed")

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # closing waits for what is being answered
    block_on_close = True

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no error; anything else is told as usual."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def _respond(self) -> None:
        raw = self._body()
        parts = urlsplit(self.path)
        is_json = "json" in self.headers.get("Content-Type", "")
        request = Request(
            route="",
            method=self.command,
            path=parts.path,
            query=parse_qs(parts.query),
            body=json.loads(raw) if is_json and raw else None,
            raw=raw,
        )
        answer = self.server.plane.respond(request, self.headers.get("Authorization"))
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _respond

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_: object) -> None:
        """Say nothing: the plane keeps the requests."""
