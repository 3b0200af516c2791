"""The reference interpreter and the comparison, checked by hand: they are what every engine is judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import pytest

from hypernodes.testing import compare
from hypernodes.testing._cases import Case
from hypernodes.testing._oracle import Failed, Fails
from hypernodes.testing._shapes import Built, Call, Function, Nest, Parameter, Tree
from hypernodes.testing._wiring import settled

NAN = float("nan")


def function(name: str, parameters: str, output: str, *body: str, is_async: bool = False) -> Function:
    return Function(name, tuple(Parameter(p) for p in parameters.split()), tuple(output.split()), body, is_async)


def case(*units: Function | Built | Nest, call: Call) -> Case:
    return Case(settled(Tree("main", units), call), call, frozenset())


def run(**inputs: str) -> Call:
    return Call("run", inputs)


double = function("double", "x", "y", "return 2 * x")
picky = function("picky", "x", "y", "if x == 1:", "    raise KeyError('one')", "return x")
add = function("add", "y k", "z", "return y + k")


def test_nodes_run_in_the_order_of_what_they_read_and_come_back_in_the_order_of_declaration() -> None:
    result = case(add, double, call=run(x="3", k="10")).expected()
    assert list(result.items()) == [("z", 16), ("y", 6)]


def test_only_what_is_needed_runs() -> None:
    bad = function("bad", "missing", "w", "raise ValueError")
    wanted = case(bad, double, call=Call("run", {"x": "2"}, output_nodes=("y",)))
    assert wanted.expected() == {"y": 4}
    assert case(bad, double, call=Call("run", {"x": "2"}, output_name="y")).expected() == 4


def test_given_output_keeps_its_producer_from_running() -> None:
    assert case(picky, add, call=run(y="5", k="1")).expected() == {"y": 5, "z": 6}


def test_default_stands_where_nothing_is_given() -> None:
    shift = Function("shift", (Parameter("x"), Parameter("by", "7", True)), ("y",), ("return x + by",))
    assert case(shift, call=run(x="1")).expected() == {"y": 8}
    assert case(shift, call=run(x="1", by="2")).expected() == {"y": 3}


def test_tuple_is_unpacked_into_several_outputs_and_kept_as_one() -> None:
    pair = function("pair", "x", "a b", "return x, (x,)")
    single = function("single", "x", "c", "return x, x")
    assert case(pair, single, call=run(x="1")).expected() == {"a": 1, "b": (1,), "c": (1, 1)}


def test_async_node_is_awaited() -> None:
    late = function("late", "x", "y", "await asyncio.sleep(0)", "return x + 1", is_async=True)
    assert case(late, call=run(x="1")).expected() == {"y": 2}


def test_first_failing_node_is_that_of_sequential_execution_and_others_are_known() -> None:
    first = function("first", "x", "a", "raise ValueError('a')")
    reader = function("reader", "a", "b", "raise TypeError('never')")
    other = function("other", "x", "c", "raise OSError('c')")
    found = case(reader, first, other, call=run(x="1")).expected()
    assert [(type(one.error), one.path, one.items) for one in found.candidates] == [
        (ValueError, ("main", "first"), (None, None)),
        (OSError, ("main", "other"), (None, None)),
    ]


def test_map_over_rows_columns_and_products() -> None:
    rows = Call("rows", {"k": "10"}, ({"x": "1"}, {"x": "2", "k": "20"}))
    assert case(double, add, call=rows).expected() == [{"y": 2, "z": 12}, {"y": 4, "z": 24}]
    columns = Call("columns", {"x": "[1, 2]", "k": "10"}, map_over=("x",))
    assert case(double, add, call=columns).expected() == {"y": [2, 4], "z": [12, 14]}
    product = Call("columns", {"x": "[1, 2]", "k": "[10, 20]"}, (), ("k", "x"), "product", output_name="z")
    assert case(double, add, call=product).expected() == [12, 14, 22, 24]


def test_map_over_nothing_has_every_output() -> None:
    assert case(double, call=Call("rows", {})).expected() == []
    assert case(double, call=Call("columns", {"x": "[]"}, map_over=("x",))).expected() == {"y": []}


def test_failing_item_is_reported_or_left_in_its_place() -> None:
    rows = ({"x": "0"}, {"x": "1"}, {"x": "2"})
    (failed,) = case(picky, call=Call("rows", {}, rows)).expected().candidates
    assert (type(failed.error), failed.error.args, failed.path, failed.items) == (
        KeyError,
        ("one",),
        ("main", "picky"),
        (1, None),
    )
    kept = case(picky, call=Call("rows", {}, rows, on_error="return")).expected()
    assert [kept[0], type(kept[1]), kept[2]] == [{"y": 0}, Fails, {"y": 2}]
    columns = Call("columns", {"x": "[0, 1]"}, map_over=("x",), on_error="return")
    assert [type(one) for one in case(picky, call=columns).expected()["y"]] == [int, Fails]


def test_nested_pipeline_is_seen_under_outer_names_only() -> None:
    inner = Tree("inner", (double,))
    nest = Nest(inner, {"n": "x"}, {"y": "out"})
    own = function("own", "n", "y", "return -n")
    assert case(nest, own, call=run(n="4")).expected() == {"out": 8, "y": -4}


def test_ragged_map_inside_a_map() -> None:
    row = Nest(Tree("cell", (double,)), {"xs": "x"}, {"y": "ys"}, ("xs",))
    table = Nest(Tree("row", (row,)), {"table": "xs"}, {}, ("table",))
    result = case(table, call=run(table="[[1, 2], [], [3]]")).expected()
    assert result == {"ys": [[2, 4], [], [6]]}


def test_failure_inside_maps_names_the_item_of_every_level() -> None:
    row = Nest(Tree("cell", (picky,)), {"xs": "x"}, {"y": "ys"}, ("xs",))
    table = Nest(Tree("row", (row,)), {"table": "xs"}, {}, ("table",), name="rows")
    (failed,) = case(table, call=run(table="[[0], [5, 1]]")).expected().candidates
    assert failed.path == ("main", "rows", "cell", "picky")
    assert failed.items == (None, 1, 1, None)


def test_inner_product_is_one_flat_list() -> None:
    nest = Nest(Tree("inner", (add,)), {"ys": "y", "ks": "k"}, {}, ("ys", "ks"), "product")
    assert case(nest, call=run(ys="[1, 2]", ks="[10, 20]")).expected() == {"z": [11, 21, 12, 22]}


# batches, resources, generators ---------------------------------------------------------------------------------


def batch(function: Function, *lists: str) -> Function:
    return replace(function, batch_size=2, lists=lists, said=bool(lists))


def test_batch_node_is_its_function_for_one_item() -> None:
    rows = Call("rows", {"k": "10"}, ({"y": "1"}, {"y": "2"}, {"y": "3"}), output_name="z")
    assert case(batch(add, "y"), call=rows).expected() == [11, 12, 13]
    assert case(batch(add, "y", "k"), call=rows).expected() == [11, 12, 13]
    pair = batch(function("pair", "x", "a b", "return x, (x,)"), "x")
    assert case(pair, call=run(x="1")).expected() == {"a": 1, "b": (1,)}
    late = function("late", "x", "y", "await asyncio.sleep(0)", "return x + 1", is_async=True)
    assert case(batch(late, "x"), call=run(x="1")).expected() == {"y": 2}


def test_item_of_a_batch_fails_alone() -> None:
    rows = Call("rows", {}, ({"x": "0"}, {"x": "1"}, {"x": "2"}), on_error="return", output_name="y")
    kept = case(batch(picky, "x"), call=rows).expected()
    assert [kept[0], type(kept[1]), kept[2]] == [0, Fails, 2]
    assert repr(kept[1].candidates[0].error) == "KeyError('one')"


def lists_of(one: Case) -> dict[str, tuple[str, ...]]:
    return {part.name: part.lists for part in one.parts() if isinstance(part, Function)}


def test_what_all_items_share_comes_single_unless_the_node_says_otherwise() -> None:
    rows = ({"y": "1"}, {"y": "2"})
    assert lists_of(case(batch(add), call=Call("rows", {"k": "10"}, rows))) == {"add": ("y",)}
    assert lists_of(case(batch(add), call=Call("rows", {}, ({"y": "1", "k": "2"},)))) == {"add": ("y", "k")}
    assert lists_of(case(batch(add), call=run(y="1", k="2"))) == {"add": ("y", "k")}
    assert lists_of(case(batch(add, "k"), call=Call("rows", {"k": "10"}, rows))) == {"add": ("k",)}
    some = Call("rows", {"k": "10"}, ({"y": "1"}, {"y": "2", "k": "3"}))
    (both,) = case(batch(add), call=some).parts()
    assert isinstance(both, Function)
    assert (both.lists, both.said) == (("y",), True)


def test_what_a_map_inside_does_not_go_over_comes_single() -> None:
    made = function("made", "x", "k", "return x")
    inner = Nest(Tree("inner", (batch(add),)), {"ys": "y"}, {}, ("ys",))
    assert lists_of(case(made, inner, call=run(x="1", ys="[1]")))["add"] == ("y",)
    plain = Nest(Tree("inner", (batch(add),)), {}, {})
    assert lists_of(case(made, plain, call=Call("rows", {"y": "1"}, ({"x": "1"},))))["add"] == ("k",)


def test_resource_is_a_value_for_everybody_below_and_no_output() -> None:
    model, big = Built("model", (), "(1, 2)"), Built("big", ("model",), "[model]", closes=True)
    use = function("use", "x big", "y", "return x, big")
    assert case(use, big, model, call=run(x="1")).expected() == {"y": (1, [(1, 2)])}
    inner = Nest(Tree("inner", (use,)), {"xs": "x", "model": "big"}, {}, ("xs",))
    assert case(model, inner, call=run(xs="[1, 2]")).expected() == {"y": [(1, (1, 2)), (2, (1, 2))]}
    assert case(use, big, model, call=run(x="1", big="0")).expected() == {"y": (1, 0)}
    assert lists_of(case(batch(use), big, model, call=run(x="1", big="0"))) == {"use": ("x",)}


def test_resource_is_one_value_for_the_whole_call() -> None:
    same = function("same", "x model", "y", "return id(model)")
    first, second = case(same, Built("model", (), "[1]"), call=Call("rows", {}, ({"x": "1"}, {"x": "2"}))).expected()
    assert first == second


def test_generator_node_gives_the_list_of_what_it_yields() -> None:
    count = replace(function("count", "x", "y", "yield x", "yield from [x + 1]"), yields=True)
    assert case(count, call=run(x="1")).expected() == {"y": [1, 2]}


# the comparison -----------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = 1


@dataclass
class Point:
    x: Any


EQUAL: list[Any] = [
    None,
    2**70,
    NAN,
    -0.0,
    "é",
    b"\0",
    (),
    [1, [NAN]],
    {"k": 1, None: (2,)},
    {1, "a"},
    Colour.RED,
    Point(NAN),
]
UNEQUAL = [
    (1, True), (1, 1.0), (0.0, -0.0), ("a", b"a"), ((1,), [1]), ([1, 2], [2, 1]), ([1], [1, 1]), (None, False),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"a": 1}, {"a": True}), ({1}, frozenset({1})), ({1}, {True}),
    (Point(1), Point(1.0)), (ValueError("a"), ValueError("b")), (ValueError(1), TypeError(1)), (NAN, 1.0),
    (Colour.RED, 1),
]  # fmt: skip


@pytest.mark.parametrize("value", EQUAL, ids=lambda value: "a set" if isinstance(value, set) else repr(value))
def test_equal_values_of_one_type_pass(value: Any) -> None:
    compare(value, value)
    compare({"a": [value]}, {"a": [value]})


@pytest.mark.parametrize(("want", "got"), UNEQUAL, ids=repr)
def test_planted_disagreement_is_caught_and_placed(want: Any, got: Any) -> None:
    with pytest.raises(AssertionError, match="at result"):
        compare(want, got)
    with pytest.raises(AssertionError, match=r"at result\['a'\]\[1\]"):
        compare({"a": (0, want)}, {"a": (0, got)})


def test_arrays_agree_in_dtype_shape_and_content() -> None:
    np = pytest.importorskip("numpy")
    compare(np.array([1.0, NAN]), np.array([1.0, NAN]))
    for other in (np.array([1.0], "f4"), np.array([[1.0]]), np.array([2.0]), [1.0]):
        with pytest.raises(AssertionError):
            compare(np.array([1.0]), other)


def test_result_where_a_failure_was_due_is_caught() -> None:
    due = Fails((Failed(ValueError("x"), ("main", "f"), (None, None)),))
    with pytest.raises(AssertionError, match="expected the failure of main > f"):
        compare([due], [1])
    with pytest.raises(AssertionError, match="expected the failure of main > f"):
        compare(due, ValueError("x"))
