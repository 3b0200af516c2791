"""Actors of one share: workers that stay, so that what they have built serves the calls that follow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from hypernodes.plugin import PlaceError
from hypernodes_ray._call import Call
from hypernodes_ray._clerk import Clerk
from hypernodes_ray._losses import Loss, loss_of
from hypernodes_ray._share import Share

__all__ = ["Actor", "Pool"]

SHORT = 0.5
"""Seconds: after calls that are shorter an actor is sent its next one before it is done, to save it the wait."""
UNWANTED = 5.0
"""Seconds after which actors that are still not there are given up, when no call waits for them any more."""
STARTS = 3
"""How many actors in a row may die before they are ready, until the calls that wait for them fail."""


class Actor:
    """One worker process. `calls` are those it was sent; the first of them runs, or all where it `awaits`.

    `ended` says that we ended it, so that nobody is to blame for that.
    """

    def __init__(self, handle: Any, *, awaits: bool) -> None:
        self.handle, self.awaits = handle, awaits
        self.calls: deque[Call] = deque()
        self.ready = self.dead = self.ended = False
        self.head: Call | None = None

    def was_running(self, call: Call) -> bool:
        """Whether this call, which it was sent, may be why it died."""
        return not self.ended and (self.awaits or call is self.head)

    @property
    def idle(self) -> bool:
        return self.ready and not self.calls


class Pool:
    """Everything here happens in the clerk's thread.

    `start` makes an actor, `blobs` gives references to what a call has in common with others, `over` is told of each
    call that has its answer, with what Ray raised instead of one.
    """

    def __init__(
        self,
        share: Share,
        clerk: Clerk,
        start: Callable[[Share], Any],
        blobs: Callable[[Call], dict[str, Any]],
        over: Callable[[Call, bytes | None, Loss | None], None],
    ) -> None:
        self.share, self.clerk, self.over = share, clerk, over
        self.most = share.most
        self._start, self._blobs = start, blobs
        self.queue: deque[Call] = deque()
        self.actors: list[Actor] = []
        self._short = False
        self._failed_starts = 0
        self._trims = False

    def put(self, call: Call, most: int) -> None:
        self.most = max(self.most, most)
        self.queue.append(call)
        self.advance()

    def advance(self) -> None:
        """Give waiting calls to actors, idle ones first, and start actors for those that are left."""
        depth = self.share.at_once or (2 if self._short else 1)
        while self._drop_unwanted():
            free = [actor for actor in self.actors if actor.ready and len(actor.calls) < depth]
            if not free:
                break
            self._send(min(free, key=lambda actor: len(actor.calls)), self.queue.popleft())
        starting = sum(not actor.ready for actor in self.actors)
        while self._drop_unwanted() and len(self.actors) < self.most and starting < len(self.queue):
            actor = Actor(self._start(self.share), awaits=self.share.at_once > 0)
            self.actors.append(actor)
            starting += 1
            self._hear(actor.handle.ready.remote(), partial(self._is_ready, actor))
        self._trim_soon()

    def _trim_soon(self) -> None:
        if not self._trims and not self.queue and not all(actor.ready for actor in self.actors):
            self._trims = True
            self.clerk.in_(UNWANTED, self._trim)

    def _trim(self) -> None:
        """Give up actors that nobody waits for: they would take what a node that comes later has, and keep it."""
        self._trims = False
        if not self._drop_unwanted():
            self._give_up_starting()
        self._trim_soon()

    def _give_up_starting(self) -> None:
        import ray

        for actor in [actor for actor in self.actors if not actor.ready]:
            self._forget(actor)
            if ray.is_initialized():
                ray.kill(actor.handle)

    def _drop_unwanted(self) -> bool:
        """Whether a call waits that somebody still wants."""
        while self.queue and self.queue[0].done():
            self.queue.popleft()
        return bool(self.queue)

    def _send(self, actor: Actor, call: Call) -> None:
        call.actor, call.began = actor, time.monotonic()
        actor.calls.append(call)
        call.ref = actor.handle.run.remote(call.payload, self._blobs(call))
        self._hear(call.ref, partial(self._landed, actor, call))

    def _hear(self, ref: Any, told: Callable[[Any], None]) -> None:
        ref.future().add_done_callback(lambda future: self.clerk.tell(partial(told, future)))

    def _is_ready(self, actor: Actor, future: Any) -> None:
        error = future.exception()
        if actor.dead:
            return  # it was given up meanwhile
        if error is None:
            actor.ready, self._failed_starts = True, 0
        else:
            self._forget(actor)
            loss = loss_of(error)
            self._failed_starts += not loss.unbegun
            if type(loss.error) is PlaceError or self._failed_starts >= STARTS:
                for call in self.queue:
                    call.fail(PlaceError(f"no Ray actor could be started for '{self.share.who}': {loss.error}"))
                self.queue.clear()
                self._failed_starts = 0
        self.advance()

    def _landed(self, actor: Actor, call: Call, future: Any) -> None:
        self._short = time.monotonic() - call.began < SHORT
        error = future.exception()
        loss = None if error is None else loss_of(error)
        if loss is not None and _is_death(error):
            if not actor.dead:
                self._forget(actor)
                actor.head = actor.calls[0] if actor.calls else None
            if not actor.was_running(call):
                loss = Loss(loss.error, unbegun=True)  # it waited behind the one that ran
        if call in actor.calls:
            actor.calls.remove(call)
        self.over(call, None if loss is not None else future.result(), loss)
        self.advance()

    def _forget(self, actor: Actor) -> None:
        actor.dead = True
        if actor in self.actors:
            self.actors.remove(actor)

    def kill(self, call: Call) -> None:
        """Stop a call that nobody wants any more: the actor that runs it goes with it."""
        import ray

        actor: Actor = call.actor
        if actor.dead or call not in actor.calls:
            return
        if actor.awaits or actor.calls[0] is call:
            actor.ended = True
            ray.kill(actor.handle)
        else:
            ray.cancel(call.ref)

    def interrupt(self, call: Call) -> None:
        """Cancel the coroutines of a call that nobody wants any more; the others of its actor go on."""
        import ray

        if not call.actor.dead and ray.is_initialized():
            ray.cancel(call.ref)

    def make_way(self) -> None:
        """Let go what nobody here needs now, since others wait for what it holds."""
        if not self._drop_unwanted():
            self._give_up_starting()
            self._retire()

    def _retire(self) -> list[Any]:
        """Let idle actors go. Gives what tells that they have closed."""
        idle = [actor for actor in self.actors if actor.idle]
        for actor in idle:
            self._forget(actor)
        return [end_of(actor.handle) for actor in idle]

    def close(self) -> list[Any]:
        """End every actor: those that are idle in order, the others at once."""
        import ray

        for actor in self.actors:
            if not actor.idle:
                ray.kill(actor.handle)
        for call in self.queue:
            call.fail(PlaceError("the connection to the Ray cluster was closed while this call waited"))
        self.queue.clear()
        gone = self._retire()
        self.actors.clear()
        return gone


def end_of(handle: Any) -> tuple[Any, Any]:
    """Ask an actor to close what it holds, and to end. Gives its handle, and a reference that is there when it has."""
    closed = handle.end.remote()
    handle.__ray_terminate__.remote()
    return handle, closed


def _is_death(error: BaseException) -> bool:
    from ray import exceptions as ray

    return isinstance(error, (ray.RayActorError, ray.WorkerCrashedError, ray.OutOfMemoryError, ray.NodeDiedError))
