"""The routes that the client calls: which there are, and what each answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coiled_plane.requests import Answer, Request
from coiled_plane.vm_types import search

if TYPE_CHECKING:
    from coiled_plane.server import ControlPlane

__all__ = ["ROUTES", "find"]

Handler = Callable[["ControlPlane", Request, dict[str, str]], Answer]
ROUTES: list[tuple[str, str, re.Pattern[str], Handler]] = []


def find(method: str, path: str) -> tuple[str, Handler, dict[str, str]] | None:
    """The route of a request: its name, what answers it, and what stands in its path."""
    for name, of_method, pattern, handler in ROUTES:
        if of_method == method and (match := pattern.fullmatch(path)):
            return name, handler, match.groupdict()
    return None


def route(name: str, method: str, path: str) -> Callable[[Handler], Handler]:
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def enter(handler: Handler) -> Handler:
        ROUTES.append((name, method, pattern, handler))
        return handler

    return enter


NOT_FOUND = Answer({"detail": "Not found."}, 404)

# the user ----------------------------------------------------------------------------------------------------------


@route("user", "GET", "/api/v2/user/me")
def user(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({"username": "ada", "email": "ada@loopback"})


@route("memberships", "GET", "/api/v2/user/me/memberships")
def memberships(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    account = {"slug": plane.workspace, "name": plane.workspace, "active": True}
    return Answer([{"account": account, "is_admin": True, "is_default_account": True}])


@route("config", "GET", "/api/v2/user/workspace/{workspace}/dask-config-overrides")
def config(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({})


@route("provider", "GET", "/api/v1/{workspace}/backend_options/")
def provider(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({"backend": "vm_aws", "options": {}})


@route("vm-types", "GET", "/api/v1/vm-types/")
def vm_types(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({"results": search(request.query), "next": None})


@route("login", "POST", "/api/v1/api-tokens-no-user/")
def login(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    """How the client asks for a token by way of a browser. Tests hold that it never does."""
    return NOT_FOUND


# clusters ----------------------------------------------------------------------------------------------------------

_CLUSTER = "/api/v2/clusters/account/{workspace}/id/{id}"
_WORKERS = "/api/v2/workers/account/{workspace}/cluster/{id}/"


@route("create", "POST", "/api/v2/clusters/account/{workspace}/")
def create(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    cluster = plane.create(request.body)
    return Answer({"id": cluster.id, "existing": False, "name": cluster.name})


@route("by-name", "GET", "/api/v2/clusters/account/{workspace}/name/{name}")
def by_name(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    for cluster in plane.clusters:
        if cluster.name == found["name"] and cluster.look() in ("starting", "ready"):
            return Answer({"id": cluster.id, "name": cluster.name})
    return NOT_FOUND


@route("details", "GET", _CLUSTER)
def details(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    cluster = plane.cluster(found["id"])
    cluster.settle(plane.patience)  # the client waits a second before it asks again
    return Answer(cluster.describe())


@route("state", "GET", _CLUSTER + "/state")
def state(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({"state": plane.cluster(found["id"]).look()})


@route("states", "GET", _CLUSTER + "/states")
def states(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    cluster = plane.cluster(found["id"])
    now = cluster.describe()["current_state"]
    return Answer({"cluster": [{**now, "stateful_object": {"name": cluster.name}}]})


@route("delete", "DELETE", _CLUSTER)
def delete(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    cluster = plane.cluster(found["id"])
    cluster.deleted = True
    cluster.stop("deleted")
    return Answer({})


@route("workers", "GET", _WORKERS)
def workers(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    cluster = plane.cluster(found["id"])
    first, limit = int(request.query["offset"][0]), int(request.query["limit"][0])
    return Answer([cluster.process(worker) for worker in cluster.workers[first : first + limit]])


@route("scale-up", "POST", _WORKERS)
def scale_up(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    cluster = plane.cluster(found["id"])
    return Answer([cluster.process(worker) for worker in cluster.add_workers(request.body["n_workers"])])


@route("scale-down", "DELETE", _WORKERS)
def scale_down(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    plane.cluster(found["id"]).remove_workers(request.query.get("name", []))
    return Answer({})


@route("event", "POST", "/api/v2/clusters/id/{id}/event")
def event(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({})


@route("interaction", "POST", "/api/v2/interactions/interaction")
def interaction(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({})


# software ----------------------------------------------------------------------------------------------------------

_SOFTWARE = "/api/v2/software-environment"


@route("packages", "GET", "/api/v2/packages/")
def packages(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer([])


@route("approximate", "POST", _SOFTWARE + "/approximate-packages")
def approximate(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    """Every package as the client has it, none in error."""
    return Answer([_resolved(package) for package in request.body["packages"] if not package["wheel_target"]])


def _resolved(package: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": package["name"],
        "conda_name": package["conda_name"],
        "channel_url": None,
        "client_version": package["version"],
        "specifier": f"=={package['version']}",
        "include": True,
        "note": None,
        "error": None,
    }


@route("upload", "POST", _SOFTWARE + "/account/{workspace}/package-upload")
def upload(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    url = f"{plane.url}/upload/{request.body['name']}"
    return Answer({"id": len(plane.requests), "should_upload": True, "upload_url": url})


@route("uploaded", "PUT", "/upload/{name}")
def uploaded(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({})


@route("environment", "POST", _SOFTWARE + "/account/{workspace}")
def environment(plane: ControlPlane, request: Request, found: dict[str, str]) -> Answer:
    return Answer({"id": 7, "name": request.body["name"] or "package-sync-7", "latest_spec": None})
