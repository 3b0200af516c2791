"""A cluster that Coiled starts: made when it is needed, told about in the log, ended with its backend."""

from __future__ import annotations

import atexit
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import coiled

from hypernodes_coiled._account import log_in
from hypernodes_coiled._clusters import GivenPlace, Place
from hypernodes_coiled._errors import CoiledStartError
from hypernodes_coiled._secrets import Secrets

__all__ = ["CoiledPlace"]

WORK_AHEAD = "200ms"
"""How long the work that waits may take before more workers are asked for: one chunk. No more than two wait for each
worker that there could be, so that with the client's own bound, three minutes, no cluster would ever grow."""
MANY_CPUS = 16
"""From so many CPUs on it matters that a machine has one worker process: plain Python keeps one of them busy."""

_log = logging.getLogger("hypernodes.coiled")


class CoiledPlace(Place):
    """A running cluster of Coiled's: started now, or attached to by its name. Raises `CoiledStartError`."""

    owned = True

    def __init__(self, options: Mapping[str, Any], secrets: Secrets) -> None:
        # looked up first: a variable that is missing must not cost the start of a cluster
        private = secrets.reveal()
        self._cloud = log_in(options.get("workspace"))
        try:
            self._cluster = _start(options, self._cloud)
        except BaseException:
            self._cloud.close()
            raise
        self.attached = not self._cluster.created
        try:
            self._prepare(options, private)
        except Exception as error:
            self.close()
            raise CoiledStartError(f"{self} could not be prepared: {type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        _log.info("%s is ready; its dashboard is %s", self, self._cluster.dashboard_link)

    def _prepare(self, options: Mapping[str, Any], private: dict[str, str]) -> None:
        self._given = GivenPlace(self._cluster, None, owned=True)
        self.address, self.security = self._given.address, self._given.security
        if private:
            send = self._cluster.send_private_envs
            # older clients only log when the variables do not arrive
            can_raise = "raise_on_error" in inspect.signature(send).parameters
            send(private, **({"raise_on_error": True} if can_raise else {}))
        if isinstance(options.get("n_workers"), list) and not self.attached:
            fewest, *_, most = options["n_workers"]
            self._cluster.adapt(minimum=fewest, maximum=most, target_duration=WORK_AHEAD)

    @property
    def may_end_workers(self) -> bool:
        """Others may use the workers of a cluster that was there before."""
        return not self.attached

    def alive(self) -> bool:
        return self._given.alive()

    def expected_threads(self, present: int, workers: int) -> int:
        return self._given.expected_threads(present, workers)

    def close(self) -> None:
        """End the cluster, or let go of one that was there before. What cannot be told to Coiled is logged."""
        try:
            self._cluster.close()
        except Exception as error:
            _log.warning(
                "%s could not be closed (%s: %s); Coiled ends it when it has had no client for a while",
                self,
                type(error).__name__,
                error,
            )
        finally:
            self._cloud.close()

    def __str__(self) -> str:
        return f"'{self._cluster.name}' on Coiled"


def _start(options: Mapping[str, Any], cloud: Any) -> StartedCluster:
    defaults = {"show_widget": False, "configure_logging": False}
    try:
        return StartedCluster(**{**defaults, **options}, cloud=cloud)
    except Exception as error:
        name = f" '{options['name']}'" if "name" in options else ""
        raise CoiledStartError(f"Coiled did not start the cluster{name}: {type(error).__name__}: {error}") from error


_starting: set[StartedCluster] = set()


@atexit.register
def _end_what_starts() -> None:
    """A program that ends while a cluster starts, in a thread that nobody waits for any more, leaves it to nobody."""
    for cluster in list(_starting):
        if cluster.created and cluster.cluster_id is not None:
            reason = "the program ended while the cluster started"
            cluster.cloud.delete_cluster(cluster.cluster_id, workspace=cluster.workspace, reason=reason)


class StartedCluster(coiled.Cluster):  # type: ignore[misc]
    """A `coiled.Cluster` that says in the log what it asks for, and remembers whether it was made or found."""

    created = False

    def __init__(self, **options: Any) -> None:
        _starting.add(self)
        try:
            super().__init__(**options)
        finally:
            _starting.discard(self)

    async def _get_cluster_vm_types_to_use(self) -> Any:
        # The client calls it once it knows that the cluster must be made.
        self.created = True
        found = await super()._get_cluster_vm_types_to_use()
        _log.info("%s", await _sentence(self, found[1]))
        return found


async def _sentence(cluster: Any, types: list[str]) -> str:
    """What is asked for: how many workers of which machines, and how many CPUs that makes."""
    count = cluster._start_n_workers
    asked = f"asking Coiled for '{cluster.name}': {count} workers of {' or '.join(types)}"
    known = await _known_types(cluster)
    if not types or types[0] not in known:
        return asked
    cores, memory = int(known[types[0]]["cores"]), int(known[types[0]]["memory"]) / 1024
    each = f"{asked} ({cores} CPUs, {memory:,.0f} GiB each), {cores * count:,} CPUs in all"
    if cores >= MANY_CPUS and "nthreads" not in (cluster.worker_options or {}):
        return (
            f"{each}. Each machine has one worker process of {cores} threads: nodes of plain Python use one CPU of it; "
            "smaller machines, or engine='multiprocess', use all"
        )
    return each


async def _known_types(cluster: Any) -> Mapping[str, Any]:
    """What Coiled tells of machine types, narrowed to what was asked for; nothing if it does not tell."""
    try:
        known: Mapping[str, Any] = await cluster.cloud._list_instance_types(
            cores=cluster.worker_cpu,
            memory=cluster.worker_memory,
            backend=await cluster._get_account_cloud_provider_name(),
        )
    except Exception as error:  # a log line is not worth a cluster
        _log.debug("Coiled's machine types are not known: %r", error)
        return {}
    return known
