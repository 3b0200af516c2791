"""The digest of a value says its type and its content, in every process alike, and is refused where it could lie."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import json
import math
import operator
import os
import pathlib
import re
import struct
import subprocess
import sys
import textwrap
import threading
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hypernodes
from hypernodes._digest import digest_of
from hypernodes._errors import HypernodesError, UnkeyableError

CORE = Path(hypernodes.__file__).resolve().parent.parent


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Size(enum.IntEnum):
    SMALL = 1


class Whole(int):
    pass


class Words(list[str]):
    pass


class Couple(typing.NamedTuple):
    x: int
    y: int


class Twin(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Place:
    x: Any
    y: Any = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


class Adder:
    def __init__(self, k: Any) -> None:
        self.k = k

    def __call__(self, x: int) -> int:
        return x + int(self.k)


class Keyed:
    def __init__(self, key: Any) -> None:
        self.key = key
        self.lock = threading.Lock()

    def __cache_key__(self) -> Any:
        return self.key


class AlsoKeyed(Keyed):
    pass


def double(x: int) -> int:
    return 2 * x


def treble(x: int) -> int:
    return 3 * x


def with_attribute(value: Any) -> Any:
    value.note = "more"
    return value


UTC = datetime.UTC
DAY = datetime.datetime(2024, 5, 6, 7, 8, 9, 10)  # noqa: DTZ001 - naive on purpose
DIFFERENT: list[Any] = [
    *(1, True, "1", b"1", 1.0, 1 + 0j, [1], (1,), {1}, frozenset({1}), {1: 1}, bytearray(b"1"), memoryview(b"1")),
    *(0, False, "", b"", 0.0, -0.0, 0j, -0j, [], (), set(), frozenset(), {}, None, "None", "0", "False", ...),
    *(NotImplemented, math.inf, -math.inf, math.nan, 2**63, -(2**63), 2**63 - 1, 2**64, 2**4000, -(2**4000)),
    *([[1], 2], [[1, 2]], [1, [2]], [1, 2], [2, 1], ((1,), 2), ([1],), [(1,)], [[]], [[], []], [[[]]]),
    *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": {"b": 2}}, {1: "a"}, {"1": "a"}, {True: "a"}, {"a": [1]}),
    *(
        "é",
        "e\u0301",
        "\ud800",
        "\udc00",
        "a\x00b",
        "ab",
        b"ab",
        "x" * 1000,
        b"x" * 1000,
        "x" * 1001,
        ["ab"],
        ["a", "b"],
    ),
    *(decimal.Decimal(1), decimal.Decimal("1.0"), decimal.Decimal("-0"), decimal.Decimal("NaN"), fractions.Fraction(1)),
    *(fractions.Fraction(1, 2), uuid.UUID(int=1), range(1), range(0, 1, 2), range(2), slice(1), slice(0, 1)),
    *(DAY, DAY.replace(fold=1), DAY.replace(tzinfo=UTC), DAY.date(), DAY.time(), DAY.time().replace(tzinfo=UTC)),
    *(DAY.replace(tzinfo=zoneinfo.ZoneInfo("UTC")), zoneinfo.ZoneInfo("UTC"), UTC, datetime.timedelta(0)),
    *(datetime.timezone(datetime.timedelta(0), "x"), datetime.timedelta(seconds=1), datetime.timedelta(days=1)),
    *(pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), pathlib.Path("a"), pathlib.PurePosixPath("b"), "a"),
    *(
        collections.deque([1]),
        collections.deque([1], 3),
        collections.OrderedDict(a=1),
        collections.Counter("a"),
        {"a": 1},
    ),
    *(collections.defaultdict(int, a=1), collections.defaultdict(list, a=1), collections.defaultdict(None, a=1)),
    *(types.SimpleNamespace(a=1), types.MappingProxyType({"a": 1}), collections.ChainMap({"a": 1})),
    *(array.array("i", [1]), array.array("q", [1]), array.array("i", [1, 0]), memoryview(array.array("i", [1]))),
    *(re.compile("a"), re.compile("a", re.I), re.compile(b"a"), functools.partial(int), functools.partial(int, base=2)),
    *(Colour.RED, Colour.BLUE, Size.SMALL, Colour, Whole(1), with_attribute(Whole(1)), Words(), Words(["a"]), ["a"]),
    *(Couple(1, 2), Twin(1, 2), (1, 2), Point(1, 2), Place(1, 2), Point(2, 1), Point(1, [2]), Frozen(1), Frozen(True)),
    *(
        with_attribute(Point(1, 2)),
        ValueError("a"),
        TypeError("a"),
        ValueError("b"),
        ValueError(),
        OSError(2, "a", "b"),
    ),
    *(OSError(2, "a", "c"), Adder(1), Adder(2), Adder(1).__call__, double, treble, len, int, bool, dict, str.upper),
    *([].append, [1].append, operator.itemgetter(1), operator.itemgetter(2), operator.attrgetter("a"), json, math),
    *(Keyed(1), Keyed(2), Keyed(True), AlsoKeyed(1), Keyed(None), list[int], list[str], int | str, typing.Any),
    *(np.int64(1), np.int32(1), np.float64(1), np.bool_(True), np.str_("1"), np.bytes_(b"1"), np.datetime64(1, "s")),
    *(np.datetime64(1, "ms"), np.timedelta64(1, "s"), np.float64(0), np.float64(-0.0), np.array(1), np.array([1])),
    *(np.array([[1]]), np.array([1], "i4"), np.array([1], ">i8"), np.array([1.0]), np.array([True]), np.array(["1"])),
    *(np.array([b"1"]), np.array(["1"], object), np.array([1], object), np.array([1.0], object), np.zeros((0, 3))),
    *(np.zeros((3, 0)), np.zeros(0), np.arange(6), np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
    *(np.arange(6).reshape(2, 3).T, np.array([(1, 2.0)], "i4,f8"), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])),
    *(np.array([1], "M8[s]"), np.array([1], "M8[ms]"), np.dtype("i4"), np.dtype("i8"), np.add, np.sum, np.subtract),
    *(np.array(["a"], np.dtypes.StringDType()), np.dtype("i4,f8")),
]


def test_no_two_values_that_differ_share_a_digest() -> None:
    found: dict[bytes, Any] = {}
    for value in DIFFERENT:
        digest = digest_of(value)
        assert len(digest) == 32
        assert digest not in found or found[digest] is value, f"{value!r} and {found[digest]!r}"
        found[digest] = value
    # in a container each of them counts as it does alone
    assert len({digest_of([value, 0]) for value in found.values()}) == len(found)
    assert len({digest_of({"k": (value,)}) for value in found.values()}) == len(found)


FAR = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (math.nan, float("nan")),
        (2**300, 4**150),
        ("x" * 5000, "x" * 5000),
        ({3, 1, 2, "a", (1, 2)}, {(1, 2), "a", 2, 1, 3}),
        (Point(1, [2]), Point(1, [2])),
        (Frozen((1,)), Frozen((1,))),
        (np.arange(12).reshape(3, 4), np.asfortranarray(np.arange(12).reshape(3, 4))),
        (np.arange(24)[::2], np.arange(0, 24, 2)),
        (np.arange(1e5).reshape(100, 1000)[:, ::3], np.ascontiguousarray(np.arange(1e5).reshape(100, 1000)[:, ::3])),
        (np.arange(1e5)[None, ::-1], np.arange(1e5)[::-1][None].copy()),
        (np.array([1, 2])[::-1][::-1], np.array([1, 2])),
        (memoryview(b"abcd")[::2], memoryview(b"abcd")[::2]),
        (np.array([1, "a", None], object)[::2], np.array([1, None], object)),
        (lambda x: x + 1, lambda x: x + 1),
        (Point, Point),
    ],
)
def test_equal_values_share_a_digest(one: Any, other: Any) -> None:
    assert digest_of(one) == digest_of(other)


def test_another_nan_is_another_value() -> None:
    assert digest_of(FAR) != digest_of(math.nan)


def test_padding_between_the_fields_of_a_record_is_no_content() -> None:
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    one, other = np.zeros(4, dtype), np.frombuffer(b"\xff" * 4 * dtype.itemsize, dtype).copy()
    other["a"], other["b"] = 0, 0.0
    assert digest_of(one) == digest_of(other)


def test_who_else_holds_a_part_does_not_count() -> None:
    part = ["x" * 300, [1, [2]]]
    assert digest_of([part, part]) == digest_of([part, ["x" * 300, [1, [2]]]])
    name = "".join(["a", "b"])
    assert digest_of([name, name]) == digest_of([sys.intern("ab"), "".join("ab")])


def test_shared_parts_are_written_once() -> None:
    value: Any = ["x"]
    for _ in range(200):
        value = [value, value, "y"]
    assert len(digest_of(value)) == 32


# -- any values


def atoms() -> st.SearchStrategy[Any]:
    few = st.sampled_from([0, 1, True, False, None, "", "a", "1", b"", b"a", b"1", 0.0, -0.0, 1.0, math.nan, 1j])
    return (
        few | few | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=6) | st.sampled_from(Colour)
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, max_size=3)
    keys = st.sampled_from([0, 1, "a", "b", (1,), None])
    plain = atoms().filter(lambda value: value == value)
    return st.one_of(
        few,
        few.map(tuple),
        few.map(collections.deque),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=2).map(collections.OrderedDict),
        st.sets(plain, max_size=3),
        st.frozensets(plain, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Place, inner),
        st.builds(Frozen, inner),
        st.builds(types.SimpleNamespace, a=inner),
    )


VALUES = st.recursive(atoms(), containers, max_leaves=6)


def told(value: Any) -> Any:
    """Type and content by another road: nested tuples of text, compared with `==`."""
    kind = type(value).__name__
    if isinstance(value, enum.Enum):
        return (kind, value.name)
    if isinstance(value, float):
        return (kind, struct.pack("<d", value))
    if isinstance(value, complex):
        return (kind, struct.pack("<dd", value.real, value.imag))
    if isinstance(value, set | frozenset):
        return (kind, sorted(repr(told(part)) for part in value))
    if isinstance(value, dict):
        return (kind, [(told(key), told(part)) for key, part in value.items()])
    if isinstance(value, list | tuple | collections.deque):
        return (kind, [told(part) for part in value])
    if isinstance(value, Frozen):
        return (kind, told(value.x))
    if isinstance(value, Point | Place | types.SimpleNamespace):
        return (kind, told(vars(value)))
    return (kind, repr(value))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(VALUES, VALUES)
@example([1, 2], [1, [2]])
def test_digests_are_equal_exactly_when_type_and_content_are(one: Any, other: Any) -> None:
    assert (digest_of(one) == digest_of(other)) == (told(one) == told(other))


def mutated(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """A copy of the value, and maybe with one part of it exchanged."""
    if draw(st.integers(0, 5)) == 0:
        return draw(atoms())
    if isinstance(value, list | tuple | collections.deque) and value:
        at = draw(st.integers(0, len(value) - 1))
        parts = [mutated(part, draw) if index == at else part for index, part in enumerate(value)]
        return draw(st.sampled_from([type(value), type(value), list, tuple]))(parts)
    if isinstance(value, dict) and value:
        items = [(key, mutated(part, draw)) for key, part in value.items()]
        return type(value)(draw(st.permutations(items)))
    if isinstance(value, Point):
        return Point(mutated(value.x, draw), value.y)
    return value


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(VALUES, st.data())
def test_digests_tell_near_relatives_apart(value: Any, data: st.DataObject) -> None:
    other = mutated(value, data.draw)
    assert (digest_of(value) == digest_of(other)) == (told(value) == told(other))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 3), st.data())
def test_arrays_are_told_by_content_whatever_their_layout(dimensions: int, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(0, 4)) for _ in range(dimensions))
    dtype = data.draw(st.sampled_from(["i4", ">i4", "f8", "?", "S2", "U2", "O", "M8[s]", "i4,f4"]))
    plain = np.arange(math.prod(shape), dtype="i4").reshape(shape)
    value = np.asarray((plain % 2 if dtype == "?" else plain).astype(dtype))
    axes = data.draw(st.permutations(range(dimensions)))
    turned = np.ascontiguousarray(value.transpose(axes)).reshape(value.transpose(axes).shape)
    turned = turned.transpose(np.argsort(axes)) if dimensions else turned
    assert digest_of(turned) == digest_of(value)
    if value.size:
        other = value.copy()
        other.reshape(-1)[0] = np.array(1).astype(dtype) if value.reshape(-1)[0] != np.array(1).astype(dtype) else 0
        assert digest_of(other) != digest_of(value)


# -- depth, circles, what is refused


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, Point], ids=["list", "tuple", "dict", "data"]
)
def test_depth_is_no_limit(wrap: Callable[[Any], Any]) -> None:
    one, other = nested(100_000, wrap), nested(99_999, wrap)
    assert digest_of(one) != digest_of(other)


def circle_in_a_list() -> Any:
    value: list[Any] = [1]
    value.append({"again": (value,)})
    return value


def circle_in_an_object() -> Any:
    value = Point(1)
    value.y = [value]
    return value


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("make", "path", "why"),
    [
        (threading.Lock, "'x'", "_thread.lock"),
        (lambda: [1, {"a": (threading.Lock(),)}], "'x[1]['a'][0]'", "_thread.lock"),
        (lambda: Point(1, [Point(threading.Lock())]), "'x.y[0].x'", "_thread.lock"),
        (generator, "'x'", "generator"),
        (object, "'x'", "object"),
        (circle_in_a_list, "'x[1]['again'][0]'", "holds itself"),
        (circle_in_an_object, "'x.y[0]'", "holds itself"),
        (lambda: np.ma.masked_array([1]), "'x'", "MaskedArray"),
        (lambda: {"a": np.array([object()], object)}, "'x['a'][0]'", "object"),
        (lambda: Adder(threading.Lock()), "'x.k'", "_thread.lock"),
        (lambda: nested(50, lambda v: [v] if v else threading.Lock()), "'x[0][0][0][0][0][0]...[0]", "_thread.lock"),
        (lambda: iter([1]), "'x'", "list_iterator"),
        (lambda: np.random.default_rng(1), "'x'", "Generator"),
        (lambda: np.zeros(2, np.longdouble), "'x'", "padding"),
        (lambda: np.rec.array([(1,)]), "'x'", "recarray"),
        (lambda: {(object(),): 1}, "'x.<key <a tuple>>[0]'", "object"),
        (lambda: functools.partial(int, threading.Lock()), "'x.args[0]'", "_thread.lock"),
        (lambda: Keyed(object()), "'x.__cache_key__()'", "object"),
    ],
)
def test_what_has_no_content_is_refused_by_its_path(make: Callable[[], Any], path: str, why: str) -> None:
    with pytest.raises(UnkeyableError) as caught:
        digest_of(make(), name="x")
    message = str(caught.value)
    assert message.startswith(path.rstrip("'")) and why in message, message
    assert "define __cache_key__" in message and "@node(cache=False)" in message
    assert isinstance(caught.value, HypernodesError) and isinstance(caught.value, TypeError)


def test_an_open_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file, pytest.raises(UnkeyableError, match="TextIOWrapper"):
        digest_of(file)


def test_values_never_show_in_messages() -> None:
    with pytest.raises(UnkeyableError) as caught:
        digest_of({"password": ["hunter2", object()], ("hunter2",): 1})
    assert "hunter2" not in str(caught.value)


class Broken:
    def __cache_key__(self) -> Any:
        raise ValueError("hunter2")


class Endless:
    def __cache_key__(self) -> Any:
        return self


def test_a_key_that_cannot_be_made_is_refused_with_its_cause() -> None:
    with pytest.raises(UnkeyableError, match=r"'x' cannot .* Broken that raised ValueError") as caught:
        digest_of(Broken(), "x")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(UnkeyableError, match="holds itself"):
        digest_of(Endless())


def test_the_code_of_a_users_class_counts_with_its_instances() -> None:
    def made(body: str) -> Any:
        scope: dict[str, Any] = {"dataclass": dataclasses.dataclass, "__name__": "made"}
        exec(compile(textwrap.dedent(body), "made.py", "exec", dont_inherit=True), scope)
        return scope["Doc"]("a b")

    doc = """
        @dataclass
        class Doc:
            text: str
            def words(self):
                return self.text.split({})
    """
    assert digest_of(made(doc.format(""))) == digest_of(made(doc.format("")))
    assert digest_of(made(doc.format(""))) != digest_of(made(doc.format("','")))


def test_a_method_that_is_replaced_is_noticed() -> None:
    @dataclasses.dataclass
    class Doc:
        text: str

        def words(self) -> list[str]:
            return self.text.split()

    before = digest_of(Doc("a"))
    Doc.words = lambda self: [self.text]  # type: ignore[method-assign]
    assert digest_of(Doc("a")) != before


def test_a_cached_property_that_was_read_is_no_content() -> None:
    @dataclasses.dataclass
    class Doc:
        text: str

        @functools.cached_property
        def lower(self) -> str:
            return self.text.lower()

    read = Doc("A")
    assert read.lower == "a"
    assert digest_of(read) == digest_of(Doc("A"))


def test_attributes_that_were_set_in_another_order_do_not_count_but_fields_do() -> None:
    one, other = Adder(1), Adder(1)
    one.a, one.b = 1, 2  # type: ignore[attr-defined]
    other.b, other.a = 2, 1  # type: ignore[attr-defined]
    assert digest_of(one) == digest_of(other)


def test_large_buffers_are_hashed_where_they_lie() -> None:
    import tracemalloc

    value = np.zeros(4_000_000)
    strided = np.zeros((2000, 4000))[:, ::2]
    tracemalloc.start()
    try:
        digest_of(value)
        digest_of([value, value[1:]])
        digest_of(strided)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


# -- other processes and other versions of Python

ELSEWHERE = """
import sys, collections, datetime, decimal, enum, fractions, functools, pathlib, re, types, uuid, zoneinfo, array, json
from hypernodes._digest import digest_of

