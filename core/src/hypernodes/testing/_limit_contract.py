"""What every place promises of limits and demands."""

from __future__ import annotations

from typing import Any

import pytest

from hypernodes import GraphError, Pipeline, node
from hypernodes.testing._compare import compare
from hypernodes.testing._promises import Placed

__all__ = ["LimitContract"]


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


class LimitContract(Placed):
    """Promises about limits and demands, kept wherever nodes run: nothing changes but when nodes begin."""

    @pytest.mark.parametrize("most", [1, 3, "2000/second"])
    def test_limited_nodes_give_what_they_give_without(self, backend: Any, most: Any) -> None:
        first = node(lambda x: x + 1, output_name="more", limit="calls")
        each = node(lambda one: -one, output_name="less", limit=["calls", "slots"])
        inner = Pipeline(nodes=[each], name="cell").as_node(input_mapping={"xs": "one"}, map_over="xs")
        pipeline = self.placed([first, inner], backend, limits={"calls": most, "slots": 2})
        found = pipeline.map([{"x": x, "xs": list(range(x))} for x in range(5)])
        compare([{"more": x + 1, "less": [-one for one in range(x)]} for x in range(5)], found)

    def test_limited_batch_nodes_give_what_they_give_without(self, backend: Any) -> None:
        doubled = node(lambda x: [2 * one for one in x], output_name="y", batch_size=3, limit="calls")
        found = self.placed([doubled], backend, limits={"calls": 1}).map(rows(10), output_name="y")
        compare([2 * x for x in range(10)], found)

    def test_limit_that_nobody_declares_is_refused_before_anything_runs(self, backend: Any) -> None:
        limited = node(lambda x: x, output_name="y", limit="calls")
        with pytest.raises(GraphError, match="'calls'"):
            self.placed([limited], backend).run(x=1)

    def test_small_demands_are_met(self, backend: Any) -> None:
        light = node(lambda x: x + 1, output_name="more", resources={"cpus": 1, "memory": "1MB"})
        half = node(lambda more: -more, output_name="less", resources={"cpus": 0.5})
        compare([-x - 1 for x in range(10)], self.placed([light, half], backend).map(rows(10), output_name="less"))
