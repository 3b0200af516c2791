"""Where the control plane keeps its objects: by id, and by name within an environment."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from grpclib import Status
from modal_proto import api_pb2

from hypernodes_modal.testing._bell import Bell
from hypernodes_modal.testing._records import (
    App,
    Container,
    Function,
    Image,
    Mount,
    NamedDict,
    NamedQueue,
    Secret,
    Volume,
)
from hypernodes_modal.testing._rpc import refuse

__all__ = ["Records", "Shelf"]

Thing = TypeVar("Thing")


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
