"""Both ends of a crossing: rows packed here, received and run there, and what came of them unpacked here again.

A request is a list of frames. The first is a header in JSON: format, hypernodes and Python version, compared before
anything is unpickled. Then come the engine and the rows, pickled as columns, and, apart, their large buffers (pickle
protocol 5), which a transport may carry without copying. What many requests need - a stage's functions, large inputs
that all rows share - is pickled once, travels beside them as blobs, and is known by its digest. A place that carries
nothing but one `bytes` gets everything joined.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import time
import traceback
from collections import ChainMap, OrderedDict
from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hypernodes._context import Context
from hypernodes._diagnose import culprit
from hypernodes._errors import RemoteError, ResourceError, UnsendableError, VersionMismatchError
from hypernodes._failure import Failure, text_of
from hypernodes._payload import Buffer, dumps, join, loads, opened
from hypernodes._record import Built, Record, collecting, deliver
from hypernodes._shared import SharedInputs, rebuilt
from hypernodes._stoppable import uninterrupted
from hypernodes._table import Table
from hypernodes._task import LEFT, Reply, Stage, Task, run_rows

if TYPE_CHECKING:
    from hypernodes._plan import Step

__all__ = [
    "Packer",
    "Request",
    "RowsUnreadable",
    "pack_stage",
    "receive",
    "receive_async",
    "receive_frames",
    "unpack_reply",
    "why_unsendable",
]

FORMAT = 4
STAGES_KEPT = 16

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})

_NO_BLOBS: Mapping[str, Buffer] = {}

_stages: OrderedDict[str, Stage] = OrderedDict()


def versions() -> dict[str, Any]:
    from hypernodes._version import __version__

    return {"format": FORMAT, "hypernodes": __version__, "python": list(sys.version_info[:2])}


class RowsUnreadable(Exception):
    """The far side could not unpickle the rows of a request; a part of them may be readable."""


# -- this side


def pack_stage(stage: Stage) -> tuple[str, bytes]:
    """The digest and pickle of a stage, made once. Raises `UnsendableError` naming the node and the part at fault."""
    if stage.packed is None:
        try:
            blob = dumps(stage)
        except Exception as error:
            raise _unsendable_stage(stage, error) from error
        stage.packed = (hashlib.blake2b(blob, digest_size=16).hexdigest(), blob)
    return stage.packed


class Request(NamedTuple):
    """Chunk of rows, packed: `frames` are its own, `blobs` what it has in common with others, by digest."""

    frames: list[Buffer]
    blobs: dict[str, bytes]


class Packer:
    """Packs requests of one run for an engine: what is the same in all of them is made once.

    That takes 30 us off each, and there are hundreds a second. `steady` names the inputs that nobody changes between
    two rows, None means all.
    """

    def __init__(self, context: Context, engine: Any = None, steady: Container[str] | None = None) -> None:
        self.context, self._engine = context, b"" if engine is None else dumps(engine)
        self._headers: dict[str, bytes] = {}
        self._shared = SharedInputs(steady)

    def pack(self, stage: Stage, rows: Sequence[tuple[Any, ...]]) -> Request:
        """A request for `stage` to run `rows`. Raises whatever pickling a row raises."""
        digest, blob = pack_stage(stage)
        table = Table.of(rows)
        columns = table.columns
        blobs = {digest: blob}
        header = self._headers.get(digest)
        if header is None:
            header = self._headers[digest] = self._header(digest, {})
        apart = self._shared.apart(digest, stage, table)
        if apart:
            header = self._header(digest, {at: shared for at, (shared, _) in apart.items()})
            columns = [[] if at in apart else column for at, column in enumerate(columns)]
            blobs.update(apart.values())
        buffers: list[Any] = []
        body = dump_columns((columns, table.height), columns, buffers)
        return Request([header, self._engine, body, *(buffer.raw() for buffer in buffers)], blobs)

    def _header(self, digest: str, shared: Mapping[int, str]) -> bytes:
        told = {**versions(), "stage": digest, "shared": shared, "context": self.context.to_json()}
        return json.dumps(told).encode()


def dump_columns(value: Any, columns: Sequence[list[Any]], buffers: list[Any]) -> bytes:
    """Pickle something that holds columns and else only what any pickler takes; plain numbers and texts in a tenth."""
    if all(_ATOMS.issuperset(map(type, column)) for column in columns):
        return pickle.dumps(value, protocol=5)
    return dumps(value, buffers)


def unpack_reply(frames: Sequence[Buffer]) -> Reply:
    """What came of a request; what was noted of its nodes goes on to who watches.

    Raises what the far side could not even begin with, a resource that it could not build, or what unpickling raises.
    """
    head = json.loads(bytes(frames[0]))
    if head["status"] == "mismatch":
        raise VersionMismatchError(head["why"])
    if head["status"] == "stage unreadable":
        raise UnsendableError(head["why"])
    if head["status"] == "rows unreadable":
        raise RowsUnreadable(head["why"])
    if head["status"] == "resource":
        error, cause, records = loads(frames[1])
        deliver(records)
        raise error from cause
    columns, count, failures, records = loads(frames[1], frames[2:])
    deliver(records)
    return Reply(Table(columns, count), failures, head["seconds"])


def why_unsendable(stage: Stage, task: Task, reason: BaseException) -> UnsendableError:
    """The error for the one row that could not be carried: which input, or that it was a result."""
    for (name, _), value in zip(stage.inputs, task.values, strict=True):
        try:
            pickle.loads(dumps(value))
        except (Exception, SystemExit, GeneratorExit) as error:
            found = culprit(value, name)
            return UnsendableError(f"the input {found} cannot be sent to another process: {text_of(error)}")
    if isinstance(reason, RowsUnreadable):
        return UnsendableError(str(reason))
    return UnsendableError(f"the result cannot be brought home: {type(reason).__qualname__}: {text_of(reason)}")


def _unsendable_stage(stage: Stage, error: BaseException) -> UnsendableError:
    from hypernodes._plan import MapStep

    todo = list(stage.steps)
    while todo:
        step = todo.pop(0)
        if isinstance(step, MapStep):
            todo += step.inner.steps
            continue
        if step.needs:
            fault = _unsendable_resource(step)
            if fault is not None:
                return fault
        try:
            dumps(step.node)
        except Exception as own:
            found = culprit(step.node.func, step.node.name)
            return UnsendableError(
                f"node '{' > '.join(step.path)}' cannot be sent to another process: {found}: {text_of(own)}; "
                "make it inside the function, or run this pipeline on threads"
            )
    return UnsendableError(f"the pipeline '{stage.name}' cannot be sent to another process: {text_of(error)}")


def _unsendable_resource(step: Step) -> UnsendableError | None:
    todo = [need for _, need in step.needs]
    while todo:
        need = todo.pop(0)
        todo += [below for _, below in need.needs]
        resource = need.resource
        try:
            dumps(resource)
        except Exception as error:
            return UnsendableError(
                f"the function of resource '{resource.name}' (of {need.provider}), which node "
                f"'{' > '.join(step.path)}' needs, cannot be sent to another process: "
                f"{culprit(resource.func, resource.name)}: {text_of(error)}; make it inside the function, or run this "
                "pipeline on threads"
            )
    return None


# -- the far side


def receive(payload: Buffer, blobs: Mapping[str, Buffer] = _NO_BLOBS) -> bytes:
    """Run a request: the one function that a place calls on the far side.

    `blobs` are those that did not come within the payload, by digest. They are not changed, and one that is not needed,
    since what it holds is known here already, is not asked for: so a place may fetch them when they are.
    """
    return join(receive_frames(*_parts(payload, blobs)))


async def receive_async(payload: Buffer, blobs: Mapping[str, Buffer] = _NO_BLOBS) -> bytes:
    """The same on the running event loop, which other requests share meanwhile."""
    read = _read(*_parts(payload, blobs))
    if not isinstance(read, _Read):
        return join(read)
    started = time.perf_counter()
    with _restored(read.context), collecting() as records:
        try:
            reply = await read.engine.run_rows_async(read.stage, read.rows, read.context)
        except ResourceError as error:
            if not error.ends:
                raise
            return join(_pack_end(error.at(read.context.place), records))
    return join(_packed(read, reply, started, records))


def _parts(payload: Buffer, blobs: Mapping[str, Buffer]) -> tuple[Sequence[Buffer], Mapping[str, Buffer]]:
    frames, inside = opened(bytearray(payload))
    return frames, ChainMap(cast("dict[str, Buffer]", inside), cast("dict[str, Buffer]", blobs))


def receive_frames(frames: Sequence[Buffer], blobs: Mapping[str, Buffer]) -> list[Buffer]:
    """Run a request, with the blobs that it names.

    Never raises for what user code or unpickling does: that is told in the reply.
    """
    read = _read(frames, blobs)
    if not isinstance(read, _Read):
        return read
    started = time.perf_counter()
    engine, stage, rows, context = read
    with _restored(context), collecting() as records:
        try:
            reply = run_rows(stage, rows, context.place) if engine is None else engine.run_rows(stage, rows, context)
        except ResourceError as error:
            if not error.ends:
                raise
            return _pack_end(error.at(context.place), records)
    return _packed(read, reply, started, records)


class _Read(NamedTuple):
    """A request that could be read."""

    engine: Any
    stage: Stage
    rows: Table
    context: Context


def _read(frames: Sequence[Buffer], blobs: Mapping[str, Buffer]) -> _Read | list[Buffer]:
    """The request in these frames, or the reply that says why it cannot be read."""
    header = json.loads(bytes(frames[0]))
    ours = versions()
    for what in ("format", "hypernodes", "python"):
        if header[what] != ours[what]:
            return [_status("mismatch", why=_mismatch(what, header[what], ours[what]))]
    try:
        stage = _stage(header["stage"], blobs)
    except BaseException as error:
        return [_status("stage unreadable", why=_unreadable("the pipeline", error))]
    try:
        engine = pickle.loads(frames[1]) if len(frames[1]) else None
        columns, count = loads(frames[2], frames[3:])
        for at, digest in header["shared"].items():
            columns[int(at)] = [rebuilt(blobs[digest])] * count
    except BaseException as error:
        return [_status("rows unreadable", why=_unreadable("an input", error))]
    return _Read(engine, stage, Table(columns, count), Context.from_json(header["context"]))


def _packed(read: _Read, reply: Reply, started: float, records: list[Record | Built]) -> list[Buffer]:
    seconds = time.perf_counter() - started
    return _pack_reply(read.stage, reply._replace(seconds=seconds), records, read.context.place)


def _restored(context: Context) -> AbstractContextManager[None]:
    """What plugins put into the carrier over there, restored around the tasks here."""
    if not context.carrier:
        return nullcontext()
    from hypernodes._observers import extract

    return extract(context.carrier)


def _stage(digest: str, blobs: Mapping[str, Buffer]) -> Stage:
    found = _stages.get(digest)
    if found is None:
        found = _stages[digest] = pickle.loads(blobs[digest])
        if len(_stages) > STAGES_KEPT:
            _stages.popitem(last=False)
    else:
        _stages.move_to_end(digest)
    return found


def _pack_reply(stage: Stage, reply: Reply, records: list[Record | Built], place: str) -> list[Buffer]:
    failures = {at: (_portable(failure), step) for at, (failure, step) in reply.failures.items()}
    values = reply.values
    buffers: list[Any] = []
    try:
        body = _dump_reply(stage, values, failures, records, buffers)
    except Exception:
        values = list(values)
        for at, row in enumerate(values):
            if row is not None and at not in failures:
                values[at] = row = _without_spare(stage, row)
                error = _unsendable_row(stage, row)
                if error is not None:
                    values[at] = None
                    failures[at] = error
        failures = {at: (_in_place(failure, place), step) for at, (failure, step) in failures.items()}
        buffers = []
        body = _dump_reply(stage, values, failures, records, buffers)
    return [_status("done", seconds=reply.seconds), body, *(buffer.raw() for buffer in buffers)]


def _dump_reply(
    stage: Stage,
    values: Sequence[tuple[Any, ...] | None],
    failures: dict[int, tuple[Failure, int]],
    records: list[Record | Built],
    buffers: list[Any],
) -> bytes:
    table = Table.of(values, len(stage.outputs))
    told = (table.columns, table.height, failures, records)
    return dumps(told, buffers) if failures or records else dump_columns(told, table.columns, buffers)


def _pack_end(error: ResourceError, records: list[Record | Built]) -> list[Buffer]:
    """That a resource could not be built, with what its function raised as far as that can travel."""
    cause = error.__cause__
    if cause is not None:
        text = _traceback_text(cause)
        cause = _surviving(cause, RemoteError(type(cause).__qualname__, text_of(cause), text))
        if not any(note.startswith(_REMOTE) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{_REMOTE}\n{text.rstrip()}")
    return [_status("resource"), dumps((error, cause, records))]


_REMOTE = "remote traceback of its function:"


def _in_place(failure: Failure, place: str) -> Failure:
    from dataclasses import replace

    return failure if failure.place else replace(failure, place=place)


def _without_spare(stage: Stage, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row with `LEFT` for what only a cache wants and cannot travel."""

    def kept(slot: int, value: Any) -> Any:
        if slot in stage.spare:
            try:
                dumps(value)
            except Exception:
                return LEFT
        return value

    return tuple([kept(slot, value) for (_, slot), value in zip(stage.outputs, row, strict=True)])


