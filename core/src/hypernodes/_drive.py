"""The driver for anything that takes chunks and gives futures: pools here, places far away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from queue import SimpleQueue
from typing import Any, Protocol

from hypernodes._engine import Feed
from hypernodes._errors import PlaceError, RemoteError, WorkerLostError
from hypernodes._ledger import Dispatch
from hypernodes._schedule import Scheduler
from hypernodes._task import Batch, Reply, Stage, Task
from hypernodes._wire import why_unsendable

__all__ = ["Port", "drive"]


class Port(Protocol):
    """Where chunks go."""

    def send(self, dispatch: Dispatch) -> Future[Any]:
        """Let the chunk run; raises when its rows cannot be packed."""

    def reply(self, result: Any) -> Reply:
        """What the chunk's future gave, as a reply; raises when it cannot be unpacked."""

    def renew(self) -> None:
        """The executor broke: use a new one from now on."""

    def abort(self) -> None:
        """Stop what is running."""


def drive(scheduler: Scheduler, feed: Feed, port: Port, *, in_flight: int) -> Iterator[Batch]:
    """Run what the scheduler hands out, at most `in_flight` chunks at a time, and give what comes of it as it comes.

    Closing the iterator, an interrupt or an error of the place stops what is still running.
    """
    arrivals: SimpleQueue[tuple[int, Future[Any]] | None] = SimpleQueue()
    feed.on_more(lambda: arrivals.put(None))
    flying: dict[int, Future[Any]] = {}

    def landed(dispatch_id: int) -> Callable[[Future[Any]], None]:
        return lambda future: arrivals.put((dispatch_id, future))

    finished = sending = False
    try:
        while True:
            room = min(scheduler.room(), scheduler.ahead() - feed.held)
            if room > 0 and not feed.ended:
                scheduler.admit(feed.take(room))
            while len(flying) < in_flight and (dispatch := scheduler.take()) is not None:
                sending = True  # where an interrupt strikes now, the chunk may run, and nobody holds its future
                try:
                    future = flying[dispatch.id] = port.send(dispatch)
                except Exception as error:
                    sending = False
                    if isinstance(error, PlaceError):
                        raise
                    scheduler.refused(dispatch.id, _teller(error))
                    continue
                sending = False
                future.add_done_callback(landed(dispatch.id))
            batches = scheduler.batches()
            if batches:
                yield from batches
                continue
            if feed.ended and not flying and scheduler.idle:
                break
            arrival = arrivals.get()
            if feed.cancelled:
                return
            while True:
                if arrival is not None and flying.pop(arrival[0], None) is not None:
                    _land(scheduler, port, *arrival)
                if arrivals.empty():
                    break
                arrival = arrivals.get()
        finished = True
    finally:
        if not finished:
            running = [future for future in flying.values() if not future.cancel()]
            if sending or any(not future.done() for future in running):
                port.abort()
    if feed.error is not None:
        raise feed.error


def _land(scheduler: Scheduler, port: Port, dispatch_id: int, future: Future[Any]) -> None:
    try:
        result = future.result()
    except CancelledError:
        port.renew()
        scheduler.returned(dispatch_id)
    except WorkerLostError as error:
        scheduler.lost(dispatch_id, error)
    except BrokenExecutor as error:
        port.renew()
        lost = WorkerLostError(f"a worker process died while it ran this item ({error})")
        scheduler.lost(dispatch_id, lost)
    except RemoteError as error:
        if error.type_name == "KeyboardInterrupt":
            raise KeyboardInterrupt from error
        raise
    else:
        try:
            reply = port.reply(result)
        except (KeyboardInterrupt, PlaceError):
            raise
        except BaseException as error:
            scheduler.refused(dispatch_id, _teller(error))
        else:
            scheduler.done(dispatch_id, reply)


def _teller(reason: BaseException) -> Callable[[Stage, Task], BaseException]:
    def tell(stage: Stage, task: Task) -> BaseException:
        return why_unsendable(stage, task, reason)

    return tell
