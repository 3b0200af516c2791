"""Queues, with partitions."""

from __future__ import annotations

from typing import Any

from grpclib import Status

from hypernodes_modal.testing._records import NamedQueue
from hypernodes_modal.testing._rpc import Caller, message, refuse
from hypernodes_modal.testing._shelf import Records

__all__ = ["Queues"]

ROOM = 5000
"""Values that one partition holds at most."""


class Queues:
    """Serves the RPCs about queues."""

    def __init__(self, records: Records) -> None:
        self.records = records

    async def QueueGetOrCreate(self, request: Any, caller: Caller) -> Any:
        found = self.records.queues.find(request, lambda key: NamedQueue(key, request.deployment_name))
        metadata = message("QueueMetadata", name=found.name)
        return message("QueueGetOrCreateResponse", queue_id=found.id, metadata=metadata)

    async def QueueGetById(self, request: Any, caller: Caller) -> Any:
        found = self.records.queues.get(request.queue_id)
        return message("QueueGetByIdResponse", queue_id=found.id, metadata=message("QueueMetadata", name=found.name))

    async def QueueHeartbeat(self, request: Any, caller: Caller) -> None:
        self.records.queues.get(request.queue_id)

    async def QueuePut(self, request: Any, caller: Caller) -> None:
        queue = self.records.queues.get(request.queue_id)
        partition = queue.partition(request.partition_key)
        if len(partition) + len(request.values) > ROOM:
            raise refuse(Status.RESOURCE_EXHAUSTED, f"Queue '{queue.name or queue.id}' is full")
        for value in request.values:
            queue.entries += 1
            partition.append((queue.entries, value))
        queue.bell.ring()

    async def QueueGet(self, request: Any, caller: Caller) -> Any:
        queue = self.records.queues.get(request.queue_id)
        partition = queue.partition(request.partition_key)
        await queue.bell.until(lambda: bool(partition), min(request.timeout, 50.0))
        count = min(len(partition), max(1, request.n_values))
        return message("QueueGetResponse", values=[partition.popleft()[1] for _ in range(count)])

    async def QueueNextItems(self, request: Any, caller: Caller) -> Any:
        queue = self.records.queues.get(request.queue_id)
        partition, after = queue.partition(request.partition_key), int(request.last_entry_id or 0)

        def fresh() -> list[tuple[int, bytes]]:
            return [(entry, value) for entry, value in partition if entry > after]

        await queue.bell.until(lambda: bool(fresh()), min(request.item_poll_timeout, 50.0))
        items = [message("QueueItem", value=value, entry_id=str(entry)) for entry, value in fresh()]
        return message("QueueNextItemsResponse", items=items)

    async def QueueLen(self, request: Any, caller: Caller) -> Any:
        queue = self.records.queues.get(request.queue_id)
        whole = sum(map(len, queue.partitions.values()))
        return message("QueueLenResponse", len=whole if request.total else len(queue.partition(request.partition_key)))

    async def QueueClear(self, request: Any, caller: Caller) -> None:
        queue = self.records.queues.get(request.queue_id)
        for partition in (
            queue.partitions.values() if request.all_partitions else [queue.partition(request.partition_key)]
        ):
            partition.clear()

    async def QueueDelete(self, request: Any, caller: Caller) -> None:
        self.records.queues.remove(request.queue_id)