values = [
    1, 2**100, "a", "\\ud800", b"a", 1.5, float("nan"), -0.0, 1j, None, ..., True, bytearray(b"a"), memoryview(b"a"),
    [1, [2, "x" * 500]], (1, (2,)), {"a": 1, "b": {"c": [1, None]}}, {"x", "y", "z", 1, (2, "q")}, frozenset("abcdef"),
    {frozenset({"a", "b"}), frozenset({"c", "d"}), "e"}, decimal.Decimal("1.10"), fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), datetime.date(2024, 1, 2), datetime.time(1),
    datetime.timedelta(1, 2, 3), range(3), slice(1, 2), pathlib.PurePosixPath("a/b"), pathlib.Path("a/b"),
    pathlib.PureWindowsPath("a"), collections.deque([1], 2), collections.OrderedDict(a=1),
    collections.defaultdict(int, a=1), collections.Counter("aab"), types.SimpleNamespace(a=1),
    types.MappingProxyType({"a": 1}), re.compile("a+", re.I),
    functools.partial(int, base=2), ValueError("a", 1), OSError(2, "no", "file"), KeyError("a"),
    ImportError("a", name="b"),
    array.array("d", [1.5]), int, dict, len, json.dumps, json, list[int],
]
digests = [digest_of(value).hex() for value in values]
print(json.dumps(digests))
"""

CLASSES = """
import dataclasses, enum, json, typing
from hypernodes._digest import digest_of

