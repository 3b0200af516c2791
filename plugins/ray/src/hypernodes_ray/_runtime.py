"""What engines drive: calls on a Ray cluster, as tasks or in actors that stay."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from hypernodes.plugin import PlaceError, WorkerLostError
from hypernodes_ray._call import Call
from hypernodes_ray._clerk import Clerk
from hypernodes_ray._cluster import Cluster, free_now
from hypernodes_ray._losses import Loss, loss_of
from hypernodes_ray._pool import Pool
from hypernodes_ray._share import Share, room_for
from hypernodes_ray._worker import AwaitingWorker, Worker, run

__all__ = ["Runtime"]

GRACE = 1.0
"""Seconds that a call has to end by itself when nobody wants it any more; then its worker is killed."""
GRACE_AWAITING = 5.0
"""The same for coroutines, which are cancelled at once: killing their worker takes down the others that it awaits."""
PATIENCE = 5.0
"""Seconds that idle actors have to close what they hold."""
LOOK = 2.0
"""Seconds between two looks at whether calls that wait can ever run."""
KEPT = 64
"""How many blobs stay in the object store for calls that may need them again."""
NODES_PER_CALL = 3
"""How many nodes may die under one and the same call until it counts as the call's fault."""

_open: dict[Runtime, None] = {}
"""Those of this process: what the idle actors of one hold, the calls of another may wait for."""


