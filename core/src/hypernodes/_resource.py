"""A resource: something built once per worker and passed to nodes by parameter name, such as a model or a client."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from hypernodes._errors import NodeDefinitionError
from hypernodes._node import GraphNode, Parameter, check_name, parameters_of

__all__ = ["Need", "Resource", "resource"]


class Resource(GraphNode):
    """A function that builds something nodes share. Made by `@resource`; calling it calls the function.

    `is_generator` says that what follows its `yield` closes what it yielded. `key` is the same wherever it travels.
    """

    __slots__ = ("func", "is_async", "is_generator", "key", "name", "outputs", "parameters")

    name: str
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def __init__(self, func: Callable[..., Any], *, name: str | None = None, key: str | None = None) -> None:
        own_name = getattr(func, "__name__", None) if name is None else name
        self.name = check_name("resource", own_name, "name")
        self.func = func
        self.outputs = (self.name,)
        self.parameters = parameters_of(f"resource '{self.name}'", func)
        self.is_async = inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func)
        self.is_generator = inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func)
        self.key = uuid.uuid4().hex if key is None else key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<resource {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(Resource, name=self.name, key=self.key), (self.func,)


class Need(NamedTuple):
    """A resource as one node or resource is to be given it: with the resources that it needs itself, by parameter."""

    resource: Resource
    needs: tuple[tuple[str, Need], ...] = ()


def resource(func: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a resource of a function that builds one."""
    if func is None:
        return functools.partial(resource, name=name)
    if not callable(func):
        raise NodeDefinitionError(f"@resource takes a function, not {func!r}")
    return Resource(func, name=name)
