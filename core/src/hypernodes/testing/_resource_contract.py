"""What every place promises of resources."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hypernodes import GraphError, Pipeline, ResourceError, node, resource
from hypernodes.testing._compare import compare
from hypernodes.testing._promises import Placed
from hypernodes.testing._zoo import Refused

__all__ = ["ResourceContract"]


class Model:
    """Cannot be pickled: it holds a lock. Says in which process it was made, and which it is of those made there."""

    def __init__(self, below: Any = None) -> None:
        self.lock, self.below = threading.Lock(), below
        self.process = (socket.gethostname(), os.getpid())
        self.serial = uuid.uuid4().hex

    def told(self, x: Any) -> Any:
        with self.lock:
            return x, self.process, self.serial


@resource
def model() -> Model:
    return Model()


@resource
def refused() -> Any:
    raise Refused("no such model", 7)


@node(output_name="told")
def use(x: Any, model: Any) -> Any:
    return model.told(x)


@node(output_name="told", batch_size=3)
def use_batch(x: Any, model: Any) -> Any:
    return [model.told(one) for one in x]


def rows(count: int) -> list[dict[str, Any]]:
    return [{"x": x} for x in range(count)]


def built_once(found: list[Any], count: int) -> None:
    """What `use` told of `count` items: their numbers, and one model in each process."""
    assert [x for x, _, _ in found] == list(range(count))
    models = {(process, serial) for _, process, serial in found}
    assert len({process for process, _ in models}) == len(models)


class _Fake:
    def told(self, x: Any) -> Any:
        return "fake", x


class ResourceContract(Placed):
    """Promises about resources, kept wherever nodes run."""

    @pytest.mark.parametrize("where", ["beside its reader", "in the pipeline around"])
    @pytest.mark.parametrize("reader", [use, use_batch], ids=["node", "batch node"])
    def test_resource_is_built_once_in_each_process_and_never_sent(self, backend: Any, reader: Any, where: str) -> None:
        around = where.endswith("around")
        pipeline = self.placed([reader] if around else [reader, model], backend, beside=[model] if around else [])
        built_once(pipeline.map(rows(40), output_name="told"), 40)
        built_once([pipeline.run(x=0, output_name="told")], 1)

    def test_resource_is_no_output_and_no_input_that_is_missing(self, backend: Any) -> None:
        assert list(self.placed([use, model], backend).run(x=1)) == ["told"]

    def test_resource_serves_pipelines_inside_and_maps_inside(self, backend: Any) -> None:
        flat = Pipeline(nodes=[use], name="flat")
        deep = Pipeline(nodes=[Pipeline(nodes=[use], name="deep")], name="cell").as_node(
            input_mapping={"xs": "x", "outer_model": "model"}, output_mapping={"told": "all_told"}, map_over="xs"
        )
        outer = resource(model.func, name="outer_model")
        found = self.placed([flat, model, deep, outer], backend).map([{"x": x, "xs": [0, 1, 2]} for x in range(6)])
        built_once([row["told"] for row in found], 6)
        for row in found:
            built_once(row["all_told"], 3)
        assert not {row["told"][2] for row in found} & {one[2] for row in found for one in row["all_told"]}

    def test_resource_may_need_a_resource(self, backend: Any) -> None:
        @resource
        def big(model: Any) -> Any:
            return Model(below=model)

        @node(output_name="told")
        def use_both(x: Any, big: Any, model: Any) -> Any:
            return x, big.below is model, isinstance(model, Model)

        found = self.placed([use_both, big, model], backend).map(rows(10), output_name="told")
        compare([(x, True, True) for x in range(10)], found)

    def test_plain_value_overrides_a_resource_which_is_not_built(self, backend: Any) -> None:
        for reader in (use, use_batch):
            pipeline = self.placed([reader], backend, beside=[resource(refused.func, name="model")])
            compare({"told": ("fake", 1)}, pipeline.run(x=1, model=_Fake()))
            found = pipeline.map(rows(5), inputs={"model": _Fake()}, output_name="told")
            compare([("fake", x) for x in range(5)], found)

    def test_resource_that_nobody_needs_is_not_built(self, backend: Any) -> None:
        other = node(lambda x: -x, output_name="other")
        pipeline = self.placed([use, other, resource(refused.func, name="model")], backend)
        compare({"other": -1}, pipeline.run(x=1, output_nodes=["other"]))
        compare([0, -1], pipeline.map(rows(2), output_name="other"))

    def test_resource_that_fails_to_build_ends_the_run_and_says_which(self, backend: Any) -> None:
        reader = node(lambda x, refused: x, output_name="y")
        pipeline = self.placed([reader], backend, beside=[refused])
        calls: list[Callable[[], Any]] = [
            lambda: pipeline.run(x=1),
            lambda: pipeline.map(rows(20), on_error="return"),
        ]
        for call in calls:
            with pytest.raises(ResourceError, match="'refused'") as caught:
                call()
            assert "no such model" in str(caught.value)
            assert isinstance(caught.value.__cause__, Refused)
        assert pipeline.map(rows(3), inputs={"refused": 0}, output_name="y") == [0, 1, 2]

    def test_async_resource_serves_async_nodes(self, backend: Any) -> None:
        @resource
        async def session() -> AsyncIterator[Any]:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0)
            yield loop

        @node(output_name="same")
        async def ask(x: Any, session: Any) -> Any:
            await asyncio.sleep(0)
            return x, session is asyncio.get_running_loop()

        found = self.placed([ask, session], backend).map(rows(10), output_name="same")
        compare([(x, True) for x in range(10)], found)

    def test_async_resource_is_refused_to_a_plain_node_before_anything_runs(self, backend: Any) -> None:
        @resource
        async def session() -> Any:
            return 1

        plain = node(lambda x, session: x, output_name="y")
        with pytest.raises(GraphError, match="'session'"):
            self.placed([plain, session], backend).run(x=1)

    def test_generator_makes_a_resource_too(self, backend: Any) -> None:
        @resource
        def held() -> Iterator[Any]:
            lock = threading.Lock()
            with lock:
                yield lock

        locked = node(lambda x, held: (x, held.locked()), output_name="y")
        compare([(x, True) for x in range(10)], self.placed([locked, held], backend).map(rows(10), output_name="y"))