class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"

class Pair(typing.NamedTuple):
    a: int
    b: str = "x"

@dataclasses.dataclass
class Doc:
    names: set
    def all(self):
        return sorted(self.names & {"a", "b", "c", "d"})

class Adder:
    __slots__ = ("k", "l")
    def __init__(self, k): self.k = k
    def __call__(self, x): return x + self.k

values = (Colour.RED, Pair(1), Doc({"p", "q", "r"}), Doc, Adder(2), Adder(3).__call__)
print(json.dumps([digest_of(v).hex() for v in values]))
"""


def elsewhere(script: str, python: str = sys.executable, **env: str) -> Any:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HYPERNODES_", "COV"))}
    done = subprocess.run(
        [python, "-c", script],
        env={**kept, "PYTHONPATH": str(CORE), "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def other_pythons() -> list[str]:
    """Interpreters of the supported versions that lie beside this one, as version managers put them."""
    homes = Path(sys.base_prefix).resolve().parent
    found = [
        path for version in ("3.11", "3.12", "3.13") for path in sorted(homes.glob(f"{version}*/bin/python{version}"))
    ]
    own = Path(sys.base_prefix).resolve()
    return [str(path) for path in found if not path.is_relative_to(own)]


@pytest.mark.slow
@pytest.mark.parametrize("script", [ELSEWHERE, CLASSES], ids=["values", "classes"])
def test_digests_are_the_same_in_every_process_and_hash_seed(script: str) -> None:
    first = elsewhere(script, PYTHONHASHSEED="0")
    for seed in ("1", "2", "3", "4"):
        assert elsewhere(script, PYTHONHASHSEED=seed) == first


@pytest.mark.slow
def test_digests_are_the_same_in_every_supported_python() -> None:
    others = other_pythons()
    if not others:
        pytest.skip("no other Python lies beside this one")
    first = elsewhere(ELSEWHERE)
    for python in others:
        assert elsewhere(ELSEWHERE, python) == first, python


def test_digests_do_not_change_from_one_release_to_the_next() -> None:
    # an entry written today has to be found tomorrow; a new encoding is a decision, not an accident
    value = {"a": [1, 2.5, "x" * 300, None], "b": {3, 1}, "c": (b"z", decimal.Decimal("1.0"))}
    assert digest_of(value).hex() == "fdbf2ae3ad48cbae005385d6a2a3a9e64f7486c0b47f583d0a3878d457f80acb"
    assert digest_of(1).hex() == hashlib.sha256(b"i" + (1).to_bytes(8, "little")).hexdigest()


# -- libraries


def test_pandas_is_told_by_types_names_index_order_and_content() -> None:
    pd = pytest.importorskip("pandas")
    base = {"a": [1, 2], "b": ["x", None]}
    different = [
        *(pd.DataFrame(base), pd.DataFrame({"b": ["x", None], "a": [1, 2]}), pd.DataFrame(base, index=[1, 2])),
        *(pd.DataFrame(base).astype({"a": "int32"}), pd.DataFrame(base).astype({"a": "Int64"}), pd.Series([1, 2])),
        *(
            pd.DataFrame(base).astype({"b": "string"}),
            pd.DataFrame(base).astype({"b": "category"}),
            pd.Series([1, 2], name="a"),
        ),
        *(
            pd.Series([1, 2], index=[1, 0]),
            pd.Series([1, None]),
            pd.Series([1, None], dtype="Int64"),
            pd.Series([1, "1"]),
        ),
        *(pd.Series([1, 1]), pd.Series([True, None], dtype="boolean"), pd.Index([1, 2]), pd.Index([1, 2], name="x")),
        *(
            pd.RangeIndex(1, 3),
            pd.RangeIndex(1, 4),
            pd.MultiIndex.from_tuples([(1, 2)]),
            pd.Index(["a"]),
            pd.Series(["1", "1"]),
        ),
        *(
            pd.MultiIndex.from_tuples([(1, 2)], names=["a", "b"]),
            pd.MultiIndex.from_tuples([(1, 3)]),
            pd.Series([1.5, None]),
        ),
        pd.Series(pd.to_datetime(["2024-01-01"])),
        pd.Series(pd.to_datetime(["2024-01-01"])).dt.tz_localize("UTC"),
        pd.Series(pd.to_datetime(["2024-01-01"])).dt.tz_localize("Europe/Berlin"),
        *(pd.Categorical(["a"], ["a", "b"]), pd.Categorical(["a"], ["a"]), pd.Categorical(["a"], ["a"], ordered=True)),
        *(pd.Series(pd.period_range("2024-01", periods=1, freq="M")), pd.Series(pd.interval_range(0, 2))),
        *(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta(1), pd.NaT, pd.NA),
        *(pd.date_range("2024-01-01", periods=2), pd.Series(["a"], dtype="string"), pd.Series(["a"], dtype=object)),
        *(pd.Interval(0, 1), pd.Interval(0, 1, closed="both"), pd.DataFrame(), pd.DataFrame(index=[1])),
        pd.Series([[1], [2]]),
        pd.Series([[1], (2,)]),
    ]
    assert len({digest_of(value) for value in different}) == len(different)
    for value in different:
        if hasattr(value, "copy"):
            assert digest_of(value.copy()) == digest_of(value)
    wide = pd.DataFrame(np.arange(20).reshape(5, 4))
    assert digest_of(wide.iloc[1:4, ::2]) == digest_of(wide.iloc[1:4, ::2].copy())
    with_attributes = pd.Series([1, 2])
    with_attributes.attrs["unit"] = "m"
    assert digest_of(with_attributes) != digest_of(pd.Series([1, 2]))
    hidden = pd.Series([1, 2, 3], dtype="Int64")
    other = pd.Series([1, 9, 3], dtype="Int64")
    hidden[1], other[1] = pd.NA, pd.NA
    assert digest_of(hidden) == digest_of(other)


def test_an_object_column_is_refused_by_its_element() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(UnkeyableError, match="object, whose content"):
        digest_of(pd.DataFrame({"a": [object()]}), "frame")

    class Own(pd.DataFrame):  # type: ignore[misc]
        pass

    with pytest.raises(UnkeyableError, match="Own"):
        digest_of(Own({"a": [1]}))


def arrow_columns(pa: Any) -> list[Any]:
    return [
        pa.array([1, None, 3]),
        pa.array([1, None, 3], pa.int8()),
        pa.array([1, 0, 3]),
        pa.array([True, None, False]),
        pa.array([True, False, False]),
        pa.array(["a", None, "bc"]),
        pa.array(["a", "", "bc"]),
        pa.array(["ab", "", "c"]),
        pa.array(["a", None, "bc"], pa.large_string()),
        pa.array([b"a", None, b"bc"]),
        pa.array([1.5, None, float("nan")]),
        pa.array([[1], None, [2, 3]]),
        pa.array([[1], [], [2, 3]]),
        pa.array([[1, 2], [], [3]]),
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
        pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, {"a": None, "b": "y"}]),
        pa.array([[("k", 1)], None, [("l", 2), ("m", None)]], pa.map_(pa.string(), pa.int64())),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array([None, None, None]),
        pa.array([decimal.Decimal("1.5"), None, decimal.Decimal("2.5")]),
        pa.array([datetime.date(2024, 1, 1), None, datetime.date(2024, 1, 2)]),
        pa.array([1, None, 2], pa.timestamp("us")),
        pa.array([1, None, 2], pa.timestamp("us", "UTC")),
        pa.array([1, None, 2], pa.timestamp("ns")),
        pa.array([b"ab", None, b"cd"], pa.binary(2)),
        pa.array(["a", None, "bc"], pa.string_view()),
        pa.array([datetime.timedelta(1), None, datetime.timedelta(2)]),
    ]


def test_arrow_is_told_by_logical_content_however_it_is_cut() -> None:
    pa = pytest.importorskip("pyarrow")
    columns = arrow_columns(pa)
    assert len({digest_of(column) for column in columns}) == len(columns)
    for column in columns:
        doubled = pa.concat_arrays([column, column])
        assert digest_of(doubled.slice(3, 3)) == digest_of(column), column.type
        whole = digest_of(pa.chunked_array([doubled]))
        assert digest_of(pa.chunked_array([column, column])) == whole, column.type
        pieces = [doubled.slice(0, 1), doubled.slice(1, 0), doubled.slice(1, 4), doubled.slice(5)]
        assert digest_of(pa.chunked_array(pieces)) == whole, column.type
        assert len({digest_of(part) for part in (column, column.slice(0, 2), column.slice(2), doubled)}) == 4, (
            column.type
        )
    names = [f"c{at}" for at in range(len(columns))]
    table = pa.table(columns, names)
    assert digest_of(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == digest_of(table)
    others = [
        *(table.to_batches()[0], table.schema, table.replace_schema_metadata({"a": "b"}), table.select(names[::-1])),
        *(table.rename_columns([f"d{at}" for at in range(len(columns))]), table.slice(1), pa.scalar(1), pa.scalar("1")),
        *(pa.scalar(None, pa.int64()), pa.scalar(1, pa.int8()), pa.int64(), pa.field("a", pa.int64())),
        pa.field("a", pa.int64(), nullable=False),
        pa.table({"a": pa.array([1, 2, 3])}, schema=pa.schema([pa.field("a", pa.int64(), metadata={"k": "v"})])),
        pa.table({"a": pa.array([1, 2, 3])}),
    ]
    assert len({digest_of(value) for value in (table, *others)}) == len(others) + 1


def test_what_lies_under_an_arrow_null_is_no_content() -> None:
    pa = pytest.importorskip("pyarrow")
    valid = pa.py_buffer(b"\x05")
    one = pa.Array.from_buffers(pa.int64(), 3, [valid, pa.py_buffer(struct.pack("<3q", 1, 2, 3))])
    other = pa.Array.from_buffers(pa.int64(), 3, [valid, pa.py_buffer(struct.pack("<3q", 1, 9, 3))])
    assert digest_of(one) == digest_of(other)


def test_pydantic_models_are_told_by_type_fields_and_extra() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Config(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(extra="allow")
        size: int = 1
        names: tuple[str, ...] = ()
        _seen: int = pydantic.PrivateAttr(0)

    class Other(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(extra="allow")
        size: int = 1
        names: tuple[str, ...] = ()
        _seen: int = pydantic.PrivateAttr(0)

    class Strict(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        size: int = 1

        @pydantic.field_validator("size")
        @classmethod
        def positive(cls, value: int) -> int:
            return abs(value)

    private = Config(size=2)
    private._seen = 3
    different = [
        Config(),
        Config(size=1),
        Config(size=2),
        Config(names=("a",)),
        Config(more=1),
        Other(),
        private,
        Strict(),
    ]
    assert len({digest_of(value) for value in different}) == len(different)
    assert digest_of(Config(size=2, names=("a",))) == digest_of(Config(size=2, names=("a",)))
    with pytest.raises(UnkeyableError, match=r"'cfg\.more'|'cfg\.model_extra\['more'\]'"):
        digest_of(Config(more=object()), "cfg")


def test_attrs_classes_are_told_by_type_and_fields() -> None:
    attrs = pytest.importorskip("attrs")
    point = attrs.make_class("Point", ["x", "y"])
    slotted = attrs.frozen(type("Slotted", (), {"__annotations__": {"x": int}}))
    different = [point(1, 2), point(2, 1), slotted(1), slotted(2)]
    assert len({digest_of(value) for value in different}) == len(different)
    assert digest_of(point(1, [2])) == digest_of(point(1, [2]))
