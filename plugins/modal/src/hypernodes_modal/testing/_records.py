"""What the control plane knows: apps, functions, images and the rest, as tests may look at them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._bell import Bell
from hypernodes_modal.testing._rpc import refuse

if TYPE_CHECKING:
    import asyncio

    from hypernodes_modal.testing._calls import Input
    from hypernodes_modal.testing._rpc import Endpoint

__all__ = [
    "App",
    "Container",
    "Function",
    "Image",
    "LogLine",
    "Mount",
    "NamedDict",
    "NamedQueue",
    "Records",
    "Secret",
    "Shelf",
    "Volume",
]

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class LogLine:
    """A piece of what a container wrote: the stream is 1 for stdout and 2 for stderr."""

    container: str
    stream: int
    text: str
    at: float


@dataclass
class App:
    """An app, running, deployed or stopped."""

    id: str
    name: str
    environment: str
    state: Literal["ephemeral", "detached", "initializing", "deployed", "stopped"] = "ephemeral"
    tags: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    heartbeat: float = field(default_factory=time.monotonic)
    logs: list[LogLine] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell, repr=False)

    @property
    def stopped(self) -> bool:
        return self.state == "stopped"


@dataclass
class Function:
    """A function of an app, or a variant of one: `definition` is the message `Function` as the client sent it."""

    id: str
    app: App
    name: str
    definition: Any = field(default_factory=api_pb2.Function, repr=False)
    handle: Any = field(default=None, repr=False)
    base: str = ""
    parameters: bytes = field(default=b"", repr=False)
    pending: deque[Input] = field(default_factory=deque, repr=False)
    bell: Bell = field(default_factory=Bell, repr=False)
    failed_starts: int = 0

    @property
    def resources(self) -> Any:
        """What was asked for, as it arrived: `memory_mb`, `milli_cpu`, `gpu_config`."""
        return self.definition.resources

    @property
    def gpu(self) -> str:
        """The GPU as it arrived, such as `"A100"` or `"H100:2"`; empty without one."""
        config = self.definition.resources.gpu_config
        return f"{config.gpu_type}:{config.count}" if config.count > 1 else str(config.gpu_type)

    @property
    def timeout(self) -> int:
        """Seconds that one attempt may take, 300 where nothing was said."""
        return int(self.definition.timeout_secs) or 300

    @property
    def settings(self) -> Any:
        """What the autoscaler was told: `min_containers`, `max_containers`, `buffer_containers`, `scaledown_window`."""
        return self.definition.autoscaler_settings


@dataclass
class Image:
    """An image, recorded and not built: the commands of its layers, the first layer first."""

    id: str
    commands: tuple[str, ...]
    python: str
    environment: dict[str, str]
    secrets: tuple[str, ...] = ()
    definition: Any = field(default=None, repr=False)


@dataclass
class Mount:
    """Files of the machine for containers: where each goes, and the checksum of its content."""

    id: str
    name: str
    files: dict[str, tuple[str, int]]


@dataclass
class Secret:
    id: str
    name: str
    values: dict[str, str] = field(repr=False)


@dataclass
class Volume:
    """A volume. `path` is its directory on this machine."""

    id: str
    name: str
    path: Path
    version: int
    commits: int = 0
    reloads: int = 0


@dataclass
class NamedDict:
    """A dict: keys and values are the bytes that the client sent."""

    id: str
    name: str
    entries: dict[bytes, bytes] = field(default_factory=dict, repr=False)


@dataclass
class NamedQueue:
    """A queue: for each partition numbered values."""

    id: str
    name: str
    partitions: dict[bytes, deque[tuple[int, bytes]]] = field(default_factory=dict, repr=False)
    entries: int = 0
    bell: Bell = field(default_factory=Bell, repr=False)

    def partition(self, key: bytes) -> deque[tuple[int, bytes]]:
        return self.partitions.setdefault(key, deque())


@dataclass
class Container:
    """A container, that is a process of this machine."""

    id: str
    function: Function
    state: Literal["starting", "ready", "leaving", "gone"] = "starting"
    running: dict[str, Input] = field(default_factory=dict, repr=False)
    pid: int | None = None
    exit_code: int | None = None
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    logs: list[LogLine] = field(default_factory=list, repr=False)
    served: int = 0
    reported: Any = field(default=None, repr=False)
    to_cancel: list[str] = field(default_factory=list, repr=False)
    bell: Bell = field(default_factory=Bell, repr=False)
    endpoint: Endpoint | None = field(default=None, repr=False)
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict, repr=False)

    @property
    def alive(self) -> bool:
        return self.state in ("starting", "ready")

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return "".join(line.text for line in self.logs)


class Shelf(Generic[Thing]):
    """The objects of one kind, by id, and those with a name by environment and name."""

    def __init__(self, kind: str, prefix: str, new_id: Callable[[str], str]) -> None:
        self.kind, self.prefix, self._new_id = kind, prefix, new_id
        self.by_id: dict[str, Thing] = {}
        self.by_name: dict[tuple[str, str], Thing] = {}

    def __iter__(self) -> Iterator[Thing]:
        return iter(list(self.by_id.values()))

    def new(self, build: Callable[[str], Thing]) -> Thing:
        object_id = self._new_id(self.prefix)
        self.by_id[object_id] = thing = build(object_id)
        return thing

    def get(self, object_id: str) -> Thing:
        if object_id not in self.by_id:
            raise refuse(Status.NOT_FOUND, f"{self.kind} '{object_id}' not found")
        return self.by_id[object_id]

    def find(self, request: Any, build: Callable[[str], Thing]) -> Thing:
        """What a request for an object means: look up, or create if missing, or create anew."""
        name, how = request.deployment_name, request.object_creation_type
        if not name:
            return self.new(build)
        key = (request.environment_name or "main", name)
        found = self.by_name.get(key)
        if found is None and how == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise refuse(Status.NOT_FOUND, f"{self.kind} '{name}' not found in environment '{key[0]}'")
        if found is not None and how == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise refuse(Status.ALREADY_EXISTS, f"{self.kind} '{name}' already exists")
        if found is None or how == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            found = self.by_name[key] = self.new(build)
        return found

    def remove(self, object_id: str) -> Thing:
        thing = self.get(object_id)
        del self.by_id[object_id]
        for key in [key for key, named in self.by_name.items() if named is thing]:
            del self.by_name[key]
        return thing


class Records:
    """Everything that the parts share."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._mark = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self.apps: Shelf[App] = Shelf("App", "ap", self.new_id)
        self.functions: Shelf[Function] = Shelf("Function", "fu", self.new_id)
        self.images: Shelf[Image] = Shelf("Image", "im", self.new_id)
        self.mounts: Shelf[Mount] = Shelf("Mount", "mo", self.new_id)
        self.secrets: Shelf[Secret] = Shelf("Secret", "st", self.new_id)
        self.volumes: Shelf[Volume] = Shelf("Volume", "vo", self.new_id)
        self.dicts: Shelf[NamedDict] = Shelf("Dict", "di", self.new_id)
        self.queues: Shelf[NamedQueue] = Shelf("Queue", "qu", self.new_id)
        self.containers: dict[str, Container] = {}
        self.bell = Bell()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{self._mark}{next(self._numbers):06d}"