class Runtime:
    """Calls on the cluster that this process is connected to. What speaks with Ray happens in the clerk's thread.

    `runtime_env` is given to each call where the connection does not bring it along. With `autoscales` a call that no
    node can hold is left to wait for one that can.
    """

    def __init__(self, runtime_env: Mapping[str, Any] | None, *, autoscales: bool) -> None:
        self.cluster = Cluster(autoscales=autoscales)
        self._env = None if runtime_env is None else dict(runtime_env)
        self._tasks: dict[Share, Any] = {}
        self._pools: dict[Share, Pool] = {}
        self._refs: OrderedDict[str, Any] = OrderedDict()
        self._out: dict[Call, None] = {}
        self._lost_nodes: Counter[bytes] = Counter()
        self._moved = time.monotonic()
        self._looking = False
        self._clerk = Clerk(self._broke)
        _open[self] = None

    # -- what engines ask

    def submit(self, share: Share, payload: bytes, blobs: Mapping[str, bytes], owner: object) -> Future[bytes]:
        """Send one request; the future gives the reply."""
        call = Call(share, payload, blobs, owner, self._dropped)
        self._clerk.tell(partial(self._send, call))
        return call

    def stop(self, owner: object) -> None:
        """Nobody wants the calls of this owner any more."""
        self._clerk.tell(partial(self._stop, owner))

    def close(self) -> None:
        """End the actors, those that are idle in order, and what still runs. Called once."""
        _open.pop(self, None)
        self._clerk.end(self._end, 3 * PATIENCE)

    # -- in the clerk's thread

    def _send(self, call: Call) -> None:
        if call.done():
            return
        try:
            if self.cluster.closed:
                raise PlaceError("the connection to the Ray cluster is closed")
            self._out[call] = None
            self._look_soon()
            if call.share.stays:
                self._pool(call.share).put(call, call.share.most)
            else:
                call.ref = self._task(call.share).remote(call.payload, self._blobs(call))
                call.ref.future().add_done_callback(
                    lambda future: self._clerk.tell(partial(self._landed, call, future))
                )
        except Exception as error:
            self._out.pop(call, None)
            call.fail(error if isinstance(error, PlaceError) else loss_of(error).error)

    def _task(self, share: Share) -> Any:
        key = Share(share.demand)
        found = self._tasks.get(key)
        if found is None:
            import ray

            options = {**share.options(), "max_retries": 0, "name": "hypernodes"}
            if self._env is not None:
                options["runtime_env"] = self._env
            found = self._tasks[key] = ray.remote(run).options(**options)
        return found

    def _pool(self, share: Share) -> Pool:
        key = Share(share.demand, stays=True, at_once=share.at_once)
        found = self._pools.get(key)
        if found is None:
            found = self._pools[key] = Pool(share, self._clerk, self._actor, self._blobs, self._over)
        return found

    def _actor(self, share: Share) -> Any:
        import ray

        options = {**share.options(), "max_restarts": 0, "max_task_retries": 0}
        if self._env is not None:
            options["runtime_env"] = self._env
        return ray.remote(AwaitingWorker if share.at_once else Worker).options(**options).remote()

    def _blobs(self, call: Call) -> dict[str, Any]:
        """References to what the call has in common with others, each of which travels once."""
        found = {}
        for digest, blob in call.blobs.items():
            ref = self._refs.get(digest)
            if ref is None:
                import ray

                ref = self._refs[digest] = ray.put(blob)
                while len(self._refs) > KEPT:
                    self._refs.popitem(last=False)
            self._refs.move_to_end(digest)
            found[digest] = ref
        return found

    def _landed(self, call: Call, future: Any) -> None:
        error = future.exception()
        self._over(call, *((future.result(), None) if error is None else (None, loss_of(error))))

    def _over(self, call: Call, reply: bytes | None, loss: Loss | None) -> None:
        """A call has its answer."""
        self._out.pop(call, None)
        self._moved = time.monotonic()
        call.ref = None
        if reply is not None:
            self._lost_nodes.pop(call.payload, None)
            call.give(reply)
        elif loss is not None and loss.unbegun and not self._worn_out(call, loss):
            call.come_back()
        elif loss is not None:
            call.fail(loss.error)

    def _worn_out(self, call: Call, loss: Loss) -> bool:
        """Whether so many nodes died under this very call that it must be the reason."""
        if not isinstance(loss.error, WorkerLostError) or not (call.actor is None or call.actor.was_running(call)):
            return False
        self._lost_nodes[call.payload] += 1
        return self._lost_nodes[call.payload] >= NODES_PER_CALL

    def _dropped(self, call: Call) -> None:
        """Told by a call that nobody wants any more, in whatever thread."""
        self._clerk.tell(partial(self._let_go, call))

    def _let_go(self, call: Call) -> None:
        if call not in self._out:
            return
        if call.ref is None:
            self._out.pop(call)  # it waits for an actor, which will pass it over
            self._advance_pools()
        else:
            if call.share.at_once:
                self._pool(call.share).interrupt(call)
            self._clerk.in_(GRACE_AWAITING if call.share.at_once else GRACE, partial(self._kill, call))

    def _stop(self, owner: object) -> None:
        for call in list(self._out):
            if call.owner is owner:
                call.cancel()

    def _kill(self, call: Call) -> None:
        import ray

        if call not in self._out or call.ref is None or not ray.is_initialized():
            return
        if call.share.stays:
            self._pool(call.share).kill(call)
        else:
            ray.cancel(call.ref, force=True)

    # -- whether what waits can ever run

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._clerk.in_(LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        if not self._out or self.cluster.closed:
            return
        self._look_soon()
        if time.monotonic() - self._moved < LOOK:
            return
        try:
            nodes = self.cluster.nodes()
        except PlaceError as error:
            self._fail_all(error)
            return
        shares = {call.share for call in self._out}
        for share in shares:
            if not self.cluster.autoscales and not room_for(share, nodes):
                told = PlaceError(
                    f"node '{share.who}' asks for {share.asked} for each call, and the Ray node that had it is gone"
                )
                for call in [one for one in self._out if one.share == share]:
                    self._out.pop(call)
                    call.fail(told)
        self._advance_pools()
        free = free_now()
        starved = {share for share in shares if not room_for(share, free)}
        for runtime in list(_open) if starved else ():
            runtime.make_way(starved)

    def _advance_pools(self) -> None:
        for pool in self._pools.values():
            pool.advance()

    def make_way(self, starved: Collection[Share]) -> None:
        """Let idle actors go that hold what calls of this backend or another may wait for: it would be for ever."""
        self._clerk.tell(partial(self._make_way, starved))

    def _make_way(self, starved: Collection[Share]) -> None:
        for pool in self._pools.values():
            if any(pool.share.holds_of(share) for share in starved):
                pool.make_way()

    # -- the end

    def _fail_all(self, error: Exception) -> None:
        for call in list(self._out):
            call.fail(error)
        self._out.clear()

    def _broke(self, error: Exception) -> None:
        """What must not happen, happened: nobody is to wait for it."""
        told = PlaceError(f"the connection to the Ray cluster failed: {type(error).__name__}: {error}")
        told.__cause__ = error
        self._fail_all(told)

    def _end(self) -> None:
        import ray

        self.cluster.closed = True
        if ray.is_initialized():
            gone = [one for pool in self._pools.values() for one in pool.close()]
            for call in list(self._out):
                if call.ref is not None and not call.share.stays:
                    ray.cancel(call.ref, force=True)
            if gone:
                _, waiting = ray.wait([ref for _, ref in gone], num_returns=len(gone), timeout=PATIENCE)
                for handle, ref in gone:
                    if ref in waiting:
                        ray.kill(handle)
        self._fail_all(PlaceError("the connection to the Ray cluster was closed while this call was under way"))
        self._pools.clear()
        self._refs.clear()
        self._tasks.clear()
