"""One cluster of the control plane: its machines, their states, and how the client sees them."""

from __future__ import annotations

import datetime
import secrets
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.config

from coiled_plane.certificate import Certificate
from coiled_plane.processes import end, has_ended, start
from coiled_plane.vm_types import VM_TYPES

__all__ = ["Machine", "PlaneCluster"]


@dataclass
class Machine:
    """A scheduler or a worker: its process, and a state that does not follow from it, if there is one."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    state: str = ""
    reason: str = ""


@dataclass
class PlaneCluster:
    """A cluster as it was asked for. Its machines are processes of this machine."""

    id: int
    name: str
    payload: dict[str, Any]
    folder: Path
    certificate: Certificate
    scheduler: Machine = field(init=False)
    workers: list[Machine] = field(default_factory=list)
    state: str = "starting"
    reason: str = ""
    deleted: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        self.scheduler = Machine(f"{self.name}-scheduler")

    # what the control plane does with it -----------------------------------------------------------------------------

    def start(self, errors: list[str]) -> None:
        """Start the scheduler and the workers that were asked for; the first ones fail for these reasons."""
        opts = {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": "tls",
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            **(self.payload["scheduler_options"] or {}),
        }
        with self.lock:
            self.scheduler.process = self._process("scheduler", {"kind": "scheduler", "opts": opts})
            self.add_workers(self.payload["workers"], errors)

    def add_workers(self, count: int, errors: list[str] | None = None) -> list[Machine]:
        """Start so many more; as many as there are errors fail instead."""
        failing = list(errors or ())
        with self.lock:
            added = []
            for _ in range(count):
                worker = Machine(f"{self.name}-worker-{secrets.token_hex(4)}")
                if failing:
                    worker.state, worker.reason = "error", failing.pop(0)
                else:
                    worker.process = self._worker_process(worker.name)
                self.workers.append(worker)
                added.append(worker)
            return added

    def remove_workers(self, identifiers: list[str]) -> None:
        """End the workers whose names end like this."""
        with self.lock:
            leaving = [worker for worker in self.workers if worker.name.endswith(tuple(identifiers))]
            end([worker.process for worker in leaving if worker.process], grace=2)
            self.workers = [worker for worker in self.workers if worker not in leaving]

    def stop(self, reason: str, state: str = "stopped") -> None:
        """End all machines."""
        with self.lock:
            machines = [self.scheduler, *self.workers]
            # as a cloud ends machines: nobody is asked
            end([machine.process for machine in machines if machine.process], grace=0)
            for machine in machines:
                machine.state = machine.state or "stopped"
            if self.state != "error":
                self.state, self.reason = state, reason

    def settle(self, seconds: float) -> None:
        """Wait until it is ready, or will never be."""
        until = time.monotonic() + seconds
        while self.look() == "starting" and time.monotonic() < until:
            time.sleep(0.02)

    def look(self) -> str:
        """Its state now: what has arrived, and whether the scheduler has ended by itself."""
        with self.lock:
            if self.scheduler.process and not self.scheduler.state and has_ended(self.scheduler.process):
                self.stop("the scheduler has ended")
            if self.state == "starting" and self._state_of(self.scheduler) == "started":
                states = [self._state_of(worker) for worker in self.workers]
                if all(state in ("started", "error") for state in states):
                    self.state = "ready"
            return self.state

    # how the client sees it ------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What the client calls the cluster's details."""
        self.look()
        with self.lock:
            address = self.folder / "address"
            port = int(address.read_text(encoding="utf-8").rpartition(":")[2]) if address.exists() else None
            options = self.payload.get("options") or {}
            return {
                "id": self.id,
                "name": self.name,
                "created": _now(),
                "current_state": _state(self.state, self.reason),
                "desired_workers": len(self.workers),
                "scheduler": {**self.process(self.scheduler), "dashboard_address": "http://127.0.0.1:0/status"},
                "scheduler_port": port,
                "workers": [self.process(worker) for worker in self.workers],
                "backend_type": "vm_aws",
                "cluster_infra": {"give_scheduler_public_ip": True},
                "cluster_options": {
                    "tls_cert": self.certificate.cert,
                    "tls_key": self.certificate.key,
                    "region_name": options.get("region_name", "us-east-2"),
                },
            }

    def process(self, machine: Machine) -> dict[str, Any]:
        """One machine, as the client sees it."""
        state = self._state_of(machine)
        started = state in ("started", "pending", "starting")
        return {
            "id": self.id,
            "name": machine.name,
            "created": _now(),
            "current_state": _state(state, machine.reason),
            "instance": {
                "id": self.id,
                "name": f"{machine.name}-vm",
                "created": _now(),
                "public_ip_address": "127.0.0.1",
                "private_ip_address": "127.0.0.1",
                "current_state": _state("ready" if started else state, machine.reason),
            },
        }

    # inside ----------------------------------------------------------------------------------------------------------

    def _state_of(self, machine: Machine) -> str:
        if machine.state:
            return machine.state
        if machine.process and has_ended(machine.process):
            return "error"
        sign = "address" if machine is self.scheduler else f"{machine.name}.arrived"
        return "started" if (self.folder / sign).exists() else "starting"

    def _worker_process(self, name: str) -> subprocess.Popen[bytes]:
        types = self.payload["worker_instance_types"] or ["m6i.large"]
        cores = next((vm["cores"] for vm in VM_TYPES if vm["name"] == types[0]), 2)
        opts = {
            "name": name,
            "host": "127.0.0.1",
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "nthreads": cores,
            "memory_limit": 0,
            "local_directory": str(self.folder),
            **(self.payload["worker_options"] or {}),
        }
        class_name = self.payload["worker_class"] or "distributed.Nanny"
        return self._process(name, {"kind": "worker", "class": class_name, "opts": opts})

    def _process(self, name: str, spec: dict[str, Any]) -> subprocess.Popen[bytes]:
        config = dask.config.merge(self.payload["dask_config"] or {}, self.certificate.dask_config())
        environ = self.payload["environ"] or {}
        return start({**spec, "folder": str(self.folder)}, config, environ, self.folder / f"{name}.log")


def _state(state: str, reason: str) -> dict[str, str]:
    return {"state": state, "reason": reason, "updated": _now()}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
