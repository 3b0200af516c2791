"""The check of annotations between nodes refuses what cannot be right, and nothing else."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, Optional, Protocol, TypeVar, Union

import pytest

from hypernodes import Pipeline, TypeMismatchError, node

T = TypeVar("T")


class Animal: ...


class Dog(Animal): ...


class Box(Generic[T]): ...


class Speaks(Protocol):
    def speak(self) -> str: ...


class Named(typing.TypedDict):
    name: str


def pair(made: Any, taken: Any, **options: Any) -> Pipeline:
    def make(x):
        return x

    def take(value):
        return value

    make.__annotations__ = {"return": made}
    take.__annotations__ = {"value": taken}
    return Pipeline([node(make, output_name="value"), node(take, output_name="taken")], name="main", **options)


@pytest.mark.parametrize(
    ("made", "taken"),
    [
        (int, str),
        (str, int),
        (list[int], dict[str, int]),
        (dict, list),
        (None, int),
        (float, int),
        (Dog, str),
        (bytes, str),
    ],
)
def test_clear_mismatch_is_refused_with_both_nodes(made: Any, taken: Any) -> None:
    with pytest.raises(TypeMismatchError, match=r"node 'make' returns 'value' as .*, but node 'take' takes 'value' as"):
        pair(made, taken)


@pytest.mark.parametrize(
    ("made", "taken"),
    [
        (int, int),
        (int, float),
        (bool, int),
        (int, complex),
        (Dog, Animal),
        (Animal, Dog),
        (Any, int),
        (int, Any),
        (object, int),
        (int, object),
        (int | None, int),
        (int, str | None),
        (Optional[int], str),  # noqa: UP045
        (Union[int, str], bytes),  # noqa: UP007
        (list[int], list[str]),
        (list[int], Sequence[int]),
        (tuple[int, ...], collections.abc.Iterable[int]),
        (int, T),
        (T, int),
        (Box[int], Box[str]),
        (Dog, Speaks),
        (Named, dict),
        (Literal["a"], str),
        (Callable[[int], int], str),
        ("Unknown", int),
        (int, "Unknown"),
    ],
)
def test_what_may_be_right_is_no_alarm(made: Any, taken: Any) -> None:
    assert pair(made, taken).run(x=1, output_name="taken") == 1


def test_annotations_as_text_are_read() -> None:
    with pytest.raises(TypeMismatchError, match="as int, but node 'take' takes 'value' as str"):
        pair("int", "str")


def test_each_of_several_outputs_is_checked_by_its_own_type() -> None:
    @node(output_name=("number", "text"))
    def split(x: int) -> tuple[int, str]:
        return x, str(x)

    def shout(text: str) -> str:
        return text.upper()

    def wrong(number: str) -> str:
        return number

    assert Pipeline([split, shout]).run(x=1, output_name="shout") == "1"
    with pytest.raises(TypeMismatchError, match="'split' returns 'number' as int"):
        Pipeline([split, wrong])


def test_outputs_of_nested_pipelines_are_checked_under_their_outer_names() -> None:
    @node(output_name="size")
    def measure(text: str) -> int:
        return len(text)

    def read(length: str) -> str:
        return length

    inner = Pipeline([measure], name="inner")
    with pytest.raises(TypeMismatchError, match="'inner' returns 'length' as int, but node 'read'"):
        Pipeline([inner.as_node(output_mapping={"size": "length"}), read])
    mapped = inner.as_node(output_mapping={"size": "length"}, map_over="text")
    assert Pipeline([mapped, read]).run(text=["a", "bc"], output_name="read") == [1, 2]


def test_check_can_be_switched_off_for_one_pipeline() -> None:
    assert pair(int, str, check_types=False).run(x=1, output_name="taken") == 1
