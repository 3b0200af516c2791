"""The identity of a function: its own code and all that it reaches in the user's project.

From a function the walk goes to its defaults, its closure and the globals that its code names; on into the user's own
functions, classes and modules among them; and stops at values, which count by their digest, and at libraries, which
count by name and version. What is reached through names made up at run time (`getattr(module, name)`, `eval`) is not
seen.

Bytecode is what is read, never the source: a file may have been edited since it was imported. It differs between
versions of Python, whose minor version is therefore always a part.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

from hypernodes._bytecode import body_of
from hypernodes._class_parts import content_of
from hypernodes._digest import Opened, encode
from hypernodes._held import Held, held_by
from hypernodes._library import told
from hypernodes._node import Node
from hypernodes._origin import Origin, origin_of_module
from hypernodes._resource import Need, Resource

__all__ = ["Code", "code_of", "code_with", "follow_alone"]


@dataclass(frozen=True)
class Code:
    """The digest of a function, and of each part by name: `function 'clean'`, `global 'LIMIT'`, `package 'numpy'`.

    Two digests are equal exactly when all parts are.
    """

    digest: bytes
    parts: Mapping[str, str]


def code_of(func: Callable[..., Any]) -> Code:
    """What a function does, as 32 bytes and by parts; the same in every process of one minor version of Python.

    Comments, formatting, docstrings, annotations and the place in the file do not count. Globals and closures are
    looked at anew with each call, bytecode is read once. Raises `UnkeyableError` naming what the function reaches that
    has no content that could be told, such as a lock or an open connection.
    """
    func = func.func if isinstance(func, Node | Resource) else func
    plain = isinstance(func, types.FunctionType)
    known = _codes.get(func) if plain else None
    if known is not None and all(map(Held.still, known[0])):
        return known[1]
    _class_codes.clear()  # a class of the user's is looked at once for each look at a function
    walk = _Walk(func)
    code = walk.code()
    if plain:
        if walk.held is None:
            _codes.pop(func, None)
        else:
            _codes[func] = (walk.held, code)
    return code


def code_with(func: Callable[..., Any], needs: tuple[tuple[str, Need], ...], known: Code | None = None) -> Code:
    """The code of a function together with that of the functions that build what it is given, each by its parameter.

    `known` is what was found before: where nothing has changed since, it is given back as it is.
    """
    code = code_of(func)
    if not needs:
        return code
    parts = dict(code.parts)
    todo = [(f"resource '{name}'", need) for name, need in needs]
    while todo:
        label, need = todo.pop()
        builder = need.resource.func
        found = [code_of(builder)]
        inner = inspect.unwrap(builder)
        if inner is not builder:  # what `contextlib` made of a function of the user's is by itself a library's
            found.append(code_of(inner))
        own = sha256(b"".join([one.digest for one in found])).hexdigest()
        parts[label] = own
        todo += [(f"{label} > '{name}'", below) for name, below in need.needs]
    if known is not None and known.parts == parts:
        return known
    return Code(sha256(encode(sorted(parts.items()), "code")).digest(), parts)


_codes: WeakKeyDictionary[Any, tuple[list[Held], Code]] = WeakKeyDictionary()
"""What was found of functions that reach nothing but what cannot change without notice: 1 us a look instead of 40."""


def follow_alone(thing: Any) -> bytes | Opened:
    """Code that is met in a value: the user's by its own digest, a library's by name and version."""
    if not isinstance(thing, type):
        return told(thing, _user_alone, _package_alone)
    # 300 us a walk is too much for each of 10,000 instances: it is done again when an attribute was set meanwhile
    held = list(vars(thing).values())
    found = _class_codes.get(thing)
    if found is None or len(found[0]) != len(held) or not all(map(is_, found[0], held)):
        found = _class_codes[thing] = (held, told(thing, _user_alone, _package_alone))
    return found[1]


_class_codes: WeakKeyDictionary[type, tuple[list[Any], bytes | Opened]] = WeakKeyDictionary()


def _user_alone(thing: Any) -> bytes:
    # A class counts with its module: two alike are two types. A script's has no name of its own, wherever it was sent.
    module = thing.__module__ if isinstance(thing, type) else ""
    where = "" if module in ("__main__", "__mp_main__") else module
    return b"@" + encode((where, _Walk(thing).code().digest), "class")


def _package_alone(origin: Origin) -> bytes:
    return encode(tuple(origin), "package")


class _Walk:
    """One way through what a function reaches. Each thing of the user's is visited once, under a label of its own."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.parts: dict[str, str] = {}
        self.labels: dict[int, tuple[str, Any]] = {}  # by id; holds the thing too, so that no other gets its id
        self.taken: set[str] = set()
        self.waiting: deque[tuple[str, Any]] = deque()
        self.title = ""
        self.held: list[Held] | None = []

    def code(self) -> Code:
        self.parts["python"] = _hex(encode((sys.implementation.name, *sys.version_info[:2]), "python"))
        self.title = self._label(self.root, "function")
        encoded = encode(self.root, getattr(self.root, "__name__", "function"), self)
        if id(self.root) not in self.labels:
            self.parts[self.title] = _hex(encoded)  # a partial, an object that can be called, a library's function
        while self.waiting:
            label, thing = self.waiting.popleft()
            if isinstance(thing, types.FunctionType):
                self._function(label, thing)
                continue
            self.held = None
            if isinstance(thing, type):
                where = self._where(label)
                attributes, rest = (encode(part, thing.__qualname__, self, where) for part in content_of(thing))
                self.parts[label] = _hex(attributes + rest)
            else:
                names = {name: value for name, value in sorted(vars(thing).items()) if not _is_dunder(name)}
                self._part(label, names, thing.__name__)
        whole = encode(sorted(self.parts.items()), "code")
        return Code(sha256(whole).digest(), self.parts)

    def __call__(self, thing: Any) -> bytes | Opened:
        """How code met in a value is told: by the label under which it is visited."""
        return told(thing, self._user, self._package)

    def _user(self, thing: Any) -> bytes:
        found = self.labels.get(id(thing))
        if found is None:
            first = thing is self.root
            label = self.title if first else self._label(thing, "helper")
            self.taken.add(label)
            found = self.labels[id(thing)] = (label, thing)
            self.waiting.append(found)
        return encode(("@", found[0]), "label")

    def _package(self, origin: Origin) -> bytes:
        self.parts[f"package '{origin.name}'"] = _hex(encode(origin.version, "version"))
        return encode(("package", origin.name), "package")

    def _label(self, thing: Any, role: str) -> str:
        if isinstance(thing, type | types.ModuleType):
            role = "class" if isinstance(thing, type) else "module"
        name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or type(thing).__qualname__
        label = plain = f"{role} '{str(name).rpartition('<locals>.')[2]}'"
        count = 1
        while label in self.taken:
            count += 1
            label = f"{plain} ({count})"
        return label

    def _part(self, label: str, value: Any, name: str) -> None:
        self.parts[label] = _hex(encode(value, name, self, self._where(label)))

    def _where(self, label: str) -> str:
        return f"{self.title}: {label}: " if label != self.title else f"{label}: "

    def _function(self, label: str, func: types.FunctionType) -> None:
        of = "" if func is self.root else f" of {label}"
        body = body_of(func.__code__)
        self.parts[label] = _hex(body.digest)
        self._hold(func, body.reached)
        for name, default in _defaults(func).items():
            self._part(f"default '{name}'{of}", default, name)
        for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                content = _UNDEFINED
            self._part(f"closure '{name}'{of}", content, name)
        for chain in body.reached:
            if chain[0] in func.__globals__:
                path, value = _resolved(chain, func.__globals__[chain[0]])
                self._part(f"global '{path}'{of}", value, path)
            elif not hasattr(builtins, chain[0]):
                self._part(f"global '{chain[0]}'{of}", _UNDEFINED, chain[0])
        for level, module, names in body.imported:
            for path, value in _imported(func, level, module, names).items():
                if isinstance(value, Origin):
                    self._package(value)
                else:
                    self.held = None
                    self._part(f"import '{path}'{of}", value, path)

    def _hold(self, func: types.FunctionType, reached: Iterable[tuple[str, ...]]) -> None:
        """Remember what the function refers to, if none of it can change without becoming another object."""
        found = held_by(func, reached)
        if self.held is not None and found is not None:
            self.held.append(found)
        else:
            self.held = None


