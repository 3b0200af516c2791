"""The driver for anything that takes chunks and gives futures: pools here, places far away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from queue import SimpleQueue
from typing import Any, Protocol

from hypernodes._engine import Feed
from hypernodes._errors import PlaceError, RemoteError, WorkerLostError
from hypernodes._ledger import Dispatch
from hypernodes._task import Batch, Reply, Stage, Task
from hypernodes._wire import why_unsendable

__all__ = ["Dispatcher", "Port", "drive"]

RETURNS = 20
"""How often in a row, for each chunk that may be out, one may come back unbegun before the place counts as broken."""


class Dispatcher(Protocol):
    """What hands out chunks: `Scheduler` for rows that are cut into units, `Line` for whole rows of one stage."""

    @property
    def open(self) -> int:
        """How many of the run's own rows are under way."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing is out and every outcome has been collected."""

    def room(self) -> int:
        """How many more rows it would take now."""

    def ahead(self) -> int:
        """How many outcomes may wait for an earlier one before no more rows are drawn."""

    def draw(self, feed: Feed, room: int) -> None:
        """Take over up to `room` rows of a feed."""

    def take(self) -> Dispatch | None:
        """The next chunk for a worker, or None."""

    def batches(self) -> list[Batch]:
        """The rows that came to an end since the last call."""

    def stop(self, after: int) -> None:
        """Take no more rows, and drop those with a higher index than `after` that are not out yet."""

    def unwanted(self, dispatch_id: int) -> bool:
        """Whether nobody waits for anything in a chunk that is out."""

    def done(self, dispatch_id: int, reply: Reply) -> None:
        """A chunk came back."""

    def lost(self, dispatch_id: int, error: BaseException) -> None:
        """The worker of a chunk died while it ran it."""

    def refused(self, dispatch_id: int, error_of: Callable[[Stage, Task], BaseException]) -> None:
        """A chunk could not be carried there or back."""

    def returned(self, dispatch_id: int) -> None:
        """A chunk comes back unbegun."""


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


def drive(scheduler: Dispatcher, feed: Feed, port: Port, *, in_flight: int) -> Iterator[Batch]:
    """Run what the scheduler hands out, at most `in_flight` chunks at a time, and give what comes of it as it comes.

    Rows are drawn for one chunk at a time, so that a slow source does not hold back what it has given already.
    Closing the iterator, an interrupt or an error of the place stops what is still running.
    """
    arrivals: SimpleQueue[tuple[int, Future[Any]] | None] = SimpleQueue()
    feed.on_more(lambda: arrivals.put(None))
    flying: dict[int, Future[Any]] = {}

    def landed(dispatch_id: int) -> Callable[[Future[Any]], None]:
        return lambda future: arrivals.put((dispatch_id, future))

    unbegun = 0

    def land(arrival: tuple[int, Future[Any]] | None) -> None:
        nonlocal unbegun
        if arrival is None or flying.pop(arrival[0], None) is None:
            return
        unbegun = unbegun + 1 if arrival[1].cancelled() else 0
        if unbegun > RETURNS * in_flight:
            raise PlaceError(
                f"the executor cancelled {unbegun} requests in a row that nobody had given up; "
                "what runs the workers is broken, or another run stops it again and again"
            )
        _land(scheduler, port, *arrival)

    finished = sending = False
    stopped_after: int | None = None
    try:
        while not feed.cancelled:
            again = False  # whether something happened since chunks were last asked for
            if feed.ended:
                scheduler.draw(feed, 0)  # that nothing more will come, is news to it
            while len(flying) < in_flight and not again:
                if not feed.ended:
                    scheduler.draw(feed, min(scheduler.room(), scheduler.ahead() - feed.held))
                dispatch = scheduler.take()
                if dispatch is None:
                    break
                sending = True  # where an interrupt strikes now, the chunk may run, and nobody holds its future
                try:
                    future = flying[dispatch.id] = port.send(dispatch)
                except Exception as error:
                    sending = False
                    if isinstance(error, PlaceError):
                        raise
                    scheduler.refused(dispatch.id, _teller(error))
                    again = True  # what came of it is handed on before more rows are drawn
                    continue
                sending = False
                future.add_done_callback(landed(dispatch.id))
            while not arrivals.empty():
                land(arrivals.get())
                again = True
            batches = scheduler.batches()
            if batches:
                yield from batches
                if feed.stopped_after != stopped_after:
                    stopped_after = feed.stopped_after
                    _stop(scheduler, flying, stopped_after)
                continue
            if again:
                continue
            if feed.ended and not flying and scheduler.idle:
                break
            land(arrivals.get())
            while not arrivals.empty():
                land(arrivals.get())
        finished = not feed.cancelled
    finally:
        if not finished:
            running = [future for future in reversed(flying.values()) if not future.cancel()]
            if sending or any(not future.done() for future in running):
                port.abort()
    if finished and feed.error is not None:
        raise feed.error


def _stop(scheduler: Dispatcher, flying: dict[int, Future[Any]], after: int | None) -> None:
    """Nobody waits any more for rows after this one: what has not begun is taken back, the newest first."""
    if after is None:
        return
    scheduler.stop(after)
    for dispatch_id in reversed(list(flying)):
        if scheduler.unwanted(dispatch_id) and flying[dispatch_id].cancel():
            del flying[dispatch_id]
            scheduler.returned(dispatch_id)


def _land(scheduler: Dispatcher, port: Port, dispatch_id: int, future: Future[Any]) -> None:
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
