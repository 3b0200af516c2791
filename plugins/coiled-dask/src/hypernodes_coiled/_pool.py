"""Requests to a cluster and replies back, over one connection to its scheduler.

Dask answers for what it computes from tasks it knows. What it leaves open is done here: data that its only holder took
along is sent again; a worker's death is told for each request that it had, and not tried again behind core's back,
which finds out who is to blame; a scheduler that is gone or frozen, and a cluster with nobody left, become errors.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import KilledWorker
from distributed.scheduler import NoValidWorkerError

from hypernodes import PlaceError, WorkerLostError
from hypernodes_coiled._crew import Crew, crew_of
from hypernodes_coiled._errors import NoWorkersError, SchedulerLostError
from hypernodes_coiled._link import Link
from hypernodes_coiled._once import PREFIX
from hypernodes_coiled._request import How, Out, Request
from hypernodes_coiled._runner import NobodyWaits, run_request

__all__ = ["DaskPool", "Patience"]

T = TypeVar("T")

EMBEDDED = 64 * 1024
"""Bytes up to which a part travels in its task; larger ones go to a worker's memory, from where workers copy them."""
KEPT_IDLE = 30.0
"""Seconds without a request after which the workers may let go of the parts that they keep."""
ATTEMPTS = 10
"""How often a request is sent again because what it needs went down with a worker, before that counts as a fault."""
_TICK = 0.5
_LAST_LOOK = 2.0  # seconds for a look at the scheduler that is under way when the pool is closed
_TOPIC = "all"  # what happens to any worker


@dataclass(frozen=True)
class Patience:
    """Seconds: for a worker to appear, for the scheduler to answer, for a connection to be made."""

    workers: float = 300.0
    scheduler: float = 60.0
    connection: float = 30.0


