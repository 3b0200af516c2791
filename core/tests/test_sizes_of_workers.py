"""What a place is told of the calls it gets, what it says of itself, and tensors of GPUs that this machine has not."""

from __future__ import annotations

import io
import pickle
import sys
import types
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from hypernodes import Pipeline, node
from hypernodes._payload import loads, payload_of
from hypernodes.plugin import Backend, Demand, Session, pair, receive


@dataclass(frozen=True)
class SizedBackend(Backend):
    """Runs requests in this thread, and notes with which demand it was asked for each."""

    name: ClassVar[str] = "sized"

    asked: list[Demand] = field(default_factory=list, compare=False)
    engine: Any = None
    node_execution: str | None = None
    map_execution: str | None = None
    max_workers: int | None = None
    map_strategy: str | None = None

    def __post_init__(self) -> None:
        pair(self)

    def about(self) -> str:
        return "2 dollars an hour"

    def open(self) -> Session:
        return SizedSession(self.asked, Demand())


class SizedSession(Session):
    def __init__(self, asked: list[Demand], demand: Demand) -> None:
        self.asked, self.demand = asked, demand

    def sized(self, demand: Demand) -> Session:
        return SizedSession(self.asked, demand)

    def submit(self, payload: bytes) -> Future[bytes]:
        self.asked.append(self.demand)
        future: Future[bytes] = Future()
        future.set_result(receive(payload))
        return future

    def close(self) -> None:
        """Nothing is open."""


light = node(lambda x: x + 1, output_name="more", resources={"cpus": 2, "memory": "1GB"})
heavy = node(lambda more: -more, output_name="less", resources={"gpus": 1, "memory": "8GB"})
plain = node(lambda less: less, output_name="same")


def test_place_is_told_the_most_that_a_node_of_the_stage_uses():
    backend = SizedBackend()
    assert Pipeline(nodes=[light, heavy, plain], backend=backend).run(x=1, output_name="same") == -2
    assert backend.asked == [Demand(2, 1, 8_000_000_000)]
    Pipeline(nodes=[plain], backend=backend).run(less=1)
    assert backend.asked[-1] == Demand()


def test_place_is_told_what_nodes_of_a_mapped_pipeline_use():
    backend = SizedBackend()
    inner = Pipeline(nodes=[light], name="inner").as_node(input_mapping={"xs": "x"}, map_over="xs")
    assert Pipeline(nodes=[inner], backend=backend).run(xs=[1, 2]) == {"more": [2, 3]}
    assert set(backend.asked) == {Demand(2, 0, 1_000_000_000)}


def test_explanation_says_what_the_place_says_of_itself():
    told = Pipeline(nodes=[plain], backend=SizedBackend()).explain()
    assert told.workers["sized:sequential"].endswith("; 2 dollars an hour")


class Fetching(dict[str, bytes]):
    """Blobs that are fetched when they are asked for."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self.kept = kept
        self.fetched: list[str] = []

    def __contains__(self, digest: object) -> bool:
        return digest in self.kept

    def __missing__(self, digest: str) -> bytes:
        self.fetched.append(digest)
        return self.kept[digest]


def test_blob_that_is_known_already_is_not_asked_for():
    sent: list[tuple[Any, Any]] = []

    class Catching(SizedSession):
        def sized(self, demand: Demand) -> Session:
            return self

        def submit_request(self, frames: Any, blobs: Any) -> Future[bytes]:
            sent.append((frames, blobs))
            return super().submit_request(frames, blobs)

    @dataclass(frozen=True)
    class CatchingBackend(SizedBackend):
        def open(self) -> Session:
            return Catching([], Demand())

    fresh = node(lambda x: ("fresh", x), output_name="y")
    assert Pipeline(nodes=[fresh], backend=CatchingBackend()).run(x=1) == {"y": ("fresh", 1)}
    frames, blobs = sent[0]
    fetching = Fetching(dict(blobs))
    for _ in range(2):
        receive(payload_of(frames, {}), fetching)
    assert fetching.fetched == []  # it ran here before


class Tensor:
    """Pickles like one of torch: its storage by what it was saved as."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage

    def __reduce__(self) -> Any:
        return Tensor, (Storage(),)


class Storage:
    def __reduce__(self) -> Any:
        return sys.modules["torch.storage"]._load_from_bytes, (b"saved on cuda:0",)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for a torch that sees no GPU, as it behaves when it unpickles what was on one."""
    package, storage = types.ModuleType("torch"), types.ModuleType("torch.storage")

    def load_from_bytes(stored: bytes) -> Any:
        raise RuntimeError("Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False")

    def load(file: io.BytesIO, map_location: str, weights_only: bool) -> Any:
        return file.read(), map_location

    load_from_bytes.__module__, load_from_bytes.__qualname__ = "torch.storage", "_load_from_bytes"
    storage._load_from_bytes = load_from_bytes  # type: ignore[attr-defined]
    package.load, package.storage = load, storage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch.storage", storage)
    return package


def test_tensor_of_a_gpu_that_is_not_here_is_put_into_memory(torch: Any):
    data = bytearray(b"beside it")
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps([Tensor(None), pickle.PickleBuffer(data)], 5, buffer_callback=buffers.append)
    tensor, beside = loads(pickled, [buffer.raw() for buffer in buffers])
    assert tensor.storage == (b"saved on cuda:0", "cpu")
    assert bytes(beside) == b"beside it"


class Broken:
    def __reduce__(self) -> Any:
        return _broken, ()


def _broken() -> None:
    raise RuntimeError("my own trouble")


@pytest.mark.parametrize("with_torch", [False, True])
def test_other_errors_of_unpickling_stay_as_they_are(with_torch: bool, request: pytest.FixtureRequest):
    if with_torch:
        request.getfixturevalue("torch")
    with pytest.raises(RuntimeError, match="my own trouble"):
        loads(pickle.dumps(Broken()))
