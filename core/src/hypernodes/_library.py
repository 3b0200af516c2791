"""How code that is met as a value is told: a library's by name and version, the user's by being followed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from hypernodes._digest import Opened, Refusal, encode
from hypernodes._digest_kinds import Owner, a_kind_of, state_of
from hypernodes._node import GraphNode, Node
from hypernodes._origin import Origin, origin_of
from hypernodes._resource import Resource

__all__ = ["told"]

Follow = Callable[[Any], bytes]
Package = Callable[[Origin], bytes]

_IMMUTABLE_TYPE = 1 << 8
_DESCRIPTORS = (
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


def told(thing: Any, user: Follow, package: Package) -> bytes | Opened:
    """A function, class, method, module or callable object. `user` tells what is the user's, `package` a library.

    Raises `Refusal` for compiled code that belongs to no distribution, and for objects whose state cannot be told.
    """
    if isinstance(thing, types.FunctionType):
        return _function(thing, user, package)
    if isinstance(thing, type):
        return _class(thing, user, package)
    if isinstance(thing, types.ModuleType):
        origin = origin_of(thing.__name__, vars(thing))
        return user(thing) if origin.kind == "user" else _name(thing.__name__, "", origin, package)
    if isinstance(thing, types.MethodType):
        return Opened(b"method", (thing.__func__, Owner(thing.__self__)), (".__func__", ".__self__"))
    if isinstance(thing, types.BuiltinFunctionType | types.MethodWrapperType):
        return _builtin(thing, package)
    if isinstance(thing, _DESCRIPTORS):
        if isinstance(thing, types.MemberDescriptorType | types.GetSetDescriptorType):
            return encode(("slot", thing.__name__), "slot")
        return Opened(b"descriptor", (thing.__objclass__, thing.__name__))
    if isinstance(thing, Node | Resource):
        return told(thing.func, user, package)
    if type(thing).__module__ == "dataclasses":
        return encode(("sentinel", type(thing).__name__), "sentinel")
    if isinstance(thing, GraphNode) or type(thing).__module__.partition(".")[0] == "hypernodes":
        raise Refusal(f"is {a_kind_of(type(thing))}, which is no value; make it a node of the pipeline")
    return _by_own_name(thing, package) or state_of(thing)


def _name(module: str, name: str, origin: Origin, package: Package) -> bytes:
    """A library's thing. Python's own counts by name alone."""
    # pathlib and others move between modules from one Python to the next; the public package is enough to tell them
    if origin.kind == "python":
        return encode(("python", module.partition(".")[0], name), "name")
    return encode(("library", module, name, package(origin)), "name")


def _function(thing: types.FunctionType, user: Follow, package: Package) -> bytes | Opened:
    scope = thing.__globals__
    module = str(scope.get("__name__", "__main__"))
    origin = origin_of(module, scope)
    if origin.kind == "user":
        return user(thing)
    registry = getattr(thing, "registry", None)
    if origin.kind == "python" and isinstance(registry, types.MappingProxyType):
        return Opened(b"singledispatch", (dict(registry),), ("",))
    name = thing.__code__.co_qualname
    label = _name(module, name, origin, package)
    if _found(module, name) is thing:
        return label
    # made by a function of the library, such as a decorator: what it was made with counts
    cells = []
    for cell in thing.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:
            cells.append("empty")
    steps = ("", *(f".<closure {variable}>" for variable in thing.__code__.co_freevars))
    return Opened(b"made", (label, *cells, thing.__defaults__, thing.__kwdefaults__), (*steps, ".<default>", ""))


def _class(thing: type, user: Follow, package: Package) -> bytes:
    module, name = thing.__module__, thing.__qualname__
    origin = origin_of(module)
    by_name = thing.__flags__ & _IMMUTABLE_TYPE or _found(module, name) is thing
    if origin.kind != "user" and by_name:
        return _name(module, name, origin, package)
    if thing.__flags__ & _IMMUTABLE_TYPE:
        raise Refusal(f"is the compiled class '{module}.{name}', which belongs to no installed distribution")
    return user(thing)


def _builtin(thing: Any, package: Package) -> bytes | Opened:
    owner = thing.__self__
    if owner is not None and not isinstance(owner, types.ModuleType):
        return Opened(b"builtin method", (thing.__name__, Owner(owner)), ("", ".__self__"))
    module = thing.__module__ or getattr(owner, "__name__", "builtins")
    origin = origin_of(module)
    if origin.kind == "user":
        raise Refusal(
            f"is the compiled function '{module}.{thing.__name__}', which belongs to no installed distribution"
        )
    return _name(module, thing.__name__, origin, package)


def _by_own_name(thing: Any, package: Package) -> bytes | None:
    """A callable object that a library offers under a name of its own, such as a NumPy ufunc."""
    name = getattr(thing, "__name__", None)
    if not isinstance(name, str):
        return None
    for module in (getattr(thing, "__module__", None), type(thing).__module__):
        if isinstance(module, str) and _found(module, name) is thing:
            origin = origin_of(module)
            if origin.kind != "user":
                return _name(module, name, origin, package)
    return None


def _found(module: str, name: str) -> Any:
    """What stands in a loaded module under a dotted name, or None."""
    held: Any = sys.modules.get(module)
    for part in name.split("."):
        held = vars(held).get(part) if isinstance(held, type | types.ModuleType) else None
    return held
