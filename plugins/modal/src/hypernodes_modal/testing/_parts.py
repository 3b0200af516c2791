"""The parts of a control plane, put together: what each is given of the others, and in which order they end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hypernodes_modal.testing._apps import Apps
from hypernodes_modal.testing._billing import Billing
from hypernodes_modal.testing._blobs import Blobs
from hypernodes_modal.testing._calls import Calls
from hypernodes_modal.testing._containers import Containers
from hypernodes_modal.testing._control_plane import ControlPlane
from hypernodes_modal.testing._dicts import Dicts
from hypernodes_modal.testing._fleet import Fleet
from hypernodes_modal.testing._functions import Functions
from hypernodes_modal.testing._images import Images
from hypernodes_modal.testing._input_plane import InputPlane
from hypernodes_modal.testing._launch import Launcher
from hypernodes_modal.testing._links import Links
from hypernodes_modal.testing._mounts import Mounts, Secrets
from hypernodes_modal.testing._queues import Queues
from hypernodes_modal.testing._records import App
from hypernodes_modal.testing._rpc import Endpoint, Switchboard
from hypernodes_modal.testing._shelf import Records
from hypernodes_modal.testing._volumes import Volumes

__all__ = ["Parts", "Settings"]


@dataclass(frozen=True)
class Settings:
    """What a control plane was asked to be. The fields are the arguments of `LocalModal`."""

    token: tuple[str, str]
    capacity: int
    secrets: Mapping[str, Mapping[str, str]]
    gpus: frozenset[str] | None
    rates: Mapping[str, str]
    pythons: Mapping[str, str]
    input_plane: bool
    crash_limit: int
    cancel_grace: float


class Parts:
    """Everything that lives in the loop of a control plane. Made and used in that loop alone."""

    def __init__(self, home: Path, told: Settings, fails: Callable[[tuple[str, ...]], str | None]) -> None:
        records = self.records = Records(home)
        self.links, self.blobs, calls = Links(), Blobs(records), Calls(records)
        mounts, volumes = Mounts(records, self.blobs), Volumes(records, self.blobs, self.links)
        self.apps = Apps(records, self._publish, self._end)
        launcher = Launcher(records, mounts, volumes, self.links, told.pythons, self.apps.layout, told.input_plane)
        fleet = self.fleet = Fleet(records, calls, launcher, told.capacity, told.crash_limit, told.cancel_grace)
        self.calls = calls
        calls.arrange, calls.interrupt = fleet.arrange, fleet.interrupt
        functions = Functions(records, volumes.check, fleet.arrange, told.gpus, told.input_plane)
        parts = (
            *(self.apps, functions, Images(records, told.pythons, fails), mounts, Secrets(records, told.secrets)),
            *(volumes, self.blobs, Dicts(records), Queues(records), Billing(records, told.rates)),
            *(ControlPlane(calls, fleet), InputPlane(calls), Containers(records, calls, fleet)),
        )
        self.board = launcher.switchboard = Switchboard(parts, told.token)
        self._endpoint = Endpoint(self.board)

    def _publish(self, app: App) -> None:
        self.fleet.arrange()

    def _end(self, app: App) -> None:
        self.fleet.end(app)
        self.calls.end(app)

    async def open(self) -> str:
        """Open the servers, and give the address for clients."""
        await self.blobs.open()
        return await self._endpoint.open()

    async def shut(self) -> None:
        """End what runs, then what it talks to, then what it stands on."""
        self.calls.shut()
        await self.fleet.shut()
        await self._endpoint.shut()
        await self.blobs.shut()
        self.links.shut()
        shutil.rmtree(self.records.home, ignore_errors=True)
