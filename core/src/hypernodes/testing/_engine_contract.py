"""What every engine promises, whoever wrote it. Inherit `EngineContract` and give it the fixture `engine`."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hypernodes import (
    Failure,
    Pipeline,
    PipelineTimeoutError,
    WorkerLostError,
    failure_of,
    node,
)
from hypernodes.testing._batch_contract import BatchContract
from hypernodes.testing._compare import compare
from hypernodes.testing._context_contract import ContextContract
from hypernodes.testing._leaks import LeakWatch
from hypernodes.testing._limit_contract import LimitContract
from hypernodes.testing._local_contract import LocalContract
from hypernodes.testing._promises import check_random_cases
from hypernodes.testing._resource_contract import ResourceContract
from hypernodes.testing._zoo import (
    ORDINARY,
    Coded,
    Held,
    Refused,
    Suffix,
    check,
    double,
    release,
    same,
    stalling,
    unowned_function,
)

__all__ = ["EngineContract"]


class EngineContract(ContextContract, BatchContract, ResourceContract, LimitContract, LocalContract):
    """Promises of an engine on `LocalBackend`. The fixture `engine` gives its name or an instance.

    `can_kill_workers` says that nodes run in processes of their own, so that one may die, `closes_in_workers` that
    those end in order when the backend is closed. `draw_ahead` is the most items that a stream may have drawn beyond
    those it has given back, `draw_ahead_of_megabytes` the same where every item holds a megabyte. An engine that takes
    no modes schedules nodes and items itself: what is promised of map strategies is not asked of it.
    """

    draw_ahead_of_megabytes: ClassVar[int] = 500

    @pytest.fixture
    def backend(self, engine: Any) -> Iterator[Any]:
        with self.backend_with(engine, max_workers=2) as backend:
            yield backend

    # values -----------------------------------------------------------------------------------------------------

    def test_n_items_in_n_results_out_in_their_order(self, backend: Any) -> None:
        rows = Pipeline(nodes=[double], backend=backend).map([{"x": i} for i in range(100)])
        compare([{"doubled": 2 * i} for i in range(100)], rows)

    def test_columns_in_columns_out(self, backend: Any) -> None:
        @node(output_name="total")
        def add(x: Any, y: Any) -> Any:
            return x + y

        pipeline = Pipeline(nodes=[add], backend=backend)
        zipped = pipeline.map(inputs={"x": [1, 2], "y": [10, 20]}, map_over=["x", "y"])
        compare({"total": [11, 22]}, zipped)
        product = pipeline.map(inputs={"x": [1, 2], "y": [10, 20]}, map_over=["x", "y"], map_mode="product")
        compare({"total": [11, 21, 12, 22]}, product)

    def test_no_items_give_no_rows_and_every_column_empty(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[double, same], backend=backend)
        compare([], pipeline.map([]))
        compare({"doubled": [], "same": []}, pipeline.map(inputs={"x": []}, map_over="x"))
        compare([], pipeline.map([], output_name="same"))

    def test_every_value_comes_back_as_it_was(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[same], backend=backend)
        compare(list(ORDINARY), pipeline.map([{"x": value} for value in ORDINARY], output_name="same"))

    def test_every_value_reaches_the_next_node_as_it_was(self, backend: Any) -> None:
        @node(output_name="kind")
        def kind(same: Any) -> Any:
            return f"{type(same).__qualname__} {same!r}"

        pipeline = Pipeline(nodes=[kind, same], backend=backend)
        found = pipeline.map([{"x": value} for value in ORDINARY], output_name="kind")
        compare([f"{type(value).__qualname__} {value!r}" for value in ORDINARY], found)

    def test_returned_tuple_is_one_value_unless_several_are_named(self, backend: Any) -> None:
        @node(output_name="pair")
        def pair(x: Any) -> Any:
            return x, [x]

        @node(output_name=("first", "rest"))
        def split(x: Any) -> Any:
            return x, (x,)

        compare({"pair": (1, [1]), "first": 1, "rest": (1,)}, Pipeline(nodes=[pair, split], backend=backend).run(x=1))

    def test_large_values_survive(self, backend: Any) -> None:
        data = bytes(range(256)) * 20_000
        pipeline = Pipeline(nodes=[same], backend=backend)
        assert pipeline.run(x=data, output_name="same") == data
        assert pipeline.map([{"x": data}, {"x": 1}], output_name="same") == [data, 1]

    # nodes ------------------------------------------------------------------------------------------------------

    def test_lambdas_closures_and_methods_are_nodes(self, backend: Any) -> None:
        offset = 10

        @node(output_name="moved")
        def move(x: Any) -> Any:
            return x + offset

        halved = node(lambda moved: moved / 2, output_name="halved")
        shown = node(Suffix("!").add, output_name="shown")
        found = Pipeline(nodes=[move, halved, shown], backend=backend).run(x=4)
        compare({"moved": 14, "halved": 7.0, "shown": "7.0!"}, found)

    def test_functions_of_a_script_or_a_notebook_are_nodes(self, backend: Any) -> None:
        text = "BY = 3\ndef helper(x):\n    return x * BY\ndef triple(x):\n    return helper(x)\n"
        triple = node(unowned_function(text, "triple"), output_name="tripled")
        compare([{"tripled": 0}, {"tripled": 3}], Pipeline(nodes=[triple], backend=backend).map([{"x": 0}, {"x": 1}]))

    def test_async_nodes_are_awaited(self, backend: Any) -> None:
        @node(output_name="later")
        async def later(x: Any) -> Any:
            await asyncio.sleep(0)
            return x + 1

        pipeline = Pipeline(nodes=[later, node(lambda later: -later, output_name="negative")], backend=backend)
        compare({"later": 2, "negative": -2}, pipeline.run(x=1))
        compare([1, 2, 3], pipeline.map([{"x": i} for i in range(3)], output_name="later"))

    def test_generator_node_gives_the_list_of_what_it_yields(self, backend: Any) -> None:
        @node(output_name="xs")
        def count_up(upto: int) -> Iterator[int]:
            yield from range(upto)
            if upto == 2:
                raise Refused("2 is refused")

        cell = Pipeline(nodes=[double], name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")
        pipeline = Pipeline(nodes=[count_up, cell], backend=backend)
        found = pipeline.map([{"upto": upto} for upto in range(4)], on_error="return")
        compare(
            [{"xs": list(range(n)), "doubled": [2 * x for x in range(n)]} for n in (0, 1, 3)], found[:2] + found[3:]
        )
        assert (found[2].type_name.rpartition(".")[2], found[2].path[-1]) == ("Refused", "count_up")
        compare({"xs": [0, 1, 2]}, pipeline.run(upto=3, output_nodes=["xs"]))

    def test_keyword_only_parameters_and_defaults_are_honoured(self, backend: Any) -> None:
        @node(output_name="power")
        def power(x: Any, by: Any = 2, *, plus: Any, minus: Any = 0) -> Any:
            return x**by + plus - minus

        pipeline = Pipeline(nodes=[power], backend=backend)
        assert pipeline.run(x=3, plus=1) == {"power": 10}
        assert pipeline.run(x=3, plus=1, by=3, minus=8) == {"power": 20}

    # failures ---------------------------------------------------------------------------------------------------

    def test_failure_is_the_users_own_exception(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[check], name="main", backend=backend)
        with pytest.raises(Refused) as caught:
            pipeline.run(x=1)
        assert caught.value.args == ("1 is refused", 1)
        assert any("main > check" in note for note in caught.value.__notes__)

    def test_failing_item_does_not_stop_its_neighbours(self, backend: Any) -> None:
        found = Pipeline(nodes=[check], backend=backend).map(
            [{"x": i % 3} for i in range(30)], output_name="checked", on_error="return"
        )
        assert len(found) == 30
        for i, one in enumerate(found):
            assert isinstance(one, Failure) if i % 3 == 1 else one == i % 3

    def test_failure_names_its_path_and_item(self, backend: Any) -> None:
        inner = Pipeline(nodes=[check], name="inner")
        pipeline = Pipeline(nodes=[inner], name="main", backend=backend)
        with pytest.raises(Refused) as caught:
            pipeline.map([{"x": 0}, {"x": 2}, {"x": 1}])
        failure = failure_of(caught.value)
        assert failure is not None
        assert (failure.path, failure.item) == (("main", "inner", "check"), 2)
        (left,) = pipeline.map([{"x": 1}], output_name="checked", on_error="return")
        assert (left.path, left.items) == (("main", "inner", "check"), (0, None, None))
        assert (left.type_name, left.message) == ("Refused", "('1 is refused', 1)")

    def test_failure_inside_maps_names_the_item_of_every_level(self, backend: Any) -> None:
        inner = Pipeline(nodes=[check], name="inner").as_node(input_mapping={"xs": "x"}, map_over="xs")
        rows = [{"xs": xs} for xs in ([0], [], [2, 2, 1])]
        found = Pipeline(nodes=[inner], name="main", backend=backend).map(
            rows, on_error="return", output_name="checked"
        )
        assert found[:2] == [[0], []]
        assert (found[2].path, found[2].items) == (("main", "inner", "check"), (2, 2, None))

    def test_exception_that_cannot_travel_still_says_what_it_was(self, backend: Any) -> None:
        @node(output_name="y")
        def fail(x: Any) -> Any:
            raise Coded(404, "gone") if x == 0 else Held("held")

        found = Pipeline(nodes=[fail], backend=backend).map([{"x": 0}, {"x": 1}], on_error="return", output_name="y")
        assert [(one.type_name.rpartition(".")[2], one.message) for one in found] == [
            ("Coded", "404: gone"),
            ("Held", "held"),
        ]

    def test_stop_iteration_in_a_node_is_a_failure_of_its_item(self, backend: Any) -> None:
        @node(output_name="y")
        def fail(x: Any) -> Any:
            return next(iter(())) if x == 1 else x

        found = Pipeline(nodes=[fail], backend=backend).map(
            [{"x": i} for i in range(3)], on_error="return", output_name="y"
        )
        assert (found[0], found[1].type_name, found[2]) == (0, "StopIteration", 2)

    def test_system_exit_in_a_node_is_a_failure_of_its_item(self, backend: Any) -> None:
        @node(output_name="y")
        def leave(x: Any) -> Any:
            if x == 1:
                sys.exit(3)
            return x

        found = Pipeline(nodes=[leave], backend=backend).map(
            [{"x": i} for i in range(3)], on_error="return", output_name="y"
        )
        assert (found[0], found[1].type_name, found[1].message, found[2]) == (0, "SystemExit", "3", 2)

    def test_input_that_cannot_be_sent_is_delivered_or_named(self, backend: Any) -> None:
        kind = node(lambda guard: type(guard).__name__, output_name="kind")
        found = Pipeline(nodes=[kind], backend=backend).map(
            [{"guard": 1}, {"guard": threading.Lock()}, {"guard": "a"}], on_error="return", output_name="kind"
        )
        assert (found[0], found[2]) == ("int", "str")
        assert found[1] == "lock" or ("'guard'" in found[1].message and found[1].item == 1)

    def test_result_that_cannot_be_sent_is_delivered_or_named(self, backend: Any) -> None:
        @node(output_name="guard")
        def make(x: Any) -> Any:
            return threading.Lock() if x == 1 else x

        found = Pipeline(nodes=[make], backend=backend).map(
            [{"x": i} for i in range(3)], on_error="return", output_name="guard"
        )
        assert (found[0], found[2]) == (0, 2)
        if isinstance(found[1], Failure):
            assert "'guard'" in found[1].message
            assert found[1].item == 1
        else:
            assert type(found[1]) is type(threading.Lock())

    def test_dead_worker_costs_only_the_item_that_killed_it(self, backend: Any) -> None:
        if not self.can_kill_workers:
            pytest.skip("this engine runs nodes in the caller's process")
        caller = os.getpid()

        @node(output_name="y")
        def kill(x: Any) -> Any:
            if x == 3 and os.getpid() != caller:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

        pipeline = Pipeline(nodes=[kill], backend=backend)
        found = pipeline.map([{"x": i} for i in range(20)], on_error="return", output_name="y")
        assert [one for one in found if not isinstance(one, Failure)] == [i for i in range(20) if i != 3]
        assert isinstance(found[3].error, WorkerLostError)
        assert pipeline.map([{"x": 1}], output_name="y") == [1]

    def test_timeout_of_a_pipeline_fails_its_item_alone(self, backend: Any, tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        inner = Pipeline(nodes=[stalling(gate)], name="inner", timeout=3)
        pipeline = Pipeline(nodes=[inner], name="main", backend=backend, timeout=600)
        assert Pipeline(nodes=[same], backend=backend).run(x=5) == {"same": 5}  # its workers are there
        found = pipeline.map([{"x": i} for i in range(4)], on_error="return", output_name="y")
        release(gate)
        assert (found[0], found[2], found[3]) == (0, 2, 3)
        assert isinstance(found[1].error, PipelineTimeoutError)
        assert (found[1].path, found[1].item) == (("main", "inner", "stall"), 1)
        assert pipeline.run(x=5) == {"y": 5}

    # streams ----------------------------------------------------------------------------------------------------

    def test_stream_keeps_the_order(self, backend: Any) -> None:
        stream = Pipeline(nodes=[double], backend=backend).map_iter({"x": i} for i in range(50))
        assert list(stream) == [{"doubled": 2 * i} for i in range(50)]

    def test_unordered_stream_has_every_item_once(self, backend: Any) -> None:
        stream = Pipeline(nodes=[same], backend=backend).map_iter(
            ({"x": i} for i in range(50)), ordered=False, output_name="same"
        )
        assert sorted(stream) == list(range(50))

    def test_endless_items_are_drawn_a_bounded_step_ahead(self, backend: Any) -> None:
        items = _Endless(most=20 + self.draw_ahead)
        with closing(Pipeline(nodes=[same], backend=backend).map_iter(items, output_name="same")) as stream:
            assert list(itertools.islice(stream, 20)) == list(range(20))
        assert items.drawn < items.most

    def test_large_items_are_drawn_a_smaller_step_ahead(self, backend: Any) -> None:
        items = _Endless(most=20 + self.draw_ahead_of_megabytes, payload=1_000_000)
        size = node(lambda payload: len(payload), output_name="size")
        with closing(Pipeline(nodes=[size], backend=backend).map_iter(items, output_name="size")) as stream:
            assert list(itertools.islice(stream, 20)) == [1_000_000] * 20
        assert items.drawn < items.most

    def test_closing_a_stream_stops_drawing(self, backend: Any) -> None:
        items = _Endless()
        pipeline = Pipeline(nodes=[same], backend=backend)
        with closing(pipeline.map_iter(items, output_name="same")) as stream:
            next(stream)
        drawn = items.drawn
        assert pipeline.map([{"x": i} for i in range(10)], output_name="same") == list(range(10))
        assert items.drawn == drawn

    def test_items_that_raise_end_the_stream_with_their_own_exception(self, backend: Any) -> None:
        def items() -> Iterator[dict[str, Any]]:
            yield {"x": 1}
            raise Refused("no more")

        with pytest.raises(Refused, match="no more"):
            list(Pipeline(nodes=[same], backend=backend).map_iter(items()))

    # structure --------------------------------------------------------------------------------------------------

    def test_ragged_maps_inside_a_map(self, backend: Any) -> None:
        cell = Pipeline(nodes=[double], name="cell").as_node(input_mapping={"row": "x"}, map_over="row")
        table = Pipeline(nodes=[cell], name="line").as_node(input_mapping={"table": "row"}, map_over="table")
        tables: list[Any] = [[[1, 2, 3], [], [4]], [], [[]]]
        found = Pipeline(nodes=[table], backend=backend).map([{"table": t} for t in tables], output_name="doubled")
        compare([[[2, 4, 6], [], [8]], [], [[]]], found)

    def test_only_what_a_wanted_output_needs_runs(self, backend: Any) -> None:
        @node(output_name="unwanted")
        def unwanted(x: Any) -> Any:
            raise AssertionError("nobody asked for this")

        inner = Pipeline(nodes=[same, unwanted], name="inner")
        pipeline = Pipeline(nodes=[inner, node(lambda same: -same, output_name="negative")], backend=backend)
        assert pipeline.run(x=1, output_nodes=["negative", "same"]) == {"negative": -1, "same": 1}
        assert pipeline.map([{"x": 2}], output_name="negative") == [-2]

    def test_given_output_replaces_its_producer(self, backend: Any) -> None:
        last = node(lambda checked: checked + 1, output_name="last")
        assert Pipeline(nodes=[check, last], backend=backend).run(checked=5) == {"checked": 5, "last": 6}

    def test_shared_inputs_reach_every_item_unless_a_row_has_its_own(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[node(lambda x, by: x * by, output_name="y")], backend=backend)
        rows = [{"x": 1}, {"x": 2, "by": 0}, {"x": 3}]
        assert pipeline.map(rows, inputs={"by": 10}, output_name="y") == [10, 0, 30]

    def test_random_pipelines_agree_with_the_reference_interpreter(self, backend: Any) -> None:
        check_random_cases(100, backend, any_order=True)

    # use --------------------------------------------------------------------------------------------------------

    def test_same_backend_serves_many_calls_also_after_a_failure(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[check], backend=backend)
        for _ in range(3):
            with pytest.raises(Refused):
                pipeline.map([{"x": i} for i in range(10)])
            assert pipeline.run(x=0) == {"checked": 0}

    def test_async_calls_work_on_the_callers_loop(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[same], backend=backend)

        async def endless() -> AsyncIterator[dict[str, Any]]:
            for row in _Endless():
                yield row

        async def main() -> Any:
            first = []
            for items in (_Endless(), endless()):
                stream = pipeline.amap_iter(items, output_name="same")
                first.append([await anext(stream) for _ in range(5)])
                await stream.aclose()
            return await pipeline.arun(x=1), await pipeline.amap([{"x": 2}], output_name="same"), first

        compare(({"same": 1}, [2], [[0, 1, 2, 3, 4]] * 2), asyncio.run(main()))

    def test_plain_calls_work_inside_a_running_loop(self, backend: Any) -> None:
        pipeline = Pipeline(nodes=[same], backend=backend)

        async def main() -> Any:
            return pipeline.run(x=1), pipeline.map([{"x": 2}], output_name="same")

        compare(({"same": 1}, [2]), asyncio.run(main()))

    def test_nothing_is_left_behind(self, engine: Any, no_leaks: LeakWatch) -> None:
        with self.backend_with(engine, max_workers=2) as backend:
            pipeline = Pipeline(nodes=[check], backend=backend)
            pipeline.map([{"x": i} for i in range(10)], on_error="return")
            with closing(pipeline.map_iter(_Endless(), on_error="return")) as stream:
                next(stream)
            with pytest.raises(Refused):
                pipeline.map([{"x": 1}])


class _Endless:
    """Items without end that count how many were drawn, and end after `most` so that a wrong engine fails cheaply."""

    def __init__(self, most: int = 1_000_000, payload: int = 0) -> None:
        self.drawn, self.most, self.payload = 0, most, payload

    def __iter__(self) -> _Endless:
        return self

    def __next__(self) -> dict[str, Any]:
        if self.drawn == self.most:
            raise StopIteration
        self.drawn += 1
        return {"payload": bytes(self.payload)} if self.payload else {"x": self.drawn - 1}
