"""A stage"s tasks run in an open place: by its engine here, or packed and sent there."""

from __future__ import annotations

from collections.abc import Container, Iterator
from concurrent.futures import Future

from hypernodes import _observers
from hypernodes._backend import engine_spec_of
from hypernodes._blueprint import blueprint_of
from hypernodes._context import Context
from hypernodes._drive import drive
from hypernodes._engine import Feed
from hypernodes._far import FarEngine
from hypernodes._ledger import Dispatch
from hypernodes._line import Line
from hypernodes._local import strategy_of
from hypernodes._pace import Pace
from hypernodes._payload import split
from hypernodes._places import OpenPlace
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

    def pace() -> Pace:
        return Pace(REMOTE_CHUNK_SECONDS)

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
        self.packer = Packer(Context(pipeline=pipeline, place=place.label, carrier=carrier), engine, steady)

    def send(self, dispatch: Dispatch) -> Future[bytes]:
        return self.place.session.submit_request(*self.packer.pack(dispatch.stage, dispatch.rows))

    def reply(self, result: bytes) -> Reply:
        return unpack_reply(split(bytearray(result)))

    def renew(self) -> None:
        """A session renews itself, or its futures say why it cannot."""

    def abort(self) -> None:
        self.place.session.abort()
