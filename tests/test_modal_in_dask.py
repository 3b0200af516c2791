"""A pipeline on a Dask cluster holds one on Modal, which holds one at home: all is as if it ran here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from hypernodes import DaskBackend, DiskCache, Failure, LocalBackend, ModalBackend, Pipeline, node
from hypernodes.testing import EventLog
from hypernodes_modal.testing import LocalModal

pytestmark = [
    pytest.mark.long,
    # Sockets that Dask leaves to the garbage collector, which closes them in any later test.
    pytest.mark.filterwarnings(r"ignore:.*unclosed <s.*ocket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings(r"ignore:Exception ignored in.*<s.*ocket:pytest.PytestUnraisableExceptionWarning"),
]

Places = dict[str, Any]


@pytest.fixture(scope="module")
def plane() -> Iterator[LocalModal]:
    with LocalModal(capacity=1) as plane:
        yield plane
        assert plane.unimplemented == {}
        assert plane.errors == []


@pytest.fixture(scope="module")
def places(plane: LocalModal) -> Iterator[Places]:
    with (
        plane.client() as client,
        DaskBackend(workers=1) as cluster,
        ModalBackend(max_concurrent=1, client=client) as cloud,
    ):
        yield {"cluster": cluster, "cloud": cloud, "home": LocalBackend()}


HERE: Places = dict.fromkeys(("cluster", "cloud", "home"), LocalBackend())


def nested(places: Places, **options: Any) -> Pipeline:
    """`before` and `after` on the cluster, `encode` and `finish` on Modal, `look` at home between those two."""

    @node(output_name="cleaned")
    def before(x: int) -> int:
        return x + 1

    @node(output_name="vector")
    def encode(cleaned: int) -> float:
        return 60 / (cleaned - 3)

    @node(output_name="looked")
    def look(vector: float) -> float:
        return -vector

    @node(output_name="finished")
    def finish(looked: float, vector: float) -> tuple[float, float]:
        return looked, vector

    @node(output_name="y")
    def after(finished: tuple[float, float], cleaned: int) -> list[float]:
        return [*finished, cleaned]

    home = Pipeline(nodes=[look], name="home", backend=places["home"])
    cloud = Pipeline(nodes=[encode, home, finish], name="cloud", backend=places["cloud"])
    return Pipeline(nodes=[before, cloud, after], name="cluster", backend=places["cluster"], **options)


ROWS = [{"x": x} for x in (0, 1, 2, 3, 4)]
"""Of these the third divides by zero at Modal."""


def test_nodes_run_where_their_pipeline_says_in_one_trace(plane: LocalModal, places: Places) -> None:
    def look(*_: Any) -> Any:
        from opentelemetry import trace

        context = trace.get_current_span().get_span_context()
        return os.getpid(), os.environ.get("MODAL_TASK_ID", ""), context.trace_id

    first = node(lambda x: look(), output_name="first")
    far = node(lambda first: look(), output_name="far")
    near = node(lambda far: look(), output_name="near")
    last = node(lambda near: look(), output_name="last")
    home = Pipeline(nodes=[near], name="home", backend=places["home"])
    cloud = Pipeline(nodes=[far, home], name="cloud", backend=places["cloud"])
    main = Pipeline(nodes=[first, cloud, last], name="main", backend=places["cluster"])

    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("around") as span:
        found = main.run(x=1)
    (container,) = [one for one in plane.containers if one.alive]
    processes = {name: process for name, (process, _, _) in found.items()}
    assert processes["near"] == os.getpid()
    assert processes["far"] == container.pid
    assert processes["first"] == processes["last"] not in (os.getpid(), container.pid)
    assert [found[name][1] for name in ("first", "far", "near", "last")] == ["", container.id, "", ""]
    assert {traced for _, _, traced in found.values()} == {span.get_span_context().trace_id}


def test_values_failures_and_events_are_those_of_a_run_at_home(places: Places) -> None:
    def story(places: Places) -> tuple[Any, list[Any]]:
        log = EventLog()
        found = nested(places, callbacks=[log]).map(ROWS, output_name="y", on_error="return")
        return log.tree(), found

    tree, found = story(places)
    own_tree, own = story(HERE)
    assert tree == own_tree
    assert [one for one in found if not isinstance(one, Failure)] == [own[at] for at in (0, 1, 3, 4)]
    failure = found[2]
    assert isinstance(failure.error, ZeroDivisionError)
    assert (
        (failure.path, failure.items)
        == (own[2].path, own[2].items)
        == (("cluster", "cloud", "encode"), (2, None, None))
    )
    assert failure.hops == "cluster (dask:dask) > cloud (modal:container) > encode"
    assert failure.place == "modal:container"
    with pytest.raises(ZeroDivisionError) as caught:
        nested(places).run(x=2)
    assert any("cluster > cloud > encode" in note for note in caught.value.__notes__)


def test_what_ran_at_home_is_a_hit_there_and_the_other_way_round(
    plane: LocalModal, places: Places, tmp_path: Path
) -> None:
    rows = [row for row in ROWS if row["x"] != 2]
    before = plane.rpcs["FunctionMap"]
    for at, (first, second) in enumerate(((HERE, places), (places, HERE))):
        cache, log = DiskCache(tmp_path / str(at)), EventLog()
        expected = nested(first, cache=cache).map(rows, output_name="y")
        called = plane.rpcs["FunctionMap"]
        assert nested(second, cache=cache, callbacks=[log]).map(rows, output_name="y") == expected
        assert {status for found in log.statuses().values() for status in found} == {"cached"}
        assert plane.rpcs["FunctionMap"] == called
    assert plane.rpcs["FunctionMap"] > before
