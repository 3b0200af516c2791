"""What things cost: the rates that a workspace is told, and a report of what containers have used."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

from hypernodes_modal.testing._records import App, Container
from hypernodes_modal.testing._rpc import Caller, message
from hypernodes_modal.testing._shelf import Records

__all__ = ["Billing"]

HOUR = Decimal(3600)


class Billing:
    """Serves rates and reports. `rates` are dollars an hour: `"cpu"` for a core, `"memory"` for a GiB, GPUs by name."""

    def __init__(self, records: Records, rates: Mapping[str, str]) -> None:
        self.records, self.rates = records, dict(rates)

    async def WorkspaceBillingRates(self, request: Any, caller: Caller) -> Any:
        text = "\n".join(f"{name}: ${rate}/h" for name, rate in self.rates.items())
        return message("WorkspaceBillingRatesResponse", rates=self.rates, formatted=text)

    async def WorkspaceBillingReport(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        wanted = set(getattr(request, "app_ids", ()))
        for app in self.records.apps:
            if wanted and app.id not in wanted:
                continue
            parts = self._cost(app)
            if parts:
                named = request.tag_names
                tags = {name: value for name, value in app.tags.items() if "*" in named or name in named}
                yield message(
                    "WorkspaceBillingReportItem",
                    object_id=app.id,
                    description=app.name,
                    environment_name=app.environment,
                    interval=request.start_timestamp,
                    cost=str(sum(parts.values())),
                    tags=tags,
                    cost_by_resource={name: str(cost) for name, cost in parts.items()},
                )

    def _cost(self, app: App) -> dict[str, Decimal]:
        parts: dict[str, Decimal] = {}
        for container in self.records.containers.values():
            if container.function.app is app:
                for name, amount in used(container).items():
                    rate = Decimal(self.rates.get(name, "0"))
                    parts[name] = parts.get(name, Decimal(0)) + amount * rate / HOUR
        return parts


def used(container: Container) -> dict[str, Decimal]:
    """Units times seconds of each resource that a container has had: at least an eighth of a core and 128 MiB."""
    resources = container.function.resources
    seconds = Decimal(str((container.ended or time.monotonic()) - container.started))
    cores = Decimal(max(125, resources.milli_cpu)) / 1000
    memory = Decimal(max(128, resources.memory_mb)) / 1024
    amounts = {"cpu": cores * seconds, "memory": memory * seconds}
    if gpu := resources.gpu_config.gpu_type:
        amounts[gpu.lower()] = seconds * max(1, resources.gpu_config.count)
    return amounts
