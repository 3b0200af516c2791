"""What the control plane knows: apps, functions, images and the rest, as tests may look at them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modal_proto import api_pb2

from hypernodes_modal.testing._bell import Bell

if TYPE_CHECKING:
    import asyncio

    from hypernodes_modal.testing._calls import Input
    from hypernodes_modal.testing._rpc import Endpoint

__all__ = ["App", "Container", "Function", "Image", "LogLine", "Mount", "NamedDict", "NamedQueue", "Secret", "Volume"]


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
    containers: list[Container] = field(default_factory=list, repr=False)

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
    """An image, recorded and not built: the commands of its layers, the first layer first.

    `mounts` are those whose files were copied into it.
    """

    id: str
    commands: tuple[str, ...]
    python: str
    environment: dict[str, str]
    secrets: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
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
