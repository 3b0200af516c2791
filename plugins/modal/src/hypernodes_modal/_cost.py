"""What containers cost: by a dated table of prices, by the time that calls took, and by what Modal billed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hypernodes_modal._gpus import AS_OF, CORE, GIBIBYTE, LEAST_CORES, LEAST_MIB, gpu_price


@dataclass(frozen=True)
class Cost:
    """What a backend has used since it was opened, in this program.

    `calls` came home from `containers` different containers, and kept them busy for `seconds` in all. `estimate` is
    what these seconds cost in US dollars by the table of prices; None where a GPU is not in it. The time in which
    containers start and wait is not in it. `billed` is what Modal has billed, None as long as it reports nothing.
    """

    calls: int
    containers: int
    seconds: float
    estimate: float | None
    billed: float | None = None

    def __str__(self) -> str:
        money = "price unknown" if self.estimate is None else f"about ${self.estimate:,.4f} by the prices of {AS_OF}"
        billed = "" if self.billed is None else f"; Modal billed ${self.billed:,.4f}"
        plural = "" if self.containers == 1 else "s"
        busy = f"{self.calls} calls kept {self.containers} container{plural} busy for {self.seconds:,.1f} s"
        return f"{busy}: {money}{billed}"


def hourly(gpu: str | None, cpu: Any, memory: Any) -> float | None:
    """US dollars an hour for a container that asks for this; None where a GPU is not in the table."""
    graphics = gpu_price(gpu)
    if graphics is None:
        return None
    cores = LEAST_CORES if cpu is None else cpu[0] if isinstance(cpu, tuple) else cpu
    mib = LEAST_MIB if memory is None else memory[0] if isinstance(memory, tuple) else memory
    return float(graphics + cores * CORE + mib / 1024 * GIBIBYTE)


class Ledger:
    """What the calls of one backend have used."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.since = datetime.now(UTC)
        self.apps: set[str] = set()
        self._lock = threading.Lock()
        self._calls, self._seconds, self._spent = 0, 0.0, 0.0
        self._unknown = False
        self._containers: set[str] = set()

    def book(self, seconds: float, container: str, price: float | None) -> None:
        with self._lock:
            self._calls += 1
            self._seconds += seconds
            self._containers.add(container)
            if price is None:
                self._unknown = True
            else:
                self._spent += seconds * price / 3600

    def cost(self, billed: float | None) -> Cost:
        with self._lock:
            spent = None if self._unknown else self._spent
            return Cost(self._calls, len(self._containers), self._seconds, spent, billed)


_ledgers: list[Ledger] = []
_lock = threading.Lock()


def ledger_of(backend: Any) -> Ledger:
    """The ledger that equal backends share."""
    with _lock:
        for ledger in _ledgers:
            if ledger.backend == backend:
                return ledger
        _ledgers.append(Ledger(backend))
        return _ledgers[-1]
