"""What every backend promises. Inherit `BackendContract` and give it the fixture `backend`.

The pipelines under test are nested: the outer one is local, the inner one lives on the backend, so that every
promise is kept across the border.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hypernodes import (
    Failure,
    LocalBackend,
    MemoryCache,
    Pipeline,
    PipelineTimeoutError,
    WorkerLostError,
    failure_of,
    node,
)
from hypernodes.testing._batch_contract import BatchContract
from hypernodes.testing._compare import compare
from hypernodes.testing._context_contract import ContextContract, draw, rows
from hypernodes.testing._event_tree import EventLog
from hypernodes.testing._leaks import LeakWatch
from hypernodes.testing._limit_contract import LimitContract
from hypernodes.testing._promises import check_random_cases
from hypernodes.testing._resource_contract import ResourceContract
from hypernodes.testing._zoo import (
    ORDINARY,
    Coded,
    Held,
    Refused,
    check,
    double,
    release,
    same,
    stalling,
    unowned_function,
)

__all__ = ["BackendContract"]

PAYLOAD_BYTES = 20_000_000


def nested(*nodes: Any, backend: Any, name: str = "far") -> Pipeline:
    """A local pipeline around one on the backend."""
    return Pipeline(
        nodes=[Pipeline(nodes=list(nodes), name=name, backend=backend)], name="main", backend=LocalBackend()
    )


class BackendContract(ContextContract, BatchContract, ResourceContract, LimitContract):
    """Promises of a backend. The fixture `backend` gives an instance; it may be shared by many tests.

    `is_remote` says that nodes run in another process than the caller's. `can_kill_workers` says that one of those
    processes may die without harm to the place. `draw_ahead` is the most items that a stream may have drawn beyond
    those it has given back.
    """

    is_remote: ClassVar[bool] = True
    draw_ahead: ClassVar[int] = 20_000

    def placed(self, nodes: Sequence[Any], backend: Any, beside: Sequence[Any] = (), **options: Any) -> Pipeline:
        inner = Pipeline(nodes=list(nodes), name="far", backend=backend)
        return Pipeline(nodes=[inner, *beside], name="main", backend=LocalBackend(), **options)

    # values -----------------------------------------------------------------------------------------------------

    def test_n_items_out_and_n_items_home_in_their_order(self, backend: Any) -> None:
        found = nested(double, backend=backend).map([{"x": i} for i in range(50)], output_name="doubled")
        compare([2 * i for i in range(50)], found)

    def test_no_items_give_no_rows_and_every_column_empty(self, backend: Any) -> None:
        pipeline = nested(double, same, backend=backend)
        compare([], pipeline.map([]))
        compare({"doubled": [], "same": []}, pipeline.map(inputs={"x": []}, map_over="x"))

    def test_every_value_comes_home_as_it_was(self, backend: Any) -> None:
        found = nested(same, backend=backend).map([{"x": value} for value in ORDINARY], output_name="same")
        compare(list(ORDINARY), found)

    def test_twenty_megabytes_go_and_come_home(self, backend: Any) -> None:
        data = os.urandom(1_000_000) * (PAYLOAD_BYTES // 1_000_000)
        assert nested(same, backend=backend).run(x=data, output_name="same") == data

    def test_lambdas_and_closures_cross(self, backend: Any) -> None:
        offset = 10
        moved = node(lambda x: x + offset, output_name="moved")
        text = "BY = 3\ndef triple(moved):\n    return moved * BY\n"
        tripled = node(unowned_function(text, "triple"), output_name="tripled")
        compare({"moved": 11, "tripled": 33}, nested(moved, tripled, backend=backend).run(x=1))

    def test_async_nodes_are_awaited_over_there(self, backend: Any) -> None:
        @node(output_name="later")
        async def later(x: Any) -> Any:
            await asyncio.sleep(0)
            return x + 1

        compare([1, 2], nested(later, backend=backend).map([{"x": 0}, {"x": 1}], output_name="later"))

    def test_generator_nodes_give_lists_over_there(self, backend: Any) -> None:
        count_up = node(_count_up, output_name="xs")
        cell = Pipeline(nodes=[double], name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")
        found = nested(count_up, cell, backend=backend).map([{"upto": n} for n in range(4)])
        compare([{"xs": list(range(n)), "doubled": [2 * x for x in range(n)]} for n in range(4)], found)

    # failures ---------------------------------------------------------------------------------------------------

    def test_far_failure_is_the_users_own_exception_with_its_whole_path(self, backend: Any) -> None:
        with pytest.raises(Refused, match="1 is refused") as caught:
            nested(check, backend=backend).map([{"x": 0}, {"x": 1}])
        failure = failure_of(caught.value)
        assert failure is not None
        assert (failure.path, failure.items) == (("main", "far", "check"), (1, None, None))
        assert any("main (item 1) > far > check" in note for note in caught.value.__notes__)

    def test_far_failure_does_not_stop_its_neighbours(self, backend: Any) -> None:
        found = nested(check, backend=backend).map(
            [{"x": i} for i in range(10)], output_name="checked", on_error="return"
        )
        assert [one for one in found if not isinstance(one, Failure)] == [i for i in range(10) if i != 1]
        assert (found[1].type_name.rpartition(".")[2], found[1].item) == ("Refused", 1)

    def test_far_failure_inside_a_map_names_both_items(self, backend: Any) -> None:
        far = Pipeline(nodes=[check], name="far", backend=backend)
        outer = Pipeline(nodes=[far.as_node(input_mapping={"xs": "x"}, map_over="xs")], name="main")
        found = outer.map([{"xs": [0, 2]}, {"xs": [2, 1]}], output_name="checked", on_error="return")
        assert found[0] == [0, 2]
        assert (found[1].path, found[1].items) == (("main", "far", "check"), (1, 1, None))

    def test_exception_that_cannot_travel_still_says_what_it_was(self, backend: Any) -> None:
        @node(output_name="y")
        def fail(x: Any) -> Any:
            raise Coded(404, "gone") if x == 0 else Held("held")

        found = nested(fail, backend=backend).map([{"x": 0}, {"x": 1}], on_error="return", output_name="y")
        assert [(one.type_name.rpartition(".")[2], one.message) for one in found] == [
            ("Coded", "404: gone"),
            ("Held", "held"),
        ]

    def test_input_and_result_that_cannot_be_sent_are_delivered_or_named(self, backend: Any) -> None:
        @node(output_name="guard")
        def make(x: Any) -> Any:
            return threading.Lock() if x == 1 else 0

        kind = node(lambda lock: type(lock).__name__, output_name="kind")
        found = nested(make, backend=backend).map([{"x": x} for x in range(2)], output_name="guard", on_error="return")
        assert found[0] == 0
        assert not isinstance(found[1], Failure) or "'guard'" in found[1].message
        found = nested(kind, backend=backend).map(
            [{"lock": value} for value in (0, threading.Lock(), 0)], output_name="kind", on_error="return"
        )
        assert (found[0], found[2]) == ("int", "int")
        assert found[1] == "lock" or "'lock'" in found[1].message

    def test_dead_worker_costs_only_the_item_that_killed_it(self, backend: Any) -> None:
        if not self.can_kill_workers:
            pytest.skip("this backend has no worker that may die")
        caller = os.getpid()

        @node(output_name="y")
        def kill(x: Any) -> Any:
            if x == 3 and os.getpid() != caller:
                os.kill(os.getpid(), signal.SIGKILL)
            return x

        pipeline = nested(kill, backend=backend)
        found = pipeline.map([{"x": i} for i in range(20)], on_error="return", output_name="y")
        assert [one for one in found if not isinstance(one, Failure)] == [i for i in range(20) if i != 3]
        assert isinstance(found[3].error, WorkerLostError)
        assert pipeline.map([{"x": 1}], output_name="y") == [1]

    def test_timeout_of_the_pipeline_around_holds_over_there(self, backend: Any, tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        pipeline = nested(stalling(gate), backend=backend).with_options(timeout=3)
        assert nested(same, backend=backend).run(x=5) == {"same": 5}  # its workers are there
        found = pipeline.map([{"x": i} for i in range(3)], on_error="return", output_name="y")
        release(gate)
        assert (found[0], found[2]) == (0, 2)
        assert isinstance(found[1].error, PipelineTimeoutError)
        assert "pipeline 'main' ran longer than its timeout of 3 s" in found[1].message
        assert found[1].where == "main (item 1) > far > stall"

    # places -----------------------------------------------------------------------------------------------------

    def test_nodes_run_where_the_backend_is(self, backend: Any) -> None:
        process = node(lambda x: os.getpid(), output_name="process")
        found = nested(process, backend=backend).run(x=1, output_name="process")
        assert (found != os.getpid()) == self.is_remote

    def test_pipeline_inside_that_inherits_stays_there(self, backend: Any) -> None:
        inner = Pipeline(nodes=[node(lambda x: os.getpid(), output_name="inner_process")], name="inner")
        outer = node(lambda x: os.getpid(), output_name="outer_process")
        found = nested(outer, inner, backend=backend).run(x=1)
        assert (found["inner_process"] != os.getpid()) == self.is_remote
        assert (found["outer_process"] != os.getpid()) == self.is_remote

    def test_pipeline_inside_with_a_backend_of_its_own_comes_home(self, backend: Any) -> None:
        fail = node(lambda doubled: 1 // (doubled - 4), output_name="y")
        where = node(lambda x: os.getpid(), output_name="process")
        home = Pipeline(nodes=[where, fail], name="home", backend=LocalBackend())
        pipeline = nested(double, home, node(lambda y: y + 1, output_name="z"), backend=backend)
        compare({"doubled": 10, "process": os.getpid(), "y": 0, "z": 1}, pipeline.run(x=5))
        (left,) = pipeline.map([{"x": 2}], on_error="return", output_name="z")
        assert (left.path, left.type_name) == (("main", "far", "home", "y"), "ZeroDivisionError")

    def test_far_pipeline_nobody_needs_does_not_run(self, backend: Any) -> None:
        @node(output_name="unwanted")
        def unwanted(x: Any) -> Any:
            raise AssertionError("nobody asked for this")

        far = Pipeline(nodes=[unwanted], name="far", backend=backend)
        assert Pipeline(nodes=[far, same], backend=LocalBackend()).run(x=1, output_name="same") == 1

    def test_ragged_maps_go_there_and_come_home(self, backend: Any) -> None:
        far = Pipeline(nodes=[double], name="far", backend=backend)
        pipeline = Pipeline(nodes=[far.as_node(input_mapping={"xs": "x"}, map_over="xs")])
        found = pipeline.map([{"xs": xs} for xs in ([1, 2, 3], [], [4])], output_name="doubled")
        compare([[2, 4, 6], [], [8]], found)

    def test_stream_goes_there_and_comes_home_bit_by_bit(self, backend: Any) -> None:
        drawn: list[int] = []

        def items() -> Any:
            while True:
                drawn.append(len(drawn))
                yield {"x": drawn[-1]}

        stream = nested(same, backend=backend).map_iter(items(), output_name="same")
        assert [next(stream) for _ in range(10)] == list(range(10))
        stream.close()
        assert len(drawn) < self.draw_ahead

    def test_place_whose_results_are_all_kept_is_not_opened(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([draw], backend, cache=MemoryCache(), callbacks=[log])
        cold = pipeline.map(rows(3))
        for warm in (lambda: pipeline.map(rows(3)), lambda: [pipeline.run(x=x) for x in range(3)]):
            backend.close()
            assert warm() == cold
            (place,) = {place for _, place in log.run.steps} if log.run else {""}
            opened = [event for event in log.events if event.kind == "place" and event.place == place]
            assert not self.is_remote or not opened

    def test_quick_items_that_go_there_twice_are_not_mixed_up(self, backend: Any) -> None:
        there = Pipeline(nodes=[double], name="there", backend=backend)
        again = Pipeline(nodes=[node(lambda here: ("again", here), output_name="again")], name="twice", backend=backend)
        here = node(lambda doubled: ("here", doubled), output_name="here")
        pipeline = Pipeline(nodes=[there, here, again], backend=LocalBackend())
        found = pipeline.map(rows(300), output_name="again")
        compare([("again", ("here", 2 * x)) for x in range(300)], found)

    def test_one_backend_serves_two_threads_at_once(self, backend: Any) -> None:
        pipeline, found = nested(double, backend=backend), dict[int, Any]()

        def use(start: int) -> None:
            found[start] = pipeline.map([{"x": i} for i in range(start, start + 10)], output_name="doubled")

        threads = [threading.Thread(target=use, args=(start,)) for start in (0, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        compare({start: [2 * i for i in range(start, start + 10)] for start in (0, 100)}, dict(sorted(found.items())))

    def test_backend_serves_again_after_a_failure_and_after_close(self, backend: Any) -> None:
        pipeline = nested(check, backend=backend)
        with pytest.raises(Refused):
            pipeline.map([{"x": 1}])
        assert pipeline.run(x=2) == {"checked": 2}
        backend.close()
        backend.close()
        assert pipeline.run(x=3) == {"checked": 3}

    def test_random_pipelines_agree_with_the_reference_interpreter(self, backend: Any) -> None:
        check_random_cases(20, LocalBackend(), backends=[backend], any_order=True)

    def test_nothing_is_left_behind(self, no_leaks: LeakWatch, backend: Any) -> None:
        with backend:
            pipeline = nested(check, backend=backend)
            pipeline.map([{"x": i} for i in range(5)], on_error="return")
            with pytest.raises(Refused):
                pipeline.run(x=1)


def _count_up(upto: int) -> Iterator[int]:
    yield from range(upto)