_UNDEFINED = ("not defined",)


def _defaults(func: types.FunctionType) -> dict[str, Any]:
    code, given = func.__code__, func.__defaults__ or ()
    named = code.co_varnames[: code.co_argcount][code.co_argcount - len(given) :]
    return {**dict(zip(named, given, strict=True)), **(func.__kwdefaults__ or {})}


def _resolved(chain: tuple[str, ...], value: Any) -> tuple[str, Any]:
    """What `module.name` in the code stands for, through as many modules of the user's as the chain passes."""
    path = chain[0]
    for name in chain[1:]:
        held: Mapping[str, Any]
        if isinstance(value, types.ModuleType) and _is_user(value.__name__):
            held = vars(value)
            if name not in held:
                return f"{path}.{name}", _UNDEFINED
        elif isinstance(value, types.FunctionType) and name in vars(value):
            held = vars(value)
        else:
            break
        path, value = f"{path}.{name}", held[name]
    return path, value


def _imported(func: types.FunctionType, level: int, module: str, names: tuple[str, ...]) -> dict[str, Any]:
    """What an import inside a function brings: the origin of a library, or the user's modules and what is taken.

    A module of the user's that is not loaded yet is imported, as the function would.
    """
    if level:
        scope = func.__globals__
        package = scope.get("__package__") or str(scope.get("__name__", "")).rpartition(".")[0]
        try:
            module = importlib.util.resolve_name("." * level + module, package)
        except ImportError:
            return {module: _UNDEFINED}
    origin = origin_of_module(module)
    if origin is None:
        return {module: _UNDEFINED}
    if origin.kind != "user":
        return {module: origin} if origin.kind == "package" else {}
    brought: dict[str, Any] = {}
    for name in names or ("",):
        path = f"{module}.{name}" if name and name != "*" else module
        try:
            loaded = importlib.import_module(module)
            if path != module and name not in vars(loaded):
                importlib.import_module(path)
            brought[path] = vars(loaded)[name] if path != module else loaded
        except Exception:
            # The user's module says here what it would say to the function; that, too, is a state that may change.
            brought[path] = _UNDEFINED
    return brought


def _is_user(module: str) -> bool:
    origin = origin_of_module(module)
    return origin is None or origin.kind == "user"


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _hex(encoded: bytes) -> str:
    return sha256(encoded).hexdigest()
