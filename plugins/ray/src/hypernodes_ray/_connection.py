"""The connection of this process to a cluster. Ray has one for each process, so it is shared and counted."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hypernodes import VersionMismatchError
from hypernodes.plugin import PlaceError
from hypernodes_ray._address import Address, probe

__all__ = ["Connection", "Wanted", "connect"]

_TOKEN = (
    "if the cluster authenticates by token, as local ones do since Ray 2.59, this process needs the same one: set "
    "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (`ray get-auth-token` shows it on the head node)"
)
STARTS = 3
"""How often a cluster is tried to be started: Ray gives it half a minute, which may be short on a busy machine."""
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, Ray stays on the loopback interface, as it does on a laptop's system by itself."""


class Wanted(NamedTuple):
    """What a backend asks for: a cluster at an address, or, without one, a local one made with these options."""

    address: Address | None
    init: Mapping[str, Any]
    runtime_env: Mapping[str, Any] | None
    log_to_driver: bool


class Connection:
    """One use of this process's connection. `brings_env` says that the connection itself brings the runtime_env."""

    def __init__(self, *, brings_env: bool) -> None:
        self.brings_env = brings_env

    def close(self) -> None:
        """The last one to close what was opened here, closes it; a session of the user's is left alone."""
        _leave()


class _Ours(NamedTuple):
    """What this module opened."""

    wanted: Wanted
    users: list[None]


_lock = threading.RLock()
_ours: _Ours | None = None
_before_exit: Callable[[], None] | None = None


def connect(wanted: Wanted) -> Connection:
    """Connect, or use the connection that is there. Raises `PlaceError` with what to do about it."""
    global _ours
    import ray

    with _lock:
        if _ours is not None and not ray.is_initialized():
            _ours = None  # somebody called ray.shutdown()
        if _ours is not None:
            _check_same(wanted, _ours.wanted)
            _ours.users.append(None)
            return Connection(brings_env=wanted.runtime_env == _ours.wanted.runtime_env)
        if ray.is_initialized():
            _check_theirs(wanted)
            return Connection(brings_env=wanted.runtime_env is None)
        address = wanted.address
        if address is None and os.environ.get("RAY_ADDRESS") and not wanted.init:
            from hypernodes_ray._address import address_of

            address = address_of(os.environ["RAY_ADDRESS"])
        _open(wanted, address)
        _ours = _Ours(wanted, [None])
        return Connection(brings_env=True)


def _open(wanted: Wanted, address: Address | None) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": wanted.log_to_driver, "logging_level": logging.ERROR, **wanted.init}
    if wanted.runtime_env is not None:
        options["runtime_env"] = dict(wanted.runtime_env)
    if address is None:
        options = {"include_dashboard": False, "address": "local", **options}
    else:
        probe(address)
        options["address"] = address.text
    for tries_left in reversed(range(1 if address is not None else STARTS)):
        try:
            with _loopback() if address is None else contextlib.nullcontext():
                ray.init(**options)
            return
        except BaseException as error:
            _give_up()
            # Ray ends the program where nothing answers. What else is no Exception stops this thread, as Ctrl-C does.
            if not isinstance(error, (Exception, SystemExit)):
                raise
            if not tries_left:
                raise _told(error, address) from error


def _give_up() -> None:
    """Let nothing stay of a connection that did not come about."""
    import ray

    with contextlib.suppress(Exception):
        ray.shutdown()


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """A cluster that is started in here listens on the loopback interface alone."""
    from ray._private import ray_constants

    before, set_before = os.environ.get(_LOOPBACK), getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    os.environ[_LOOPBACK] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = set_before
        if before is None:
            del os.environ[_LOOPBACK]
        else:
            os.environ[_LOOPBACK] = before


def _leave() -> None:
    global _ours
    import ray

    with _lock:
        if _ours is None:
            return
        _ours.users.pop()
        if _ours.users:
            return
        _ours = None
        if ray.is_initialized():
            ray.shutdown()


def _check_same(wanted: Wanted, open_: Wanted) -> None:
    if wanted._replace(runtime_env=None) == open_._replace(runtime_env=None):
        return
    raise PlaceError(
        f"this process has a Ray cluster open for a RayBackend with {_name(open_)}, and Ray connects to one at a time: "
        f"close that backend before one with {_name(wanted)} is used, or give both the same options"
    )


def _check_theirs(wanted: Wanted) -> None:
    """Whether the session that the user opened is the one that is asked for."""
    if wanted.init:
        raise PlaceError(
            f"RayBackend({', '.join(f'{name}={value!r}' for name, value in wanted.init.items())}) would start a "
            "cluster, and this process is connected to one already by ray.init(); leave these options out to use it, "
            "or call ray.shutdown() first"
        )
    if wanted.address is None or wanted.address.text == "auto":
        return
    there = _connected_to()
    if there is not None and wanted.address.text.removeprefix("ray://") not in there:
        raise PlaceError(
            f"this process is connected to the Ray cluster at '{there[0]}' by ray.init(), and Ray connects to one at a "
            f"time; leave the address out to use it, or call ray.shutdown() before '{wanted.address.text}' is needed"
        )


def _connected_to() -> list[str] | None:
    """The names of the cluster that this process is connected to, as far as they are known."""
    import ray

    client: Any = ray.util.client.ray  # whose functions say nothing of types
    if client.is_connected():
        return None
    context = ray.get_runtime_context().gcs_address
    port = context.rpartition(":")[2]
    return [context, f"localhost:{port}", f"127.0.0.1:{port}"]


def _name(wanted: Wanted) -> str:
    told = [] if wanted.address is None else [f"address={wanted.address.text!r}"]
    told += [f"{name}={value!r}" for name, value in wanted.init.items()]
    return ", ".join(told) or "no options"


def _told(error: BaseException, address: Address | None) -> PlaceError:
    """The error of a connection that did not come about, in words that say what to do."""
    text = str(error).strip()
    if address is None:
        return PlaceError(f"Ray could not start a cluster on this machine: {type(error).__name__}: {text}")
    import ray

    here = f"Python {'.'.join(map(str, sys.version_info[:3]))} and Ray {ray.__version__}"
    if "ersion mismatch" in text:
        return VersionMismatchError(
            f"the Ray cluster at '{address.text}' has other versions than this process, which has {here}; give both "
            f"the same ({' '.join(text.split())})"
        )
    if address.text == "auto":
        return PlaceError(
            f"no Ray cluster runs on this machine, or it cannot be reached: {text}; start one with "
            "`ray start --head`, or leave the address out, and RayBackend starts one"
        )
    if address.is_client and isinstance(error, (ImportError, AttributeError)):
        return PlaceError("addresses with ray:// need Ray's client: pip install 'hypernodes-ray[client]'")
    if "Traceback" in text:
        text = text.splitlines()[-1]  # its own, of which the last line says what
    return PlaceError(
        f"the Ray cluster at '{address.text}' answers, but Ray could not connect: {type(error).__name__}: {text}; it "
        f"must have what this process has, {here}, and {_TOKEN}"
    )


_closers: list[Callable[[], None]] = []


def at_exit(close: Callable[[], None]) -> None:
    """Have `close` called at the end of the program, before Ray's own exit function takes the cluster away."""
    if not _closers:
        atexit.register(_close_all)
    _closers.append(close)


def forget(close: Callable[[], None]) -> None:
    _closers.remove(close)


def _close_all() -> None:
    for close in list(_closers):
        close()
