"""How each kind of value is taken apart for its digest: the standard library's, the user's classes, `__cache_key__`.

Types are known by name and found among the modules that are loaded already: nothing is imported for a look at them.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from hypernodes._digest import Follow, Opened, Refusal, blob

__all__ = ["CODE_TYPES", "Owner", "Raw", "a_kind_of", "named", "opened", "state_of"]

Opener = Callable[[Any], bytes | Opened]

CODE_TYPES: tuple[type, ...] = (
    type,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ModuleType,
)
_found: WeakKeyDictionary[type, Opener | None] = WeakKeyDictionary()
_NO = object()


_LOCKS = (type(threading.Lock()), type(threading.RLock()))
"""One that code takes says when it runs, not what it gives; handed to it as an input, it has no key."""


def opened(value: Any, follow: Follow | None) -> bytes | Opened:
    """`value` taken apart, or its bytes. `follow` tells code met on the way. Raises `Refusal`."""
    kind = type(value)
    if follow is not None and kind in _LOCKS:
        return Opened(b"lock", (kind.__name__,))
    opener: Any = _found.get(kind, _NO)
    if opener is _NO:
        opener = _found[kind] = _opener(kind)
    if opener is not None:
        done: bytes | Opened = opener(value)
        return done
    if follow is not None:
        return follow(value)
    from hypernodes._code import follow_alone

    return follow_alone(value)


def named(kind: type) -> str | None:
    """`module.Name` of a type, where that is truly what stands in that module under that name."""
    module = sys.modules.get(kind.__module__)
    return f"{kind.__module__}.{kind.__qualname__}" if getattr(module, kind.__qualname__, None) is kind else None


def _opener(kind: type) -> Opener | None:
    """What takes this type apart; None where it is code."""
    if issubclass(kind, CODE_TYPES):
        return None
    if callable(getattr(kind, "__cache_key__", None)):
        return _own_key
    if kind in _PLAIN:
        return _PLAIN[kind]
    name = named(kind)
    if name in _NAMED:
        return _NAMED[name]
    library = kind.__module__.partition(".")[0]
    if library in ("numpy", "pandas", "pyarrow"):
        from hypernodes._digest_arrays import opener_of

        found = opener_of(kind)
        if found is not None:
            return found
    if library == "pytz":
        return _pytz
    if kind.__module__ == "dataclasses" or library == "hypernodes":
        return None  # sentinels such as MISSING; nodes
    if library == "typing" and kind.__name__.startswith("_"):
        return _typing
    fields = getattr(kind, "__pydantic_fields__", None)
    if isinstance(fields, dict) and "pydantic" in sys.modules and issubclass(kind, sys.modules["pydantic"].BaseModel):
        return _pydantic
    if issubclass(kind, sys.modules["enum"].Enum if "enum" in sys.modules else ()):
        return _enum
    data = hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__attrs_attrs__")
    if data or issubclass(kind, (*_BASES, BaseException)):
        return _reader(kind)
    return None if any("__call__" in vars(owner) for owner in kind.__mro__) else _refuse


# -- the user's classes


def state_of(value: Any) -> Opened:
    """A class and all that an instance of it holds: as a built-in, in `__dict__`, in slots. Raises `Refusal`."""
    return _reader(type(value))(value)


def _reader(kind: type) -> Callable[[Any], Opened]:
    """What `state_of` does for one class; where to look is found out once. Raises `Refusal`."""
    _refuse_hidden(kind)
    plain = next((read for base, read in _BASES.items() if issubclass(kind, base)), None)
    raised = issubclass(kind, BaseException)
    declared = tuple(getattr(kind, "__dataclass_fields__", ()))
    computed = _computed(kind)
    slots = sorted(
        (name, slot, owner.__module__ == "builtins")
        for owner in kind.__mro__
        for name, slot in vars(owner).items()
        if type(slot) is types.MemberDescriptorType and name not in _NO_CONTENT
    )

    def read(value: Any) -> Opened:
        parts: list[Any] = [kind]
        steps = [".<class>"]
        if plain is not None:
            parts.append(plain(value))
            steps.append("")
        if raised:
            parts.append(value.args)
            steps.append(".args")
        for name, slot, built_in in slots:
            try:
                content = slot.__get__(value)
            except AttributeError:
                continue  # a slot that was never filled
            if content is not None or not built_in:
                parts += (name, content)
                steps += ("", f".{name}")
        attributes = getattr(value, "__dict__", None)
        if attributes:
            # fields in their order, for the class decides that; what was set in any order, sorted
            names = [name for name in declared if name in attributes]
            if len(names) < len(attributes):
                names += sorted(name for name in attributes if name not in declared and name not in computed)
            for name in names:
                parts += (name, attributes[name])
                steps += ("", f".{name}")
        return Opened(b"object", parts, steps)

    return read


def _computed(kind: type) -> set[str]:
    """Names under which `functools.cached_property` keeps what follows from the rest."""
    functools = sys.modules.get("functools")
    if functools is None:
        return set()
    return {
        name for owner in kind.__mro__ for name, held in vars(owner).items() if type(held) is functools.cached_property
    }


_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    bytearray: lambda value: bytes(memoryview(value)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    list: lambda value: list.__getitem__(value, slice(None)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}
_NO_CONTENT = {"__suppress_context__", "obj", "name_from"}  # of exceptions: where they arose, not what they say
_STATELESS = {object, *_BASES}
_IMMUTABLE_TYPE = 1 << 8
_POINTER = tuple.__itemsize__


def _refuse_hidden(kind: type) -> None:
    """Refuse types whose instances hold what only C code sees."""
    for owner in kind.__mro__:
        if owner in _STATELESS or (issubclass(owner, BaseException) and owner.__module__ == "builtins"):
            continue
        if named(owner) in _TRANSPARENT:
            continue
        base = owner.__base__ or object
        own = sum(type(held) is types.MemberDescriptorType for held in vars(owner).values())
        grown = owner.__basicsize__ - base.__basicsize__ - own * _POINTER
        if owner.__flags__ & _IMMUTABLE_TYPE or not 0 <= grown <= 2 * _POINTER:
            why = "" if owner is kind else f" made on a {owner.__module__}.{owner.__qualname__}"
            raise Refusal(f"is {a_kind_of(kind)}{why}, whose content cannot be told soundly")


def a_kind_of(kind: type) -> str:
    """`a _thread.lock`, `a Client`."""
    own = kind.__module__ in ("builtins", "__main__")
    name = kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


_TRANSPARENT = {"collections.OrderedDict", "collections.defaultdict", "typing.Generic", "enum.Enum"}


def _own_key(value: Any) -> Opened:
    # Its class by name alone: who writes a key decides what counts, the class's code included.
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "__main__" else kind.__qualname__
    return Opened(b"own key", (name, value.__cache_key__()), ("", ".__cache_key__()"))


def _enum(value: Any) -> Opened:
    return Opened(b"enum", (type(value), value._name_, value._value_), ("", "", ".value"))


def _pydantic(value: Any) -> Opened:
    extra = getattr(value, "__pydantic_extra__", None)
    private = getattr(value, "__pydantic_private__", None)
    given = sorted(value.__pydantic_fields_set__)  # a model tells which of its fields were given
    parts = (type(value), dict(vars(value)), extra, private, given)
    return Opened(b"model", parts, (".<class>", "", ".model_extra", ".<private>", ""))


def _refuse(value: Any) -> Opened:
    raise Refusal(f"is {a_kind_of(type(value))}, whose content cannot be told soundly")


# -- the standard library's


def _fields(head: str, *names: str) -> Opener:
    def opener(value: Any) -> Opened:
        return Opened(head.encode(), [getattr(value, name) for name in names], [f".{name}" for name in names])

    return opener


def _datetime(value: Any) -> Opened:
    day = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    return Opened(b"datetime", (day, value.fold, value.tzinfo), ("", "", ".tzinfo"))


def _zone(value: Any) -> Opened:
    if value.key is None:
        raise Refusal("is a zoneinfo.ZoneInfo that was read from a file and has no key")
    return Opened(b"ZoneInfo", (value.key,))


def _decimal(value: Any) -> Opened:
    sign, digits, exponent = value.as_tuple()
    return Opened(b"Decimal", (sign, bytes(digits), exponent))


def _view(value: memoryview) -> Opened:
    flat = value.cast("B") if value.c_contiguous and value.nbytes else value.tobytes()
    return Opened(b"memoryview", (value.format, value.shape, Raw(blob(b"b", flat))))


def _array(value: Any) -> Opened:
    content = memoryview(value).cast("B")
    return Opened(b"array", (value.typecode, value.itemsize, sys.byteorder, Raw(blob(b"b", content))))


class Raw:
    """Bytes that are encoded already."""

    __slots__ = ("encoded",)

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


class Owner:
    """What a method is bound to: taken apart whatever it is, for its class's code and its state both count."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _owner(held: Owner) -> Opened:
    opener = _opener(type(held.value))
    return state_of(held.value) if opener is _refuse else Opened(b"owner", (held.value,), ("",))


