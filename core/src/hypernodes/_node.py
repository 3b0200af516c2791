"""A node: a function for one item, with named inputs and named outputs."""

from __future__ import annotations

import functools
import inspect
import keyword
import sys
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

from hypernodes._batching import Batching, batching_of
from hypernodes._demand import Demand, checked_names, demand_of
from hypernodes._errors import NodeDefinitionError, did_you_mean, quoted
from hypernodes._limits import check_count, check_flag, check_kinds, check_seconds

__all__ = ["GraphNode", "Node", "Parameter", "check_name", "node", "parameters_of", "reference_to"]

P = ParamSpec("P")
R = TypeVar("R")

_CO_VARARGS, _CO_VARKEYWORDS = inspect.CO_VARARGS, inspect.CO_VARKEYWORDS
_CO_COROUTINE, _CO_ASYNC_GENERATOR = inspect.CO_COROUTINE, inspect.CO_ASYNC_GENERATOR
_CO_GENERATORS = inspect.CO_GENERATOR | _CO_ASYNC_GENERATOR


class Parameter(NamedTuple):
    """One named input. `required` is False where the function has a default."""

    name: str
    required: bool
    keyword_only: bool = False


class GraphNode(ABC):
    """What a pipeline is made of: a `Node`, or a nested pipeline under outer names."""

    __slots__ = ()

    name: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]


class Node(GraphNode, Generic[P, R]):
    """A function with named inputs and outputs. Calling it calls the function, unchanged.

    Made by `@node`; immutable. `unpacks` says that the function returns one value for each output name, `is_generator`
    that it yields, so that the node's value is the list of what it yields. `retries` and `retry_delay` are None where
    the node leaves them to its pipeline.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",  # others may know more of a node, as long as there is one
        "batch_over",
        "batch_size",
        "batching",
        "cache",
        "func",
        "is_async",
        "is_generator",
        "isolate",
        "limit",
        "max_retry_delay",
        "name",
        "outputs",
        "parameters",
        "resources",
        "retries",
        "retry_delay",
        "retry_jitter",
        "retry_on",
        "timeout",
        "unpacks",
    )

    func: Callable[P, R]
    __qualname__: str

    def __init__(
        self,
        func: Callable[P, R],
        output_name: str | tuple[str, ...] | None = None,
        *,
        name: str | None = None,
        cache: bool = True,
        retries: int | None = None,
        retry_delay: float | None = None,
        max_retry_delay: float | None = None,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        retry_jitter: bool = False,
        timeout: float | None = None,
        batch_size: int | None = None,
        batch_over: str | Sequence[str] | None = None,
        isolate: bool | None = None,
        resources: Mapping[str, Any] | None = None,
        limit: str | Sequence[str] | None = None,
    ) -> None:
        own_name = getattr(func, "__name__", None) if name is None else name
        if own_name == "<lambda>" and output_name:
            own_name = output_name if isinstance(output_name, str) else str(output_name[0])
        if own_name is None or own_name == "<lambda>":
            raise NodeDefinitionError(f"{func!r} has no name of its own; give it one: node(..., output_name='...')")
        set_ = object.__setattr__
        set_(self, "func", func)
        set_(self, "name", own_name)
        set_(self, "unpacks", isinstance(output_name, tuple))
        set_(self, "outputs", _outputs(own_name, output_name))
        set_(self, "parameters", parameters_of(f"node '{own_name}'", func))
        set_(self, "is_async", _is_async(func))
        set_(self, "is_generator", _is_generator(func))
        set_(self, "cache", cache)
        owner = f"node '{own_name}'"
        set_(self, "retries", None if retries is None else check_count(owner, "retries", retries))
        delay = None if retry_delay is None else check_seconds(owner, "retry_delay", retry_delay, least=0.0)
        set_(self, "retry_delay", delay)
        most = None if max_retry_delay is None else check_seconds(owner, "max_retry_delay", max_retry_delay)
        set_(self, "max_retry_delay", most)
        set_(self, "retry_on", check_kinds(owner, "retry_on", retry_on))
        set_(self, "retry_jitter", check_flag(owner, "retry_jitter", retry_jitter))
        set_(self, "timeout", None if timeout is None else check_seconds(owner, "timeout", timeout))
        if self.is_generator and batch_size is not None:
            raise NodeDefinitionError(
                f"{owner} yields and has batch_size={batch_size!r}; a batch node returns one list, with a "
                "value for each item of its batch: return that list, or leave batch_size out"
            )
        required = {parameter.name: parameter.required for parameter in self.parameters}
        set_(self, "batching", batching_of(owner, func, required, batch_size, batch_over, isolate))
        set_(self, "batch_size", batch_size)
        set_(self, "batch_over", batch_over)
        set_(self, "isolate", isolate)
        set_(self, "resources", None if resources is None else demand_of(owner, resources))
        set_(self, "limit", () if limit is None else checked_names(owner, "limit", limit))
        if isinstance(func, FunctionType):
            set_(self, "__doc__", func.__doc__)
            set_(self, "__module__", func.__module__)
            set_(self, "__qualname__", func.__qualname__)
        else:
            set_(self, "__module__", getattr(func, "__module__", None) or "__main__")
            set_(self, "__qualname__", getattr(func, "__qualname__", own_name))

    name: str
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    unpacks: bool
    is_async: bool
    is_generator: bool
    cache: bool
    retries: int | None
    retry_delay: float | None
    max_retry_delay: float | None
    retry_on: tuple[type[Exception], ...]
    retry_jitter: bool
    timeout: float | None
    batch_size: int | None
    batch_over: str | Sequence[str] | None
    isolate: bool | None
    batching: Batching | None
    resources: Demand | None
    limit: tuple[str, ...]

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def __wrapped__(self) -> Callable[P, R]:
        return self.func

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.func(*args, **kwargs)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"node '{self.name}' is immutable; make another with node(...) instead of setting {name}")

    def __repr__(self) -> str:
        inputs = ", ".join(parameter.name for parameter in self.parameters)
        return f"<node {self.name}({inputs}) -> {', '.join(self.outputs)}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By reference where the module still holds this very node, else by value."""
        reference = reference_to(self)
        if reference is not None:
            return reference
        output = self.outputs if self.unpacks else self.outputs[0]
        return _rebuild, (self.func, output, {option: getattr(self, option) for option in _OPTIONS[1:]})


