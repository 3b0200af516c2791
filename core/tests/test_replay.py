"""A failure made again where its inputs were kept, and the places that its path goes through."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from hypernodes import (
    Failure,
    HypernodesError,
    LocalBackend,
    NodeDefinitionError,
    OutputCountError,
    Pipeline,
    RemoteError,
    failure_of,
    node,
)
from hypernodes.testing import SubprocessBackend

BACKENDS = [None, LocalBackend(engine="async"), LocalBackend(node_execution="async", map_execution="sequential")]

SECRET = "s3cret"


@node(output_name="whole")
def divide(number: int, *, by: int, token: str = SECRET) -> float:
    return number / by


@node(output_name="whole", name="divide")
async def divide_later(number: int, *, by: int, token: str = SECRET) -> float:
    await asyncio.sleep(0)
    return number / by


@node(output_name="number")
def one(x: int) -> int:
    return x


@pytest.fixture(scope="module")
def far() -> Iterator[Any]:
    with SubprocessBackend(machines=1) as backend:
        yield backend


def the_failure(pipeline: Pipeline, **inputs: Any) -> Failure:
    with pytest.raises(Exception) as caught:
        pipeline.run(**inputs)
    failure = failure_of(caught.value)
    assert failure is not None
    return failure


# -- in this process


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("last", [divide, divide_later])
def test_failing_node_can_be_called_again(backend: Any, last: Any) -> None:
    pipeline = Pipeline([one, last], name="main", backend=backend, keep_inputs=True)
    found = pipeline.map([{"x": 5, "by": by, "token": SECRET} for by in (1, 0)], output_name="whole", on_error="return")
    assert found[0] == 5
    assert found[1].inputs == {"number": 5, "by": 0, "token": SECRET}
    with pytest.raises(ZeroDivisionError):
        found[1].reproduce()
    failure = the_failure(pipeline, x=6, by=0)
    assert failure.inputs == {"number": 6, "by": 0}
    with pytest.raises(ZeroDivisionError):
        failure.reproduce()


def test_every_way_to_call_keeps_inputs() -> None:
    pipeline = Pipeline([one, divide], keep_inputs=True)
    for call in (
        lambda: pipeline.map([{"x": 1, "by": 0}]),
        lambda: pipeline.map(inputs={"x": [1], "by": 0}, map_over="x"),
        lambda: asyncio.run(pipeline.arun(x=1, by=0)),
        lambda: list(pipeline.map_iter([{"x": 1, "by": 0}])),
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            call()
        failure = failure_of(caught.value)
        assert failure is not None
        assert failure.inputs == {"number": 1, "by": 0}


def test_node_that_does_not_fail_again_gives_its_value() -> None:
    state = {"by": 0}

    @node(output_name="y")
    def look(x: int) -> float:
        return x / state["by"]

    failure = the_failure(Pipeline([look], keep_inputs=True), x=6)
    state["by"] = 2
    assert failure.reproduce() == 3


def test_running_loop_does_not_hinder_a_coroutine() -> None:
    failure = the_failure(Pipeline([divide_later], keep_inputs=True), number=1, by=0)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            failure.reproduce()

    asyncio.run(main())


def test_inputs_of_the_item_that_failed_are_kept_also_inside_maps() -> None:
    inner = Pipeline([divide], name="inner").as_node({"numbers": "number"}, map_over="numbers")
    failure = the_failure(Pipeline([inner], name="main", keep_inputs=True, retries=1), numbers=[1, "a"], by=2)
    assert failure.where == "main > inner (item 1) > divide"
    assert failure.inputs == {"number": "a", "by": 2}
    with pytest.raises(TypeError):
        failure.reproduce()


def test_what_watches_and_bounds_a_node_is_not_among_its_inputs() -> None:
    events: list[Any] = []
    pipeline = Pipeline([one, divide], keep_inputs=True, timeout=600, callbacks=[events.append])
    assert the_failure(pipeline, x=1, by=0).inputs == {"number": 1, "by": 0}


def test_wrong_number_of_outputs_keeps_inputs_too() -> None:
    two = node(lambda x: (x, x, x), output_name=("a", "b"), name="two")
    failure = the_failure(Pipeline([two], keep_inputs=True), x=1)
    assert isinstance(failure.error, OutputCountError)
    assert failure.inputs == {"x": 1}
    assert failure.reproduce() == (1, 1, 1)


# -- the option


def test_inputs_are_kept_only_where_that_was_asked_for() -> None:
    failure = the_failure(Pipeline([divide], name="main"), number=1, by=0)
    assert failure.inputs is None
    with pytest.raises(HypernodesError, match=r"inputs of 'main > divide' were not kept; .* with keep_inputs=True"):
        failure.reproduce()


def test_option_is_inherited_and_can_be_switched_off() -> None:
    kept = Pipeline([divide], name="inner")
    off = Pipeline([divide], name="inner", keep_inputs=False)
    assert the_failure(Pipeline([kept], keep_inputs=True), number=1, by=0).inputs == {"number": 1, "by": 0}
    assert the_failure(Pipeline([off], keep_inputs=True), number=1, by=0).inputs is None
    assert the_failure(Pipeline([off.with_options(keep_inputs=True)]), number=1, by=0).inputs is not None
    assert pickle.loads(pickle.dumps(Pipeline([kept], keep_inputs=True))).keep_inputs is True


def test_option_that_is_neither_is_refused() -> None:
    with pytest.raises(NodeDefinitionError, match="pipeline 'main': keep_inputs='yes'; give True or False"):
        Pipeline([divide], name="main", keep_inputs="yes")  # type: ignore[arg-type]


def test_inputs_are_never_shown() -> None:
    events: list[Any] = []
    pipeline = Pipeline([divide], keep_inputs=True, callbacks=[events.append])
    failure = the_failure(pipeline, number=1, by=0, token=SECRET)
    assert failure.inputs is not None
    assert SECRET in failure.inputs.values()
    shown = [repr(failure), str(failure), repr(failure.to_dict()), repr(failure.kept), repr(events)]
    assert SECRET not in "".join([*shown, *failure.error.__notes__])


# -- over borders


def test_inputs_come_home_over_a_border(far: Any) -> None:
    pipeline = Pipeline([one, divide], name="main", backend=far, keep_inputs=True)
    failure = the_failure(pipeline, x=3, by=0)
    assert failure.place == "subprocess:sequential"
    assert failure.inputs == {"number": 3, "by": 0}
    with pytest.raises(ZeroDivisionError):
        failure.reproduce()


def test_exception_that_cannot_travel_does_not_keep_inputs_from_coming_home(far: Any) -> None:
    @node(output_name="y")
    def fail(x: int) -> int:
        class Odd(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("no")

        raise Odd(f"{x} is odd")

    failure = the_failure(Pipeline([fail], backend=far, keep_inputs=True), x=3)
    assert isinstance(failure.error, RemoteError)
    with pytest.raises(Exception, match="3 is odd"):
        failure.reproduce()


def test_input_that_cannot_travel_is_named_when_it_is_asked_for(far: Any) -> None:
    @node(output_name="config")
    def make(x: int) -> Any:
        return {"lock": threading.Lock()}

    @node(output_name="y")
    def use(config: Any) -> int:
        raise LookupError("nothing there")

    failure = the_failure(Pipeline([make, use], name="main", backend=far, keep_inputs=True), x=1)
    assert isinstance(failure.error, LookupError)
    assert failure.inputs is None
    with pytest.raises(
        HypernodesError, match=r"inputs of 'main > use' could not be brought home: the input 'config\['lock'\]'"
    ):
        failure.reproduce()


def test_failure_with_inputs_can_be_pickled_more_than_once() -> None:
    failure = the_failure(Pipeline([divide], keep_inputs=True), number=1, by=0)
    for _ in range(3):
        failure = cloudpickle.loads(cloudpickle.dumps(failure))
    assert failure.inputs == {"number": 1, "by": 0}


class Breaks:
    """Can be pickled, and not be read again."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> Any:
    raise ValueError("cannot be read")