def _path(kind: str) -> Opener:
    return lambda value: Opened(kind.encode(), (value.__fspath__(),))


def _defaultdict(value: Any) -> Opened:
    return Opened(b"defaultdict", (value.default_factory, dict(value)), (".default_factory", ""))


def _partial(value: Any) -> Opened:
    parts = (value.func, value.args, value.keywords, getattr(value, "__dict__", None) or None)
    return Opened(b"partial", parts, (".func", ".args", ".keywords", ""))


def _reduced(value: Any) -> Opened:
    # `operator` keeps what these were made of nowhere else, and tells it in plain data
    return Opened(type(value).__name__.encode(), value.__reduce__()[1:])


def _namedtuple_field(value: Any) -> Opened:
    return Opened(b"field", value.__reduce__()[1][:1])


def _pytz(value: Any) -> Opened:
    return Opened(b"pytz", value.__reduce__()[1])  # the zone's name and offsets, which is how pytz pickles it


def _logger(value: Any) -> Opened:
    return Opened(b"logger", (value.name,))  # it changes what is logged, not what is computed


def _typing(value: Any) -> Opened:
    """An annotation or an alias, by what it is made of."""
    kind = type(value).__name__
    origin = getattr(value, "__origin__", None)
    if origin is not None:
        parts = (kind, origin, getattr(value, "__args__", ()), getattr(value, "__metadata__", ()))
        return Opened(b"typing", parts, (".<kind>", ".__origin__", ".__args__", ".__metadata__"))
    if kind == "ForwardRef":
        return Opened(b"typing", (kind, value.__forward_arg__))
    if kind == "NewType":
        return Opened(b"typing", (kind, value.__name__, value.__supertype__))
    return Opened(b"typing", (kind, getattr(value, "_name", None) or getattr(value, "__name__", None)))