def _unsendable_row(stage: Stage, row: tuple[Any, ...]) -> tuple[Failure, int] | None:
    from hypernodes._failure import describe

    for (_, slot), value in zip(stage.outputs, row, strict=True):
        try:
            dumps(value)
        except Exception as error:
            at, name, path = _maker(stage, slot)
            told = UnsendableError(
                f"the result {culprit(value, name)} of node '{path[-1]}' cannot be brought home: {text_of(error)}; "
                "return plain data, or run this pipeline on threads"
            )
            return describe(told, path, (None,) * len(path), ""), at
    return None


def _maker(stage: Stage, slot: int) -> tuple[int, str, tuple[str, ...]]:
    from hypernodes._plan import Step

    for at, step in enumerate(stage.steps):
        if slot in step.writes:
            position = step.writes.index(slot)
            names = step.node.outputs if isinstance(step, Step) else [name for name, _ in step.inner.outputs]
            return at, names[position], step.path
    return 0, {place: name for name, place in stage.inputs}[slot], stage.steps[0].path


def _portable(failure: Failure) -> Failure:
    """The failure with its traceback as text, and an exception that is known to survive the trip."""
    from dataclasses import replace

    text = _traceback_text(failure.error)
    error = _surviving(failure.error, RemoteError(failure.type_name, failure.message, text))
    return replace(failure, error=error, traceback_text=text, made=_sendable(failure.made))


