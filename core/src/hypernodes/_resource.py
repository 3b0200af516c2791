"""A resource: something built once per worker and passed to nodes by parameter name, such as a model or a client."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple, overload

from hypernodes._errors import NodeDefinitionError
from hypernodes._node import GraphNode, Parameter, check_name, parameters_of, reference_to

__all__ = ["Need", "Resource", "resource"]


class Resource(GraphNode):
    """A function that builds something nodes share. Made by `@resource`; calling it calls the function. Immutable.

    `is_generator` says that what follows its `yield` closes what it yielded; a function of `contextlib.contextmanager`
    is one, too. `is_async` says that it is built and closed on an event loop, and so is for async nodes. `key` is the
    same wherever it travels, so that a worker that has it once does not build it again.
    """

    __slots__ = ("__dict__", "func", "is_async", "is_generator", "key", "name", "outputs", "parameters")

    name: str
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    func: Callable[..., Any]
    is_async: bool
    is_generator: bool
    key: str
    __qualname__: str

    def __init__(self, func: Callable[..., Any], *, name: str | None = None, key: str | None = None) -> None:
        own_name = getattr(func, "__name__", None) if name is None else name
        if own_name is None or own_name == "<lambda>":
            raise NodeDefinitionError(f"{func!r} has no name of its own; give it one: resource(..., name='...')")
        own_name = check_name("resource", own_name, "name")
        inner = inspect.unwrap(func)
        coroutine = inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004
        set_ = object.__setattr__
        set_(self, "name", own_name)
        set_(self, "func", func)
        set_(self, "outputs", (own_name,))
        set_(self, "parameters", parameters_of(f"resource '{own_name}'", func))
        set_(self, "is_async", coroutine or inspect.isasyncgenfunction(inner))
        set_(self, "is_generator", inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner))
        set_(self, "key", os.urandom(16).hex() if key is None else key)
        set_(self, "__doc__", getattr(func, "__doc__", None))
        set_(self, "__module__", getattr(func, "__module__", None) or "__main__")
        set_(self, "__qualname__", getattr(func, "__qualname__", own_name))

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"resource '{self.name}' is immutable; make another with resource(...) instead of setting {name}"
        )

    def __repr__(self) -> str:
        return f"<resource {self.name}({', '.join(parameter.name for parameter in self.parameters)})>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By reference where the module still holds this very resource, else by value."""
        return reference_to(self) or (_rebuild, (self.func, self.name, self.key))


def _rebuild(func: Callable[..., Any], name: str, key: str) -> Resource:
    return Resource(func, name=name, key=key)


class Need(NamedTuple):
    """A resource as one node or resource is to be given it: with the resources that it needs itself, by parameter.

    `path` is that of the pipeline that provides it, and its name.
    """

    resource: Resource
    path: tuple[str, ...]
    needs: tuple[tuple[str, Need], ...] = ()

    @property
    def provider(self) -> str:
        """The pipeline that provides it, as people read it."""
        return " > ".join(self.path[:-1])


@overload
def resource(func: Callable[..., Any], /, *, name: str | None = ...) -> Resource: ...
@overload
def resource(*, name: str | None = ...) -> Callable[[Callable[..., Any]], Resource]: ...
def resource(func: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a resource of a function that builds something: a model, a client, a connection.

    Among a pipeline's nodes it provides what it builds to all nodes, and other resources, that have a parameter of its
    name; `name` gives it another name than the function's. It is built when it is first needed, once in each worker
    process or once for a call in the calling process, and is never pickled. What a function yields instead of returning
    is closed by what follows the `yield`; functions of `contextlib.contextmanager` and `asynccontextmanager` are taken
    as they are. Async functions and async generators build resources for async nodes, one for each event loop.

    Its parameters are other resources, or have defaults. Raises `NodeDefinitionError` for what cannot be one.
    """
    if func is None:
        return functools.partial(resource, name=name)
    given: object = func
    if isinstance(given, GraphNode):
        kind = "resource" if isinstance(given, Resource) else "node"
        raise NodeDefinitionError(f"'{given.name}' is a {kind} already; decorate the function once")
    if isinstance(given, str):
        raise NodeDefinitionError(f"write @resource(name='{given}'): the name is a keyword")
    if not callable(given):
        raise NodeDefinitionError(f"@resource takes a function, not {given!r}")
    return Resource(func, name=name)