_PLAIN: dict[type, Opener] = {
    set: lambda value: Opened(b"set", list(value), None, ordered=False),
    frozenset: lambda value: Opened(b"frozenset", list(value), None, ordered=False),
    range: _fields("range", "start", "stop", "step"),
    slice: _fields("slice", "start", "stop", "step"),
    memoryview: _view,
    Raw: lambda value: value.encoded,
    Owner: _owner,
    types.SimpleNamespace: lambda value: Opened(b"SimpleNamespace", (vars(value),), ("",)),
    types.MappingProxyType: lambda value: Opened(b"MappingProxyType", (dict(value),), ("",)),
    staticmethod: _fields("staticmethod", "__func__"),
    classmethod: _fields("classmethod", "__func__"),
    property: _fields("property", "fget", "fset", "fdel"),
    types.GenericAlias: _typing,
    types.UnionType: lambda value: Opened(b"union", value.__args__),
}

_NAMED: dict[str | None, Opener] = {
    "datetime.datetime": _datetime,
    "datetime.date": _fields("date", "year", "month", "day"),
    "datetime.time": _fields("time", "hour", "minute", "second", "microsecond", "fold", "tzinfo"),
    "datetime.timedelta": _fields("timedelta", "days", "seconds", "microseconds"),
    "datetime.timezone": lambda value: Opened(b"timezone", (value.utcoffset(None), value.tzname(None))),
    "zoneinfo.ZoneInfo": _zone,
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _fields("Fraction", "numerator", "denominator"),
    "uuid.UUID": _fields("UUID", "int"),
    **{
        f"{module}.{name}": _path(name)
        for module in ("pathlib", "pathlib._local")
        for name in ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
    },
    **{
        f"ipaddress.{name}": _fields(name, "exploded")
        for name in ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface")
    },
    "collections.deque": lambda value: Opened(b"deque", (value.maxlen, list(value)), (".maxlen", "")),
    "collections.OrderedDict": lambda value: Opened(b"OrderedDict", (dict(value.items()),), ("",)),
    "collections.Counter": lambda value: Opened(b"Counter", (dict(value),), ("",)),
    "collections.ChainMap": _fields("ChainMap", "maps"),
    "collections.defaultdict": _defaultdict,
    "array.array": _array,
    "re.Pattern": _fields("Pattern", "pattern", "flags"),
    "functools.partial": _partial,
    "functools.partialmethod": _partial,
    "functools.cached_property": _fields("cached_property", "func"),
    "functools._lru_cache_wrapper": _fields("lru_cache", "__wrapped__"),
    "operator.itemgetter": _reduced,
    "operator.attrgetter": _reduced,
    "operator.methodcaller": _reduced,
    # a field of a namedtuple: its number; Python 3.12 calls the type's module otherwise
    **{f"{module}._tuplegetter": _namedtuple_field for module in ("_collections", "collections")},
    "logging.Logger": _logger,
    "logging.RootLogger": _logger,
    **{f"attr._make.{name}": state_of for name in ("Attribute", "Factory", "_CountingAttr")},
    "typing.ForwardRef": _typing,
    "typing.NewType": _typing,
    "typing.TypeVar": _typing,
    "typing.ParamSpec": _typing,
    "typing.TypeVarTuple": _typing,
}