def _rebuild(func: Callable[..., Any], output: str | tuple[str, ...], options: dict[str, Any]) -> Node[..., Any]:
    return Node(func, output, **options)


def reference_to(thing: Any) -> str | None:
    """The name under which its module holds this very thing, as pickle writes it; None where it goes by value."""
    name: str = thing.__module__
    module = sys.modules.get(name)
    if name == "__main__" or module is None or _goes_by_value(name):
        return None
    found: Any = module
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return str(thing.__qualname__) if found is thing else None


def _goes_by_value(module: str) -> bool:
    """Whether the user asked cloudpickle to send this module's contents by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and module in cloudpickle.list_registry_pickle_by_value()


@overload
def node(func: Callable[P, R], /) -> Node[P, R]: ...
@overload
def node(
    func: Callable[P, R],
    /,
    output_name: str | tuple[str, ...] | None = ...,
    *,
    name: str | None = ...,
    cache: bool = ...,
    retries: int | None = ...,
    retry_delay: float | None = ...,
    max_retry_delay: float | None = ...,
    retry_on: type[Exception] | tuple[type[Exception], ...] = ...,
    retry_jitter: bool = ...,
    timeout: float | None = ...,
    batch_size: int | None = ...,
    batch_over: str | Sequence[str] | None = ...,
    isolate: bool | None = ...,
    resources: Mapping[str, Any] | None = ...,
    limit: str | Sequence[str] | None = ...,
) -> Node[P, R]: ...
@overload
def node(
    *,
    output_name: str | tuple[str, ...] | None = ...,
    name: str | None = ...,
    cache: bool = ...,
    retries: int | None = ...,
    retry_delay: float | None = ...,
    max_retry_delay: float | None = ...,
    retry_on: type[Exception] | tuple[type[Exception], ...] = ...,
    retry_jitter: bool = ...,
    timeout: float | None = ...,
    batch_size: int | None = ...,
    batch_over: str | Sequence[str] | None = ...,
    isolate: bool | None = ...,
    resources: Mapping[str, Any] | None = ...,
    limit: str | Sequence[str] | None = ...,
) -> Callable[[Callable[P, R]], Node[P, R]]: ...
def node(
    func: Callable[..., Any] | None = None,
    /,
    output_name: str | tuple[str, ...] | None = None,
    **options: Any,
) -> Any:
    """Make a node of a function for one item; the function stays a plain callable.

    `output_name` names what it returns: one name, or a tuple of names that the returned tuple is unpacked into;
    without it the output has the function's name. `name` names the node in paths and messages. `cache=False` keeps
    its results out of any cache. `timeout` bounds one call, in seconds.

    `retries` is how often a failing call is tried again, `retry_delay` the pause before the first retry in seconds,
    doubled for each further one up to `max_retry_delay`; what is left out of the first two, the pipeline says.
    `retry_on` names the exceptions that are tried again. `retry_jitter=True` waits a random part of each pause.

    With `batch_size` it is a batch node: the function takes a list for each input that differs from item to item, and
    returns a list of the same length, in their order; values that all items share come single. `batch_over` names the
    parameters that take lists where annotations and wiring leave a doubt. A batch that raises is halved until the
    items at fault are alone, unless `isolate=False`: then it fails as a whole.

    `resources` is what one call needs while it runs: `{"cpus": 2, "gpus": 1, "memory": "4GB"}`. `limit` names the
    limits, declared by a pipeline or a backend, that a call counts against.

    The value of a function that yields is the list of what it yields; where one mapped nested pipeline alone takes it,
    the items flow into that one by one.

    Sync functions and `async def` are both accepted; defaults and keyword-only parameters are honoured.
    Raises `NodeDefinitionError` for `*args`, `**kwargs`, positional-only parameters and unusable names or options.
    """
    unknown = next((option for option in options if option not in _OPTIONS), None)
    if unknown is not None:
        raise NodeDefinitionError(
            f"@node takes no option {unknown!r}{did_you_mean(unknown, _OPTIONS)}; it takes {quoted(_OPTIONS)}"
        )
    if func is None:
        return functools.partial(_make, output_name=output_name, **options)
    if isinstance(func, str):
        raise NodeDefinitionError(f"write @node(output_name='{func}'): the output's name is a keyword")
    return _make(func, output_name=output_name, **options)


_OPTIONS = (
    *("output_name", "name", "cache", "retries", "retry_delay", "max_retry_delay", "retry_on", "retry_jitter"),
    *("timeout", "batch_size", "batch_over", "isolate", "resources", "limit"),
)


def _make(func: Callable[..., Any], **options: Any) -> Node[..., Any]:
    if isinstance(func, Node):
        raise NodeDefinitionError(f"'{func.name}' is a node already; decorate the function once")
    if not callable(func):
        raise NodeDefinitionError(f"@node takes a function, not {func!r}")
    return Node(func, **options)


def check_name(owner: str, name: object, what: str) -> str:
    """`name` if it can name an input or output, else a `NodeDefinitionError` that says why not."""
    if isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name):
        return name
    why = "is a reserved word" if isinstance(name, str) and keyword.iskeyword(name) else "is not an identifier"
    raise NodeDefinitionError(
        f"{owner}: the {what} {name!r} {why}; use letters, digits and underscores, such as 'clean_text'"
    )


def _outputs(owner: str, output_name: object) -> tuple[str, ...]:
    if output_name is None:
        return (check_name(f"node '{owner}'", owner, "output name"),)
    if isinstance(output_name, tuple):
        if not output_name:
            raise NodeDefinitionError(f"node '{owner}': output_name is an empty tuple; name at least one output")
        names = tuple(check_name(f"node '{owner}'", name, "output name") for name in output_name)
        if len(set(names)) < len(names):
            raise NodeDefinitionError(f"node '{owner}': output_name {names} names one output twice")
        return names
    if isinstance(output_name, list):
        raise NodeDefinitionError(
            f"node '{owner}': output_name is a list; give several outputs as a tuple: {tuple(output_name)!r}"
        )
    return (check_name(f"node '{owner}'", output_name, "output name"),)


def parameters_of(owner: str, func: Callable[..., Any]) -> tuple[Parameter, ...]:
    # `inspect.signature` takes 7 us, the code object 1 us: it matters when 10,000 nodes are built.
    if type(func) is FunctionType and not hasattr(func, "__wrapped__") and not hasattr(func, "__signature__"):
        code = func.__code__
        if not (code.co_flags & (_CO_VARARGS | _CO_VARKEYWORDS) or code.co_posonlyargcount):
            names, count = code.co_varnames, code.co_argcount
            first_default = count - len(func.__defaults__ or ())
            plain = [Parameter(name, at < first_default) for at, name in enumerate(names[:count])]
            if not code.co_kwonlyargcount:
                return tuple(plain)
            given = func.__kwdefaults__ or {}
            keyworded = names[count : count + code.co_kwonlyargcount]
            return (*plain, *(Parameter(name, name not in given, True) for name in keyworded))
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        raise NodeDefinitionError(
            f"{owner}: the parameters of {func!r} cannot be read; wrap it in a function of your own"
        ) from None
    found = []
    for parameter in signature.parameters.values():
        refused = _REFUSED.get(parameter.kind)
        if refused:
            raise NodeDefinitionError(
                f"{owner}: {refused.format(parameter.name)} cannot be wired by name; "
                "give the function one named parameter for each input"
            )
        found.append(
            Parameter(parameter.name, parameter.default is parameter.empty, parameter.kind is parameter.KEYWORD_ONLY)
        )
    return tuple(found)


_REFUSED: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "'*{}'",
    inspect.Parameter.VAR_KEYWORD: "'**{}'",
    inspect.Parameter.POSITIONAL_ONLY: "the positional-only parameter '{}'",
}


def _is_async(func: Callable[..., Any]) -> bool:
    """Whether it is awaited, or as an async generator drawn with `async for`."""
    if type(func) is FunctionType:
        # A function is marked by its flags, or (`inspect.markcoroutinefunction`) by an attribute.
        flagged = bool(func.__code__.co_flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR))
        return flagged or bool(func.__dict__ and inspect.iscoroutinefunction(func))
    called = getattr(func, "__call__", None)  # noqa: B004
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (func, called))


def _is_generator(func: Callable[..., Any]) -> bool:
    if type(func) is FunctionType:
        flags = func.__code__.co_flags
        # What `types.coroutine` makes of a generator is awaited.
        return bool(flags & _CO_GENERATORS) and not flags & inspect.CO_ITERABLE_COROUTINE
    called = getattr(func, "__call__", None)  # noqa: B004
    return any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in (func, called))
