"""What every place promises of batch nodes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hypernodes import BatchLengthError, Failure, MemoryCache, Pipeline, failure_of, node
from hypernodes.testing._compare import compare
from hypernodes.testing._event_tree import EventLog, outline
from hypernodes.testing._promises import Placed
from hypernodes.testing._zoo import Refused, double

__all__ = ["BatchContract"]


@node(output_name="shared", batch_size=4)
def whole(x: list[Any]) -> list[Any]:
    """For each item, the batch that it came in."""
    return [(one, tuple(x)) for one in x]


@node(output_name="checked", batch_size=4)
def check_batch(x: list[Any]) -> list[Any]:
    if 3 in x:
        raise Refused(f"{x} is refused")
    return list(x)


def check_item(x: Any) -> Any:
    if x == 3:
        raise Refused(f"{[x]} is refused")
    return x


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def fit(found: list[Any], size: int = 4) -> list[Any]:
    """The items of what `whole` gave, each of which came in a batch of at most `size` that it is part of."""
    for one, batch in found:
        assert one in batch
        assert len(batch) <= size
    return [one for one, _ in found]


class BatchContract(Placed):
    """Promises about batch nodes, kept wherever nodes run. How many items share a batch is up to the place."""

    # values -----------------------------------------------------------------------------------------------------

    def test_batch_node_takes_at_most_batch_size_items_and_gives_them_back_in_order(self, backend: Any) -> None:
        found = self.placed([double, whole], backend).map(rows(30))
        compare([2 * x for x in range(30)], [row["doubled"] for row in found])
        assert fit([row["shared"] for row in found]) == list(range(30))

    def test_batch_node_in_a_run_takes_a_batch_of_one(self, backend: Any) -> None:
        compare({"shared": (5, (5,))}, self.placed([whole], backend).run(x=5))

    def test_items_of_a_map_inside_come_in_batches(self, backend: Any) -> None:
        inner = Pipeline(nodes=[whole], name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")
        lists = [list(range(start, start + length)) for start, length in ((0, 3), (10, 0), (20, 9), (30, 1))]
        found = self.placed([inner], backend).map([{"xs": xs} for xs in lists], output_name="shared")
        assert [fit(one) for one in found] == lists

    def test_shared_values_come_single(self, backend: Any) -> None:
        @node(output_name="y", batch_size=3)
        def scale(x: Any, by: Any, plus: Any = 0, *, less: int = 0) -> Any:
            return [one * by + plus - less for one in x]

        pipeline = self.placed([scale], backend)
        compare([10 * x for x in range(7)], pipeline.map(rows(7), inputs={"by": 10}, output_name="y"))
        found = pipeline.map(rows(7), inputs={"by": 10, "plus": 1, "less": 2}, output_name="y")
        compare([10 * x - 1 for x in range(7)], found)

    def test_value_that_a_map_inside_does_not_go_over_comes_single_and_is_never_mixed(self, backend: Any) -> None:
        @node(output_name="y", batch_size=4)
        def scale(x: Any, by: Any) -> Any:
            return [one * by for one in x]

        inner = Pipeline(nodes=[scale], name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")
        items = [{"xs": [1, 2, 3], "by": by} for by in (1, 1, 2, 3, 3)]
        found = self.placed([inner], backend).map(items, output_name="y")
        compare([[by, 2 * by, 3 * by] for by in (1, 1, 2, 3, 3)], found)

    def test_parameter_that_is_no_list_by_its_annotation_holds_one_value_for_the_batch(self, backend: Any) -> None:
        @node(output_name="y", batch_size=4)
        def scale(x: list[int], by: int) -> list[int]:
            return [one * by for one in x]

        items = [{"x": x, "by": x // 3} for x in range(10)]
        found = self.placed([scale], backend).map(items, output_name="y")
        compare([x * (x // 3) for x in range(10)], found)

    def test_batch_over_says_which_parameters_take_lists(self, backend: Any) -> None:
        @node(output_name="y", batch_size=4, batch_over=["x", "by"])
        def scale(x: Any, by: Any, plus: Any) -> Any:
            return [one * factor + plus for one, factor in zip(x, by, strict=True)]

        found = self.placed([scale], backend).map(rows(6), inputs={"by": 10, "plus": 1}, output_name="y")
        compare([10 * x + 1 for x in range(6)], found)

    def test_async_batch_nodes_are_awaited(self, backend: Any) -> None:
        @node(output_name="y", batch_size=4)
        async def later(x: Any) -> Any:
            await asyncio.sleep(0)
            return [-one for one in x]

        compare([-x for x in range(10)], self.placed([later], backend).map(rows(10), output_name="y"))

    def test_batch_node_with_several_outputs_returns_a_list_for_each(self, backend: Any) -> None:
        @node(output_name=("half", "rest"), batch_size=4)
        def split(x: Any) -> Any:
            return [one // 2 for one in x], tuple(one % 2 for one in x)

        found = self.placed([split], backend).map(rows(6))
        compare([{"half": x // 2, "rest": x % 2} for x in range(6)], found)

    def test_batch_that_a_node_changes_is_its_own(self, backend: Any) -> None:
        @node(output_name="taken", batch_size=4)
        def take(x: Any) -> Any:
            return [x.pop(0) for _ in range(len(x))]

        @node(output_name="last", batch_size=4)
        def last(x: Any, taken: Any) -> Any:
            return [(a, b) for a, b in zip(x, taken, strict=True)]

        compare([(x, x) for x in range(6)], self.placed([take, last], backend).map(rows(6), output_name="last"))

    # failures ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("given", [(1, 2, 3, 4, 5, 6, 7, 8, 9), (), 7], ids=["more", "none", "no list"])
    def test_wrong_number_of_results_names_the_node_and_both_numbers(self, backend: Any, given: Any) -> None:
        @node(output_name="y", batch_size=4)
        def miscount(x: Any) -> Any:
            return given if isinstance(given, int) else list(given)

        pipeline = self.placed([miscount], backend)
        with pytest.raises(BatchLengthError, match="miscount") as caught:
            pipeline.run(x=0)
        assert isinstance(given, int) or (str(len(given)) in str(caught.value) and "1" in str(caught.value))
        found = pipeline.map(rows(6), output_name="y", on_error="return")
        assert [one.type_name.rpartition(".")[2] for one in found] == ["BatchLengthError"] * 6
        assert [one.item for one in found] == list(range(6))

    def test_failing_item_of_a_batch_fails_alone(self, backend: Any) -> None:
        pipeline = self.placed([check_batch], backend)
        found = pipeline.map(rows(10), output_name="checked", on_error="return")
        assert [one for one in found if not isinstance(one, Failure)] == [x for x in range(10) if x != 3]
        assert (found[3].message, found[3].item, found[3].path[-1]) == ("[3] is refused", 3, "check_batch")
        with pytest.raises(Refused, match=r"^\[3\] is refused") as caught:
            pipeline.map(rows(10))
        failure = failure_of(caught.value)
        assert failure is not None
        assert failure.item == 3

    def test_failing_item_of_a_map_inside_fails_its_own_outer_item_alone(self, backend: Any) -> None:
        inner = Pipeline(nodes=[check_batch], name="cell").as_node(input_mapping={"xs": "x"}, map_over="xs")
        items = [{"xs": xs} for xs in ([0, 1], [2, 3], [3, 3], [4])]
        found = self.placed([inner], backend).map(items, output_name="checked", on_error="return")
        assert (found[0], found[3]) == ([0, 1], [4])
        # The path may lead through a pipeline around this one.
        assert [(one.path[-2:], one.item, one.items[-2]) for one in found[1:3]] == [
            (("cell", "check_batch"), 1, 1),
            (("cell", "check_batch"), 2, 0),
        ]

    def test_batch_that_is_not_isolated_fails_as_a_whole(self, backend: Any) -> None:
        @node(output_name="y", batch_size=4, isolate=False)
        def check_all(x: Any) -> Any:
            if 3 in x:
                raise Refused(tuple(x))
            return list(x)

        found = self.placed([check_all], backend).map(rows(10), output_name="y", on_error="return")
        (batch,) = found[3].error.args
        assert 3 in batch
        assert len(batch) <= 4
        failed = [x for x, one in enumerate(found) if isinstance(one, Failure)]
        assert failed == sorted(batch)
        assert all(one == x for x, one in enumerate(found) if x not in batch)

    # events and caches ------------------------------------------------------------------------------------------

    def test_events_are_those_of_one_item_at_a_time(self, backend: Any) -> None:
        trees = []
        for checked in (
            node(check_item, output_name="checked", name="check"),
            node(check_batch.func, output_name="checked", name="check", batch_size=4),
        ):
            log = EventLog()
            last = node(lambda checked: -checked, output_name="last")
            self.placed([double, checked, last], backend, callbacks=[log]).map(rows(9), on_error="return")
            trees.append(log.tree())
        assert outline(trees[0]) == outline(trees[1])

    def test_half_cached_batch_computes_only_the_rest(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([whole], backend, cache=MemoryCache(), callbacks=[log])
        first = pipeline.map([{"x": x} for x in (1, 3, 5)], output_name="shared")
        more = pipeline.map(rows(8), output_name="shared")
        assert [more[x] for x in (1, 3, 5)] == first
        assert fit(more) == list(range(8))
        assert not {1, 3, 5} & {one for x in (0, 2, 4, 6, 7) for one in more[x][1]}
        assert log.statuses() == {"whole": ["cached"] * 3 + ["ok"] * 5}
        compare(more[4], pipeline.run(x=4, output_name="shared"))
        assert log.statuses() == {"whole": ["cached"]}

    def test_items_of_a_batch_that_succeeded_are_kept(self, backend: Any) -> None:
        log = EventLog()
        pipeline = self.placed([check_batch], backend, cache=MemoryCache(), callbacks=[log])
        for expected in (["error"] + ["ok"] * 5, ["cached"] * 5 + ["error"]):
            pipeline.map(rows(6), on_error="return")
            assert log.statuses() == {"check_batch": expected}
