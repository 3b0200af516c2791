"""Dicts: values by key, kept as the bytes that the client sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hypernodes_modal.testing._records import NamedDict
from hypernodes_modal.testing._rpc import Caller, message
from hypernodes_modal.testing._shelf import Records

__all__ = ["Dicts"]


class Dicts:
    """Serves the RPCs about dicts."""

    def __init__(self, records: Records) -> None:
        self.records = records

    async def DictGetOrCreate(self, request: Any, caller: Caller) -> Any:
        data = {entry.key: entry.value for entry in request.data}
        found = self.records.dicts.find(request, lambda key: NamedDict(key, request.deployment_name, data))
        metadata = message("DictMetadata", name=found.name)
        return message("DictGetOrCreateResponse", dict_id=found.id, metadata=metadata)

    async def DictGetById(self, request: Any, caller: Caller) -> Any:
        found = self.records.dicts.get(request.dict_id)
        return message("DictGetByIdResponse", dict_id=found.id, metadata=message("DictMetadata", name=found.name))

    async def DictHeartbeat(self, request: Any, caller: Caller) -> None:
        self.records.dicts.get(request.dict_id)

    async def DictUpdate(self, request: Any, caller: Caller) -> Any:
        entries = self.records.dicts.get(request.dict_id).entries
        if request.if_not_exists and any(update.key in entries for update in request.updates):
            return message("DictUpdateResponse", created=False)
        entries.update({update.key: update.value for update in request.updates})
        return message("DictUpdateResponse", created=True)

    async def DictGet(self, request: Any, caller: Caller) -> Any:
        value = self.records.dicts.get(request.dict_id).entries.get(request.key)
        return message("DictGetResponse", found=value is not None, value=value)

    async def DictContains(self, request: Any, caller: Caller) -> Any:
        return message("DictContainsResponse", found=request.key in self.records.dicts.get(request.dict_id).entries)

    async def DictLen(self, request: Any, caller: Caller) -> Any:
        return message("DictLenResponse", len=len(self.records.dicts.get(request.dict_id).entries))

    async def DictPop(self, request: Any, caller: Caller) -> Any:
        value = self.records.dicts.get(request.dict_id).entries.pop(request.key, None)
        return message("DictPopResponse", found=value is not None, value=value)

    async def DictClear(self, request: Any, caller: Caller) -> None:
        self.records.dicts.get(request.dict_id).entries.clear()

    async def DictContents(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        for key, value in list(self.records.dicts.get(request.dict_id).entries.items()):
            yield message("DictEntry", key=key if request.keys else None, value=value if request.values else None)

    async def DictDelete(self, request: Any, caller: Caller) -> None:
        self.records.dicts.remove(request.dict_id)
