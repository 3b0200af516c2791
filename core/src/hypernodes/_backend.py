"""A backend says where work runs, and with which engine: Backend = Infrastructure + Engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from hypernodes._demand import Demand
from hypernodes._engine import Engine
from hypernodes._errors import IncompatibleEngineError, quoted
from hypernodes._modes import check_mode, default_engine, fill_modes
from hypernodes._payload import Buffer, payload_of
from hypernodes._specs import BackendSpec, EngineSpec
from hypernodes._strategy import check_strategy

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Backend", "Session", "check_workers", "pair"]


class Backend(ABC):
    """A frozen configuration of a place and its engine; equal backends are one place.

    Subclass it as a frozen dataclass with the fields `engine`, `node_execution`, `map_execution` and `max_workers`, and
    call `pair(self)` in `__post_init__`. Nothing is opened before the first run that needs it. With a field
    `map_strategy` users may choose that, too; a field `limits` declares limits by name, for nodes whose pipelines
    declare none of that name.
    """

    name: ClassVar[str] = ""
    provides: ClassVar[frozenset[str]] = frozenset()
    default_engine: ClassVar[str | None] = None
    modes: ClassVar[tuple[str, ...]] = ("sequential", "async", "parallel")

    engine: Any
    node_execution: str | None
    map_execution: str | None
    max_workers: int | None
    limits: Mapping[str, Any] | None = None

    @abstractmethod
    def open(self) -> Session:
        """Make the place ready. Called on first need."""

    def capacity(self) -> Demand | None:
        """What all calls of nodes together may use at once; a call that needs more is refused before a run.

        None where the place sees to that itself, or nobody knows: then nothing is bounded here.
        """
        return None

    def about(self) -> str:
        """What `explain` adds about this place, such as what it costs; `""` for nothing."""
        return ""

    @classmethod
    def spec(cls) -> BackendSpec:
        """This class as its own specification."""
        return BackendSpec(
            name=cls.name or cls.__name__,
            target=f"{cls.__module__}:{cls.__qualname__}",
            provides=cls.provides,
            default_engine=cls.default_engine or "sequential",
            modes=cls.modes,
        )

    def __enter__(self) -> Backend:
        from hypernodes._places import hold

        hold(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open for this backend: pools, apps, clusters. It opens again when it is next needed."""
        from hypernodes._places import close

        close(self)


class Session(ABC):
    """A backend that is open.

    `here` says that its engine runs in this process. A session elsewhere carries payloads: `submit` takes the bytes of
    one request and gives a future of the reply's bytes; over there `hypernodes.plugin.receive(payload)` makes one of
    the other. A future that fails with `WorkerLostError` says that the place died under this payload. `workers` is how
    many payloads may run at once. `handles` are what engines may drive from here. A `warm` session stays open
    between runs, until `backend.close()` or the end of the process.
    """

    here: ClassVar[bool] = False
    warm: bool = False
    workers: int = 1
    handles: Mapping[str, Any] = {}

    def sized(self, demand: Demand) -> Session:
        """The session for calls of nodes that use this much, as they say in `@node(resources=...)`.

        Itself, where workers are all alike. Override where the place has other workers for those that need more; only
        `submit` and `submit_request` of what this gives are called.
        """
        return self

    def submit(self, payload: bytes) -> Future[bytes]:
        """Send one request; the future gives the reply."""
        raise NotImplementedError(f"{type(self).__qualname__} carries no payloads")

    def submit_request(self, frames: Sequence[Buffer], blobs: Mapping[str, bytes]) -> Future[bytes]:
        """Send one request whose blobs are apart: the pickled stage, large inputs that rows share, by digest.

        All goes into one payload. Override where the place can keep what it has once got: send each blob once, the
        rest as `payload_of(frames, {})`, and over there give the blobs to `receive(payload, blobs)`.
        """
        return self.submit(payload_of(frames, blobs))

    def abort(self) -> None:  # noqa: B027
        """Stop what is running now, because nobody wants it any more. A place that cannot lets it finish."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind. Called once."""


def pair(backend: Backend) -> None:
    """Check a backend's engine and modes against what it provides, and fill in what was left open.

    Sets `engine_spec`, `node_execution` and `map_execution` of the frozen backend. Raises `IncompatibleEngineError`
    with the reason and the backends that could, or what looking up the engine's name raises.
    """
    from hypernodes import _pairing

    owner = type(backend).__name__
    check_workers(owner, "max_workers", backend.max_workers)
    for option in ("node_execution", "map_execution"):
        check_mode(owner, option, getattr(backend, option))
        mode = getattr(backend, option)
        if mode is not None and mode not in backend.modes:
            raise IncompatibleEngineError(
                f"{owner}: {option}={mode!r} makes no sense here, it takes {quoted(backend.modes)}"
            )
    spec = _engine_spec(owner, backend)
    # An instance may provide more than its class: what it was given decides.
    refusal = _pairing.refusal(replace(backend.spec(), provides=backend.provides), spec)
    if refusal is not None:
        hosts = [host for host in _pairing.hosts(spec) if host != backend.name]
        raise IncompatibleEngineError(
            f"{owner} cannot run engine '{spec.name}': {refusal}; "
            f"backends that can: {', '.join(hosts) or 'none installed'}"
        )
    # A backend's own engine runs as it does best, just as one that the user named.
    named = backend.engine is not None or backend.default_engine is not None
    node_mode, map_mode = fill_modes(owner, spec, backend.node_execution, backend.map_execution, named=named)
    check_strategy(owner, getattr(backend, "map_strategy", None), spec.modes, spec.name)
    object.__setattr__(backend, "node_execution", node_mode)
    object.__setattr__(backend, "map_execution", map_mode)
    object.__setattr__(backend, "_engine_spec", spec)


def engine_spec_of(backend: Backend) -> EngineSpec:
    """The specification of the engine that a paired backend runs."""
    spec: EngineSpec = backend._engine_spec  # type: ignore[attr-defined]
    return spec


def engine_of(backend: Backend) -> Engine:
    """The engine itself; its library is imported now."""
    if isinstance(backend.engine, Engine):
        return backend.engine
    from hypernodes import _registry

    engine: Engine = _registry.load(engine_spec_of(backend))()
    return engine


def label(backend: Backend) -> str:
    """How failures, events and reports name the place: `local:threaded`."""
    return f"{backend.name or type(backend).__name__}:{engine_spec_of(backend).name}"


def check_workers(owner: str, option: str, workers: object) -> None:
    """Raise `IncompatibleEngineError` (a ValueError) unless `workers` is None or a whole number of at least 1."""
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise IncompatibleEngineError(f"{owner}: {option}={workers!r}; give a whole number, 1 or more, or leave it out")


def _engine_spec(owner: str, backend: Backend) -> EngineSpec:
    from hypernodes import _registry  # first needed here: 5 ms that importing hypernodes is spared

    engine = backend.engine
    if engine is None:
        name = backend.default_engine or default_engine(backend.node_execution, backend.map_execution)
        return _registry.engine_spec(name)
    if isinstance(engine, str):
        return _registry.engine_spec(engine)
    if isinstance(engine, Engine):
        # An instance may require other things than its class: what it was given decides.
        return replace(engine.spec(), requires=engine.requires)
    if isinstance(engine, type) and issubclass(engine, Engine):
        raise IncompatibleEngineError(
            f"{owner}: engine={engine.__name__} is a class; call it: engine={engine.__name__}()"
        )
    raise IncompatibleEngineError(
        f"{owner}: engine={engine!r} is neither the name of an engine, such as 'threaded', nor an Engine"
    )