def test_input_that_cannot_be_read_again_harms_only_itself() -> None:
    failure = the_failure(Pipeline([divide], name="main", keep_inputs=True), number=Breaks(), by=0)
    back = cloudpickle.loads(cloudpickle.dumps(failure))
    assert back.type_name == "TypeError"
    assert back.inputs is None
    with pytest.raises(HypernodesError, match="ValueError: cannot be read"):
        back.reproduce()


# -- the places of a path


def test_failure_says_which_places_its_path_goes_through(far: Any) -> None:
    gpu = Pipeline([divide], name="gpu", backend=far)
    cpu = Pipeline([gpu], name="cpu", backend=LocalBackend(engine="async"))
    main = Pipeline([one, cpu], name="main")
    hops = "main (local:sequential) > cpu (local:async) > gpu (subprocess:sequential) > divide"
    failure = the_failure(main, x=1, by=0)
    assert failure.hops == hops
    assert failure.places == ("local:sequential", "local:async", "subprocess:sequential")
    assert failure.to_dict()["places"] == list(failure.places)
    assert f"through {hops}" in failure.error.__notes__
    (left,) = main.map([{"x": 1, "by": 0}], on_error="return")
    assert left.hops == hops
    with pytest.raises(ZeroDivisionError) as caught:
        asyncio.run(main.arun(x=1, by=0))
    assert f"through {hops}" in caught.value.__notes__


def test_events_tell_the_places_of_a_failure(far: Any) -> None:
    events: list[Any] = []
    main = Pipeline([Pipeline([divide], name="gpu", backend=far)], name="main", callbacks=[events.append])
    main.map([{"number": 1, "by": 0}], on_error="return")
    (told,) = [event.failure for event in events if event.kind == "item" and event.phase == "end"]
    assert told.hops == "main (local:sequential) > gpu (subprocess:sequential) > divide"


def test_one_place_is_told_once() -> None:
    failure = the_failure(Pipeline([Pipeline([divide], name="inner")], name="main"), number=1, by=0)
    assert failure.hops == "main (local:sequential) > inner (local:sequential) > divide"
    assert failure.error.__notes__ == ["in main > inner > divide, on local:sequential"]