class DaskPool:
    """An executor of bytes on a cluster. `lost` says that its scheduler is; a new one is needed then.

    With `may_end_workers` a worker that does not come back from a call that nobody wants any more is ended.
    """

    def __init__(self, link: Link, patience: Patience, *, may_end_workers: bool) -> None:
        self.link, self.patience, self.may_end_workers = link, patience, may_end_workers
        self.lost: SchedulerLostError | None = None
        self.home = 0
        self._outs: dict[Request, Out] = {}
        self._keys: dict[str, Out] = {}
        self._kept: dict[str, asyncio.Task[Any]] = {}
        self._crew = Crew({})
        self._closing = asyncio.Event()
        self._watching = link.start(self._watch)

    # -- from any thread

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there, as far as is known without asking it."""
        return self.lost is None and self.link.client.status == "running"

    def crew(self) -> Crew:
        """The workers there are now. Raises `SchedulerLostError` when the scheduler does not tell."""
        if self.lost is not None:
            raise self.lost
        return self.link.start(self._ask).result()

    def submit(self, payload: bytes, blobs: Mapping[str, bytes], how: How) -> Request:
        """Send a request. Its future fails with `WorkerLostError` when its worker died under it."""
        if self.lost is not None:
            raise self.lost
        request = Request(self.give_up)
        self.link.post(self._begin, request, payload, blobs, how)
        return request

    def give_up(self, request: Request) -> None:
        """Nobody waits for this request any more."""
        self.link.post(self._drop, request)

    def close(self) -> None:
        """Give up what is out, and close the connection."""
        for request in list(self._outs):
            request.cancel()
        self.link.post(self._stop_hearing)
        with suppress(Exception):  # of the last look at a scheduler that is gone
            self._watching.result(_LAST_LOOK)
        self.link.close()

    # -- on the loop

    def _begin(self, request: Request, payload: bytes, blobs: Mapping[str, bytes], how: How) -> None:
        if request.cancelled():
            return
        loop = self.link.loop
        out = self._outs[request] = Out(loop.create_future(), resources=how.resources)
        out.carrier = loop.create_task(self._carry(request, out, payload, blobs, how))

    def _drop(self, request: Request) -> None:
        out = self._outs.get(request)
        if out is not None and out.carrier is not None:
            out.carrier.cancel()

    async def _carry(self, request: Request, out: Out, payload: bytes, blobs: Mapping[str, bytes], how: How) -> None:
        """Bring a request home, or settle its future with why that can not be."""
        trying = self.link.loop.create_task(self._try(out, payload, blobs, how))
        ends: set[asyncio.Future[Any]] = {trying, out.verdict}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            reply = trying.result() if trying.done() else None
            if reply is None:
                out.verdict.result()
        except asyncio.CancelledError:
            request.cancel()
        except Exception as error:
            _settle(request, error)
        else:
            self.home += 1
            _settle(request, reply)
        finally:
            for one in ends:
                one.cancel()
                one.add_done_callback(_seen)
            self._outs.pop(request, None)

    async def _try(self, out: Out, payload: bytes, blobs: Mapping[str, bytes], how: How) -> bytes:
        async with how.turns:
            for _ in range(ATTEMPTS):
                shipped: dict[str, Any] = {}
                try:
                    return await self._ask_worker(out, payload, blobs, how, shipped)
                except (CancelledError, NobodyWaits, TimeoutError, OSError) as error:
                    # Dask let go of the task, or of what it needs: its holder died, or nobody was there to take it.
                    if self.link.client.status != "running":
                        self._lose("the connection to it broke")
                        await asyncio.Event().wait()  # for the verdict
                    for digest, part in shipped.items():
                        if digest in self._kept and self._kept[digest] is part:
                            del self._kept[digest]
                    last = error
            raise PlaceError(
                f"the Dask cluster at {self.link.address} let go of a request {ATTEMPTS} times: {last}; "
                "look for workers that come and go"
            )

    async def _ask_worker(
        self, out: Out, payload: bytes, blobs: Mapping[str, bytes], how: How, shipped: dict[str, Any]
    ) -> bytes:
        key = f"{PREFIX}{how.label}-{uuid.uuid4().hex}"
        client = self.link.client
        parts = [await self._part(digest, blob, shipped) for digest, blob in blobs.items()]
        body = payload if len(payload) <= EMBEDDED else await self._undisturbed(self._scatter(payload))
        self._keys[key] = out
        task = client.submit(
            run_request,
            *(key, self.may_end_workers, body, tuple(blobs), *parts),
            key=key,
            pure=False,
            resources=None if how.resources is None else dict(how.resources),
            priority=how.priority,
        )
        try:
            return bytes(await self._undisturbed(_result_of(task)))
        except KilledWorker as error:
            raise self._died(error.last_worker.address) from error
        except NoValidWorkerError as error:
            raise NoWorkersError(f"the Dask cluster at {self.link.address} has no worker for this: {error}") from error
        except (CancelledError, NobodyWaits, TimeoutError, OSError):
            raise
        except Exception as error:
            raise PlaceError(
                f"a task could not begin on the Dask cluster at {self.link.address}: {type(error).__name__}: {error}; "
                "scheduler and workers need the packages hypernodes-core and hypernodes-coiled of this version"
            ) from error
        finally:
            del self._keys[key]
            task.release()  # where it is not over, the scheduler takes it from its worker

    async def _part(self, digest: str, blob: bytes, shipped: dict[str, Any]) -> Any:
        """A shared part as an argument of a task: as it is, or a future of Dask's, made once for all requests."""
        if len(blob) <= EMBEDDED:
            return blob
        kept = self._kept.get(digest)
        if kept is None:
            kept = self._kept[digest] = self.link.loop.create_task(self._scatter(blob))
            kept.add_done_callback(_seen)
        shipped[digest] = kept
        return await asyncio.shield(kept)

    async def _undisturbed(self, call: Coroutine[Any, Any, T]) -> T:
        """What a call of Dask's client gives. Whoever is cancelled meanwhile leaves it to its end.

        Dask's client fetches results for all that wait for one with a single future: cancelling one of them would
        cancel the others, and all that come later.
        """
        calling = self.link.loop.create_task(call)
        calling.add_done_callback(_seen)
        await asyncio.wait({calling})
        if calling.cancelled():
            raise CancelledError("Dask's client gave up fetching a result")
        return calling.result()

    async def _scatter(self, part: bytes) -> Any:
        (future,) = await self.link.client.scatter([part], hash=False)
        return future

    # -- what happens to the cluster

    def _stop_hearing(self) -> None:
        """A scheduler would try to tell a client that has just left that it left, and complain that it cannot."""
        self._closing.set()
        if self.link.client.status == "running":
            self.link.client.unsubscribe_topic(_TOPIC)

    async def _ask(self) -> Crew:
        try:
            answer = await asyncio.wait_for(self.link.client.scheduler.identity(), self.patience.scheduler)
        except (TimeoutError, OSError) as error:
            frozen = f"it has not answered for {self.patience.scheduler:g} s"
            self._lose(frozen if isinstance(error, TimeoutError) else "the connection to it broke")
            assert self.lost is not None
            raise self.lost from error
        self._crew = crew_of(answer)
        return self._crew

    async def _watch(self) -> None:
        """While requests are out, look whether somebody is there to serve them."""
        self.link.client.subscribe_topic(_TOPIC, self._heard)
        idle = 0.0
        unserved: dict[Out, float] = {}
        clock = self.link.loop.time
        tick = min(_TICK, self.patience.workers / 4, self.patience.scheduler / 4)
        while self.lost is None and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), tick)
                return
            idle = 0.0 if self._outs else idle + tick
            if not self._outs:
                if idle > KEPT_IDLE:
                    self._kept.clear()
                continue
            if self.link.client.status != "running":
                self._lose("the connection to it broke")
                return
            try:
                crew = await self._ask()
            except SchedulerLostError:
                return
            now = clock()
            unserved = {
                out: unserved.get(out, now) for out in self._outs.values() if not crew.serves(out.resources or {})
            }
            for out, since in unserved.items():
                if now - since > self.patience.workers:
                    self._judge(out, NoWorkersError(self._nobody(crew, out.resources)))

    def _heard(self, event: tuple[float, Any]) -> None:
        """A worker is gone: Dask tells which tasks it had."""
        told = event[1]
        if isinstance(told, dict) and told.get("action") == "remove-worker" and not told.get("expected"):
            for key in told.get("processing-tasks", ()):
                if key in self._keys:
                    self._judge(self._keys[key], self._died(told["worker"]))

    def _died(self, worker: str) -> WorkerLostError:
        return WorkerLostError(f"the Dask worker {worker} died while it ran this item{self._crew.hint(worker)}")

    def _nobody(self, crew: Crew, resources: Mapping[str, float] | None) -> str:
        what = f" with {', '.join(f'{n:g} {name}' for name, n in resources.items())}" if resources else ""
        return (
            f"for {self.patience.workers:g} s the Dask cluster at {self.link.address} has had no worker{what} "
            f"(it has {len(crew.workers)}); look why workers do not start, or raise no_worker_timeout="
        )

    def _lose(self, how: str) -> None:
        if self.lost is not None:
            return
        self.lost = SchedulerLostError(
            f"the Dask scheduler at {self.link.address} was lost: {how}, with {len(self._outs)} requests under way and "
            f"{self.home} come home; what a stream gave or a cache kept until then stays, the next run connects anew"
        )
        for out in list(self._outs.values()):
            self._judge(out, self.lost)

    @staticmethod
    def _judge(out: Out, error: PlaceError) -> None:
        if not out.verdict.done():
            out.verdict.set_exception(error)


async def _result_of(task: Any) -> Any:
    return await task


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at what came of it, which asyncio would miss."""
    if not future.cancelled():
        future.exception()


def _settle(request: Request, outcome: Any) -> None:
    """Settle a future, unless it was given up meanwhile."""
    try:
        if isinstance(outcome, Exception):
            request.set_exception(outcome)
        else:
            request.set_result(outcome)
    except InvalidStateError:
        return
