"""Modal's containers as a place."""

from __future__ import annotations

import copyreg
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import modal
from modal import exception as failures
from modal.config import config

from hypernodes.plugin import Backend, Demand, Engine, PlaceError, Session, pair
from hypernodes_modal import _errors, _image, _loop, _options
from hypernodes_modal._app import AppKey
from hypernodes_modal._cost import Cost, hourly, ledger_of
from hypernodes_modal._gpus import AS_OF
from hypernodes_modal._session import ModalSession


@dataclass(frozen=True)
class ModalBackend(Backend):
    """Run in containers on Modal: a run is one call, the items of a map are spread over up to `max_concurrent`.

    `image` is a `modal.Image`, a function that makes one, or the id of a built one; without it there is Debian with
    this Python's version. hypernodes and the packages of yours that this program has imported are added to each;
    `packages` names others. `gpu` is a name such as `"A100"` or `"H100:2"`, `memory` text such as `"32GB"` or a number
    of MiB, `cpu` a number of cores; a pair is what is reserved and the most. `timeout` is for one call, in seconds.
    `volumes` are mounted by path, `secrets` come as environment variables: both may be given by name.

    `engine` runs inside each container, with `max_workers` at once there. `retries` is how often Modal itself repeats a
    call whose container died. `min_containers` wait even when nothing runs, `buffer_containers` more than needed are
    kept ready, and a container without work ends after `scaledown_window` seconds.

    Nothing is opened before the first run. Then one app stays open, for all backends with the same `image`, `name`,
    `client` and `environment`, until `close()` or the end of the program.
    """

    name: ClassVar[str] = "modal"
    provides: ClassVar[frozenset[str]] = frozenset({"threads", "processes", "machine", "modal"})
    default_engine: ClassVar[str | None] = "container"
    modes: ClassVar[tuple[str, ...]] = ("async", "parallel")

    image: modal.Image | Callable[[], modal.Image] | str | None = None
    gpu: str | None = None
    memory: str | int | tuple[str | int, str | int] | None = None
    cpu: float | str | tuple[float, float] | None = None
    timeout: int = 3600
    volumes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    secrets: Sequence[Any] = ()
    max_concurrent: int = 10
    engine: str | Engine | None = None
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    map_strategy: str | None = None
    limits: Mapping[str, Any] | None = field(default=None, hash=False)
    retries: int = 0
    min_containers: int = 0
    buffer_containers: int = 0
    scaledown_window: int = 60
    packages: Sequence[str] | None = None
    app_name: str = "hypernodes"
    client: Any = None
    environment: str | None = None
    show_output: bool = False

    def __post_init__(self) -> None:
        _keep_at_home()
        checked: dict[str, Any] = {
            "volumes": _options.mounted(self.volumes),
            "secrets": _options.given_secrets(self.secrets),
            "timeout": _options.seconds("timeout", self.timeout, 1, _options.LONGEST),
            "scaledown_window": _options.seconds("scaledown_window", self.scaledown_window, 2, 1200),
        }
        if self.memory is not None:
            checked["memory"] = _options.bounds(self.memory, "memory", _options.memory_in_mib)
        if self.cpu is not None:
            checked["cpu"] = _options.bounds(self.cpu, "cpu", _options.processors)
        if self.gpu is not None:
            checked["gpu"] = _options.gpu_text(self.gpu)
        _options.whole_number("max_concurrent", self.max_concurrent, 1)
        for option in ("min_containers", "buffer_containers"):
            _options.whole_number(option, getattr(self, option), 0)
        _options.whole_number("retries", self.retries, 0, 10)
        if self.min_containers > self.max_concurrent:
            raise _options.fault("min_containers", self.min_containers, f"max_concurrent={self.max_concurrent} is less")
        checked["packages"] = _options.names("packages", self.packages)
        _options.check_image(self.image)
        _options.check_client(self.client)
        _options.text("app_name", self.app_name)
        if self.environment is not None:
            _options.text("environment", self.environment)
        if self.engine is None and self.map_execution is None:
            checked["map_execution"] = "parallel"
        for option, value in checked.items():
            object.__setattr__(self, option, value)
        open_mode = self.node_execution is None and self.engine is None
        pair(self)
        if open_mode:
            # Nodes of an item run one after another in a container, and a copy with other options may say otherwise.
            object.__setattr__(self, "node_execution", None)

    def __reduce__(self) -> Any:
        raise TypeError(
            "a ModalBackend stays in the program that runs the pipeline, it cannot be sent along; a pipeline inside "
            "another one may have it as its backend"
        )

    def __copy__(self) -> ModalBackend:
        return self

    def __deepcopy__(self, memo: Any) -> ModalBackend:
        return self

    def open(self) -> Session:
        if self.client is None and _errors.is_local() and not _has_credentials():
            raise PlaceError(_errors.NO_TOKEN)
        target: str = self._engine_spec.target  # type: ignore[attr-defined] # set by `pair`
        engine_package = re.split(r"[.:]", target)[0]
        key = AppKey(
            image=self.image,
            plugins=_image.plugins_for(engine_package),
            packages=self.packages if self.packages is None else tuple(self.packages),
            name=self.app_name,
            client=self.client,
            environment=self.environment,
            show_output=self.show_output,
            options=self._own_options() if self.min_containers else {},
        )
        return ModalSession(self, key, ledger_of(self))

    def _own_options(self) -> dict[str, Any]:
        return {**self._options(), "min_containers": self.min_containers}

    def _options(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "gpu": self.gpu,
            "memory": self.memory,
            "cpu": self.cpu,
            "secrets": list(self.secrets) or None,
            "volumes": dict(self.volumes),
            "timeout": self.timeout,
            "retries": self.retries or None,
            "max_containers": self.max_concurrent,
            "buffer_containers": self.buffer_containers or None,
            "scaledown_window": self.scaledown_window,
        }
        return {option: value for option, value in found.items() if value is not None}

    def function_options(self, demand: Demand) -> dict[str, Any]:
        """What the app's function is given for a call that needs this; empty where it has all from its making on."""
        asked = self._asked(demand)
        if self.min_containers:
            return asked
        return {**self._options(), **asked}

    def _asked(self, demand: Demand) -> dict[str, Any]:
        """What a demand asks for beyond what every container of this backend has."""
        asked: dict[str, Any] = {}
        if demand.gpus:
            kind, _, count = (self.gpu or "").partition(":")
            wanted = -(-demand.gpus // 1)
            if not kind:
                raise PlaceError(
                    f"a node asks for {demand.gpus:g} GPUs, and this ModalBackend names none; say which kind, as in "
                    "ModalBackend(gpu='A100')"
                )
            if wanted > int(count or 1):
                asked["gpu"] = f"{kind}:{wanted:.0f}"
        cores = self.cpu[0] if isinstance(self.cpu, tuple) else self.cpu
        if demand.cpus and (cores is None or demand.cpus > float(cores)):
            asked["cpu"] = float(demand.cpus)
        reserved = self.memory[0] if isinstance(self.memory, tuple) else self.memory
        mib = -(-demand.memory // 1024**2)
        if mib and (reserved is None or mib > int(reserved)):
            asked["memory"] = mib
        return asked

    def hourly(self, demand: Demand | None = None) -> float | None:
        """US dollars an hour for one container, by the table of prices; None for a GPU that is not in it."""
        asked = self._asked(demand) if demand is not None else {}
        return hourly(asked.get("gpu", self.gpu), asked.get("cpu", self.cpu), asked.get("memory", self.memory))

    def about(self) -> str:
        """What `explain` says of this place."""
        price = self.hourly()
        if price is None:
            return f"up to {self.max_concurrent} containers; the price of gpu '{self.gpu}' is not known here"
        most = price * self.max_concurrent
        return (
            f"up to {self.max_concurrent} containers; about ${price:,.2f} an hour for each, ${most:,.2f} for all, by "
            f"the prices of {AS_OF}"
        )

    def cost(self) -> Cost:
        """What this backend has used since its first run in this program, with what Modal has billed so far.

        Modal bills by the hour: what was used just now is reported later.
        """
        ledger = ledger_of(self)
        return ledger.cost(self._billed(ledger.apps, ledger.since))

    def _billed(self, apps: set[str], since: datetime) -> float | None:
        if not apps or (self.client is None and _errors.is_local() and not _has_credentials()):
            return None
        loop = _loop.hold()
        try:
            return _loop.wait_for(loop, _ask_bill(self.client, apps, since))
        finally:
            _loop.release()


async def _ask_bill(client: Any, apps: set[str], since: datetime) -> float | None:
    """What Modal billed for these apps in US dollars; None where it does not report, or nothing yet."""
    if "Workspace" not in modal.__dict__:
        return None  # before 1.5.4
    try:
        workspace = modal.Workspace.from_context(client=client)
        start = since.replace(minute=0, second=0, microsecond=0)
        items = await workspace.billing.report.aio(start=start, end=datetime.now(UTC), resolution="h")
    except failures.Error:
        return None  # not every plan and token may read it
    costs = [float(item.cost) for item in items if item.object_id in apps]
    return sum(costs) if costs else None


def _has_credentials() -> bool:
    return any(config.get(name) for name in ("token_id", "oauth_refresh_token") if name in config.to_dict())


def _keep_at_home() -> None:
    """Let plain pickling of Modal's objects say what to do instead; without this, some go and are broken over there."""
    for kind, instead in (
        (modal.Secret, "give it to ModalBackend(secrets=[...]), and read os.environ inside the node"),
        (modal.Image, "give it to ModalBackend(image=...)"),
        (modal.Volume, "give it to ModalBackend(volumes={path: ...}), and open files below that path inside the node"),
    ):
        copyreg.pickle(kind, _refusing(kind, instead))


def _refusing(kind: type, instead: str) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        raise TypeError(f"a modal.{kind.__name__} cannot be sent along; {instead}")

    return refuse
