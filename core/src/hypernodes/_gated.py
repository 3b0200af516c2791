"""A call that passes its step's gates: it waits for them, and gives back what it took when it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypernodes._counts import Counts, Holdings
from hypernodes._errors import HypernodesError
from hypernodes._keep import Keep
from hypernodes._scope import Scope, keep_of

if TYPE_CHECKING:
    from hypernodes._clock import Deadline
    from hypernodes._gate import Gate
    from hypernodes._waiting import WaitingRoom

__all__ = ["gated", "room_of"]

Call = Callable[..., Any]

MOST_IDLE = 8
"""Runs of other processes whose holdings a worker keeps although nothing of them goes on there."""


def gated(gates: tuple[Gate, ...], node: str, call: Call, *, is_async: bool) -> Call:
    """`call`, of a deadline and a scope and more, behind the gates.

    Each call passes them anew. What its function did not finish within its timeout holds nothing any more.
    """
    if is_async:

        async def passing_async(deadline: Deadline | None, scope: Scope, /, *args: Any, **kwargs: Any) -> Any:
            room = room_of(scope)
            await room.enter_async(gates, node, deadline)
            try:
                return await call(deadline, scope, *args, **kwargs)
            finally:
                room.leave(gates)

        return passing_async

    def passing(deadline: Deadline | None, scope: Scope, /, *args: Any, **kwargs: Any) -> Any:
        room = room_of(scope)
        room.enter(gates, node, deadline)
        try:
            return call(deadline, scope, *args, **kwargs)
        finally:
            room.leave(gates)

    return passing


def room_of(scope: Scope) -> WaitingRoom:
    """Where calls of this run wait, in this process."""
    keep = keep_of(scope)
    held = keep.made.get(_Rooms)
    rooms: _Rooms = keep.once(_Rooms, lambda: _Rooms(keep), _Rooms.close) if held is None else held.value
    return rooms.of(scope)


class _Rooms:
    """The waiting rooms of runs, by run. A worker that outlives many runs lets go of those where nobody is."""

    def __init__(self, keep: Keep) -> None:
        self._rooms: dict[str, WaitingRoom] = {}
        self._lock = threading.Lock()
        self._closed = False
        # A call that waits may hold resources of a run that was stopped; closing these must not wait for its turn.
        keep.before_end(self.close)

    def of(self, scope: Scope) -> WaitingRoom:
        found = self._rooms.get(scope.run)
        if found is None:
            from hypernodes._waiting import WaitingRoom

            with self._lock:
                found = self._rooms.get(scope.run)
                if found is None:
                    # Not closed: a thread may have found one a moment ago. What it holds open goes with it.
                    for run in [run for run, room in self._rooms.items() if room.is_idle][:-MOST_IDLE]:
                        del self._rooms[run]
                    if self._closed:
                        raise HypernodesError("the call that this node ran for is over")
                    found = self._rooms[scope.run] = WaitingRoom(_holdings(scope.folder))
        return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            rooms = list(self._rooms.values())
            self._rooms.clear()
        for room in rooms:
            room.close()


def _holdings(folder: str) -> Holdings:
    """Shared with the other processes where there is a folder to meet in. On another machine there is none."""
    if folder:
        from hypernodes._shared_counts import SharedCounts

        try:
            return SharedCounts(folder)
        except FileNotFoundError:
            return Counts()
    return Counts()
