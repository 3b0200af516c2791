"""A stage's tasks run in an open place: by its engine here, or packed and sent there."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future

from hypernodes import _observers
from hypernodes._backend import Session, engine_spec_of
from hypernodes._blueprint import blueprint_of
from hypernodes._context import Context
from hypernodes._demand import Demand
from hypernodes._drive import drive
from hypernodes._engine import Feed
from hypernodes._far import FarEngine
from hypernodes._ledger import Dispatch
from hypernodes._line import Line
from hypernodes._local import strategy_of
from hypernodes._overlap import DEFAULT_CONCURRENCY
from hypernodes._pace import Pace
from hypernodes._payload import split
from hypernodes._places import OpenPlace
from hypernodes._plan import MapStep, Step
from hypernodes._schedule import Scheduler
from hypernodes._task import Batch, Reply, Stage
from hypernodes._wire import Packer, unpack_reply

__all__ = ["execute"]


REMOTE_CHUNK_SECONDS = 0.2


def execute(place: OpenPlace, stage: Stage, feed: Feed) -> Iterator[Batch]:
    """Run a stage's tasks in a place: by its engine here, or packed and sent there."""
    spec = engine_spec_of(place.backend)
    if place.session.here or not spec.requires.isdisjoint(place.session.handles):
        return place.engine.batches(stage, feed, place.site)
    strategy = strategy_of(place.backend, stage.steps)
    blueprint = blueprint_of(stage, fine=False, fans=False, apart=strategy != "item")
    whole, workers = blueprint.single, place.session.workers
    together = place.engine.items_at_once(place.site) or DEFAULT_CONCURRENCY

    def pace(_: Stage) -> Pace:
        return Pace(REMOTE_CHUNK_SECONDS, together=together)

    scheduler: Line | Scheduler
    if whole is not None:
        scheduler = Line(whole, workers=workers, pace=pace, place=place.label)
    else:
        scheduler = Scheduler(blueprint, workers=workers, pace=pace, place=place.label, staged=strategy == "stage")
    return drive(scheduler, feed, PlacePort(place, stage.name, feed.steady), in_flight=2 * workers)


class PlacePort:
    """Chunks to a place that carries bytes."""

    def __init__(self, place: OpenPlace, pipeline: str, steady: Container[str] | None) -> None:
        self.place = place
        carrier: dict[str, str] = {}
        _observers.inject(carrier)
        site = place.site
        engine = FarEngine(
            place.engine,
            place.backend.name,
            site.node_execution,
            site.map_execution,
            site.max_workers,
            site.map_strategy,
        )
        self._sized: dict[int, Session] = {}  # by the id of a stage, which the run keeps
        self.packer = Packer(Context(pipeline=pipeline, place=place.label, carrier=carrier), engine, steady)

    def send(self, dispatch: Dispatch) -> Future[bytes]:
        stage = dispatch.stage
        request = self.packer.pack(stage, dispatch.rows)
        session = self._sized.get(id(stage))
        if session is None:
            session = self._sized[id(stage)] = self.place.session.sized(largest_demand(stage.steps))
        return session.submit_request(*request)

    def reply(self, result: bytes) -> Reply:
        return unpack_reply(split(bytearray(result)))

    def renew(self) -> None:
        """A session renews itself, or its futures say why it cannot."""

    def abort(self) -> None:
        self.place.session.abort()


def largest_demand(steps: Iterable[Step | MapStep]) -> Demand:
    """The most that one of these steps uses, of each kind: they run one after another in one worker."""
    most, todo = Demand(), list(steps)
    while todo:
        step = todo.pop()
        if isinstance(step, MapStep):
            todo += step.inner.steps
        elif not step.is_clock and step.node.resources is not None:
            asked = step.node.resources
            most = Demand(max(most.cpus, asked.cpus), max(most.gpus, asked.gpus), max(most.memory, asked.memory))
    return most