def _surviving(error: BaseException, instead: RemoteError) -> BaseException:
    """The exception where it is known to survive the trip."""
    try:
        back = pickle.loads(dumps(error))
    except BaseException:
        # Whatever a user's exception does when it is pickled or rebuilt, its text still comes home.
        return instead
    return error if type(back).__qualname__ == type(error).__qualname__ else instead


def _sendable(made: dict[int, Any] | None) -> dict[int, Any] | None:
    """What was made before a failure, as far as it can travel; whatever cannot is made again another time."""
    found: dict[int, Any] = {}
    for slot, value in (made or {}).items():
        try:
            dumps(value)
        except Exception:
            continue
        found[slot] = value
    return None if made is None else found


def _traceback_text(error: BaseException) -> str:
    try:
        with uninterrupted:
            return "".join(traceback.format_exception(error))
    except Exception as broken:
        return f"<the traceback of this {type(error).__qualname__} cannot be shown: {type(broken).__name__}>"


def _status(status: str, **facts: Any) -> bytes:
    return json.dumps({"status": status, **facts}).encode()


def _mismatch(what: str, sent: Any, here: Any) -> str:
    def told(value: Any) -> str:
        return ".".join(map(str, value)) if isinstance(value, list) else str(value)

    names = {"python": "Python", "hypernodes": "hypernodes", "format": "the wire format"}
    return (
        f"the pipeline was packed by {names[what]} {told(sent)}, the place that received it has {names[what]} "
        f"{told(here)}; give both the same"
    )


def _unreadable(what: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"module '{error.name}', which {what} needs, is missing in the place that received it; install it there, "
            f"let the place see its folder, or send it along: cloudpickle.register_pickle_by_value({error.name})"
        )
    return f"{what} could not be unpickled in the place that received it: {type(error).__qualname__}: {text_of(error)}"
