"""Bad input gets a sentence in the user's own names, before any node runs; and 500 random mistakes do too."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import random
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hypernodes
from hypernodes import (
    CycleError,
    DuplicateOutputError,
    GraphError,
    HypernodesError,
    IncompatibleEngineError,
    LocalBackend,
    MissingInputError,
    NodeDefinitionError,
    OutputCountError,
    Pipeline,
    TypeMismatchError,
    UnknownInputError,
    UnknownNameError,
    UnknownOutputError,
    node,
    resource,
)
from hypernodes.plugin import Engine, Feed, Site
from hypernodes.testing._leaks import LeakWatch, no_leaks

__all__ = ["no_leaks"]


@pytest.fixture(autouse=True)
def clean(no_leaks: LeakWatch) -> Iterator[None]:
    ran.clear()
    yield
    assert not ran, f"{ran} ran before the mistake was found"


ran: list[str] = []


@node(output_name="cleaned")
def clean_text(text: str) -> str:
    ran.append("clean_text")
    return text.strip()


@node(output_name="tokens")
def tokenize(cleaned: str, separator: str = " ") -> list[str]:
    ran.append("tokenize")
    return cleaned.split(separator)


@node(output_name=("shortest", "longest"))
def extremes(tokens: list[str]) -> Any:
    ran.append("extremes")
    return min(tokens, key=len), max(tokens, key=len)


def search() -> Pipeline:
    return Pipeline(nodes=[clean_text, tokenize, extremes], name="search")


class Clusterwide(Engine):
    """Needs what this machine does not offer."""

    name = "clusterwide"
    requires = frozenset({"acme.cluster"})

    def execute(self, stage: Any, tasks: Feed, site: Site) -> Any:
        raise AssertionError("never paired")


class Mistake(NamedTuple):
    """What the user wrote, and the words that the answer must hold, in any order."""

    act: Callable[[], Any]
    error: type[BaseException]
    words: tuple[str, ...]


def mistake(act: Callable[[], Any], error: type[BaseException], *words: str) -> Mistake:
    return Mistake(act, error, words)


def with_star(*parts: str) -> None: ...
def with_stars(**options: str) -> None: ...
def positional_only(text: str, /) -> None: ...
async def generating(text: str) -> Any:
    yield text


MISTAKES: dict[str, Mistake] = {
    # wiring
    "cycle, with its path": mistake(
        lambda: Pipeline(
            name="loop",
            nodes=[node(lambda b: b, output_name="a"), node(lambda a: a, output_name="b"), clean_text],
        ),
        CycleError,
        "'loop'",
        "a -> b -> a|b -> a -> b",
    ),
    "node that takes its own output": mistake(
        lambda: Pipeline(nodes=[node(lambda size: size, output_name="size", name="measure")]),
        CycleError,
        "'measure'",
        "its own output 'size'",
    ),
    "cycle through a nested pipeline": mistake(
        lambda: Pipeline(
            name="outer", nodes=[search(), node(lambda longest: longest, output_name="text", name="back")]
        ),
        CycleError,
        "search",
        "back",
        "'text'",
    ),
    "two makers of one output": mistake(
        lambda: Pipeline(nodes=[clean_text, node(lambda text: text, output_name="cleaned", name="scrub")]),
        DuplicateOutputError,
        "'clean_text'",
        "'scrub'",
        "'cleaned'",
    ),
    "one node twice": mistake(lambda: Pipeline(nodes=[clean_text, clean_text]), DuplicateOutputError, "'cleaned'"),
    "nested pipeline and node that make one output": mistake(
        lambda: Pipeline(nodes=[search(), tokenize]), DuplicateOutputError, "'search'", "'tokenize'", "'tokens'"
    ),
    "types that cannot fit": mistake(
        lambda: Pipeline(
            nodes=[clean_text, node(_count_of_int, output_name="count")],
        ),
        TypeMismatchError,
        "'clean_text'",
        "'_count_of_int'|'count'",
        "str",
        "int",
    ),
    # calls
    "unknown output": mistake(
        lambda: search().run(text="a", output_name="tokns"), UnknownOutputError, "'tokns'", "did you mean 'tokens'"
    ),
    "unknown output among several": mistake(
        lambda: search().run(text="a", output_nodes=["tokens", "longst"]),
        UnknownOutputError,
        "'longst'",
        "did you mean 'longest'",
    ),
    "unknown output of a map": mistake(
        lambda: search().map([{"text": "a"}], output_name="tokns"), UnknownOutputError, "did you mean 'tokens'"
    ),
    "output_nodes as a string": mistake(
        lambda: search().run(text="a", output_nodes="tokens"), UnknownOutputError, "'tokens'", "output_name="
    ),
    "output_name as a list": mistake(
        lambda: search().run(text="a", output_name=["tokens"]),  # type: ignore[arg-type]
        UnknownOutputError,
        "output_nodes=",
    ),
    "output_name and output_nodes together": mistake(
        lambda: search().run(text="a", output_name="tokens", output_nodes=["tokens"]), GraphError, "not both"
    ),
    "unknown input": mistake(
        lambda: search().run(txt="a"), UnknownInputError, "'search'", "'txt'", "did you mean 'text'", "'separator'"
    ),
    "unknown input whose parameter has a default": mistake(
        lambda: search().run(text="a", seperator=","), UnknownInputError, "did you mean 'separator'"
    ),
    "unknown input of a row": mistake(
        lambda: search().map([{"txt": "a"}]), UnknownInputError, "'txt'", "did you mean 'text'"
    ),
    "unknown shared input": mistake(
        lambda: search().map([{"text": "a"}], inputs={"seperator": ","}), UnknownInputError, "did you mean 'separator'"
    ),
    "missing input": mistake(lambda: search().run(), MissingInputError, "'text'", "search > clean_text"),
    "missing input of a nested pipeline": mistake(
        lambda: Pipeline(nodes=[search()], name="outer").run(separator=","),
        MissingInputError,
        "'text'",
        "outer > search > clean_text",
    ),
    "all missing inputs at once": mistake(
        lambda: Pipeline(nodes=[clean_text, node(lambda size: size, output_name="doubled")]).run(),
        MissingInputError,
        "'text'",
        "'size'",
    ),
    "input that is nearly the name of a resource": mistake(
        lambda: Pipeline(nodes=[resource(lambda: 1, name="model"), node(lambda modle: modle, output_name="y")]).run(),
        MissingInputError,
        "'modle'",
        "did you mean 'model'",
    ),
    "input given twice": mistake(lambda: search().run({"text": "a"}, text="b"), GraphError, "'text'", "twice"),
    "inputs that are no dict": mistake(lambda: search().run(["a"]), TypeError, "'search'", "a list"),  # type: ignore[arg-type]
    "input name that is no string": mistake(lambda: search().run({1: "a"}), UnknownInputError, "1"),  # type: ignore[dict-item]
    # maps
    "zip of unequal lengths, both named": mistake(
        lambda: search().map(inputs={"text": ["a", "b"], "separator": [","] * 3}, map_over=["text", "separator"]),
        ValueError,
        "'text' has 2",
        "'separator' has 3",
    ),
    "map_over that names nothing": mistake(
        lambda: search().map(inputs={"text": ["a"]}, map_over="txt"), UnknownInputError, "'txt'", "did you mean 'text'"
    ),
    "map_over that is empty": mistake(
        lambda: search().map(inputs={"text": ["a"]}, map_over=[]), NodeDefinitionError, "map_over is empty"
    ),
    "map_over that names one input twice": mistake(
        lambda: search().map(inputs={"text": ["a"]}, map_over=["text", "text"]), NodeDefinitionError, "'text' twice"
    ),
    "map_over of a nested pipeline that names nothing": mistake(
        lambda: search().as_node(map_over="txt"), UnknownInputError, "'txt'", "did you mean 'text'"
    ),
    "unknown map_mode": mistake(
        lambda: search().map(inputs={"text": ["a"]}, map_over="text", map_mode="zipp"),
        NodeDefinitionError,
        "'zipp'",
        "did you mean 'zip'",
    ),
    "unknown map_mode of a nested pipeline": mistake(
        lambda: search().as_node(map_over="text", map_mode="prodct"), NodeDefinitionError, "did you mean 'product'"
    ),
    "mapped string": mistake(
        lambda: search().map(inputs={"text": "abc"}, map_over="text"), GraphError, "'text'", "a str"
    ),
    "mapped single value": mistake(
        lambda: search().map(inputs={"text": 3}, map_over="text"), GraphError, "'text'", "a int|an int"
    ),
    "items that are no dicts": mistake(lambda: search().map(["a", "b"]), TypeError, "item 0", "a str"),  # type: ignore[list-item]
    "items that are no dicts, in a stream": mistake(
        lambda: list(search().map_iter(iter(["a"]))),  # type: ignore[arg-type]
        TypeError,
        "item 0",
        "a str",
    ),
    "dict as items": mistake(
        lambda: search().map({"text": ["a"]}),  # type: ignore[dict-item]
        TypeError,
        "not one dict",
        "map_over=",
    ),
    "string as items": mistake(lambda: search().map("abc"), TypeError, "a str"),  # type: ignore[arg-type]
    "number as items": mistake(lambda: search().map(3), TypeError, "an int"),  # type: ignore[arg-type]
    "neither rows nor columns": mistake(lambda: search().map(inputs={"text": "a"}), GraphError, "map_over="),
    "rows and columns": mistake(
        lambda: search().map([{"text": "a"}], inputs={"text": ["a"]}, map_over="text"), GraphError, "not both"
    ),
    "mistyped on_error": mistake(
        lambda: search().map([{"text": "a"}], on_error="retrun"), ValueError, "'retrun'", "did you mean 'return'"
    ),
    "mistyped on_error in a stream": mistake(
        lambda: next(search().map_iter([{"text": "a"}], on_error="rise")), ValueError, "did you mean 'raise'"
    ),
    "mistyped on_error in an awaited map": mistake(
        lambda: asyncio.run(search().amap([{"text": "a"}], on_error="rais")), ValueError, "did you mean 'raise'"
    ),
    # backends
    "unknown engine": mistake(lambda: LocalBackend(engine="theaded"), UnknownNameError, "'theaded'", "engine"),
    "unknown engine near one of core's": mistake(
        lambda: LocalBackend(engine="sequental"), UnknownNameError, "did you mean 'sequential'"
    ),
    "unknown mode": mistake(
        lambda: LocalBackend(node_execution="paralel"),
        IncompatibleEngineError,
        "node_execution",
        "'paralel'",
        "did you mean 'parallel'",
    ),
    "unknown mode over items": mistake(
        lambda: LocalBackend(map_execution="asink"), IncompatibleEngineError, "map_execution", "did you mean 'async'"
    ),
    "mode that the engine does not take": mistake(
        lambda: LocalBackend(engine="sequential", map_execution="parallel"),
        IncompatibleEngineError,
        "'sequential'",
        "map_execution='parallel'",
    ),
    "engine and place that do not fit": mistake(
        lambda: LocalBackend(engine=Clusterwide()),
        IncompatibleEngineError,
        "LocalBackend cannot run engine 'clusterwide'",
        "acme.cluster",
        "backends that can",
    ),
    "max_workers of 0": mistake(
        lambda: LocalBackend(engine="async", max_workers=0), IncompatibleEngineError, "max_workers=0", "1 or more"
    ),
    "max_workers as text": mistake(
        lambda: LocalBackend(max_workers="4"),  # type: ignore[arg-type]
        IncompatibleEngineError,
        "max_workers='4'",
    ),
    "engine as a class": mistake(
        lambda: LocalBackend(engine=Clusterwide),  # type: ignore[arg-type]
        IncompatibleEngineError,
        "Clusterwide",
        "engine=Clusterwide()",
    ),
    "engine as a number": mistake(lambda: LocalBackend(engine=3), IncompatibleEngineError, "engine=3"),  # type: ignore[arg-type]
    "backend as a class": mistake(
        lambda: Pipeline(nodes=[clean_text], name="search", backend=LocalBackend),  # type: ignore[arg-type]
        NodeDefinitionError,
        "'search'",
        "backend=LocalBackend()",
    ),
    "backend as a name": mistake(
        lambda: Pipeline(nodes=[clean_text], backend="local"),  # type: ignore[arg-type]
        NodeDefinitionError,
        "'local'",
        r"LocalBackend\(",
    ),
    # nodes
    "star parameter": mistake(lambda: node(with_star), NodeDefinitionError, "'with_star'", r"'\*parts'"),
    "double star parameter": mistake(lambda: node(with_stars), NodeDefinitionError, "'with_stars'", r"'\*\*options'"),
    "positional-only parameter": mistake(
        lambda: node(positional_only), NodeDefinitionError, "'positional_only'", "'text'"
    ),
    "plain function with a star among the nodes": mistake(
        lambda: Pipeline(nodes=[with_star]), NodeDefinitionError, r"'\*parts'"
    ),
    "output name that is no identifier": mistake(
        lambda: node(clean_text.func, output_name="cleaned text"), NodeDefinitionError, "'clean_text'", "'cleaned text'"
    ),
    "output name that is a path": mistake(
        lambda: node(clean_text.func, output_name="../../etc/x"), NodeDefinitionError, "'../../etc/x'"
    ),
    "output name that is a reserved word": mistake(
        lambda: node(clean_text.func, output_name="class"), NodeDefinitionError, "'class'", "reserved"
    ),
    "output name that is empty": mistake(lambda: node(clean_text.func, output_name=""), NodeDefinitionError, "''"),
    "output name that is a number": mistake(
        lambda: node(clean_text.func, output_name=3),  # type: ignore[call-overload]
        NodeDefinitionError,
        "3",
    ),
    "no output names": mistake(lambda: node(clean_text.func, output_name=()), NodeDefinitionError, "empty tuple"),
    "outputs as a list": mistake(
        lambda: node(clean_text.func, output_name=["a", "b"]),  # type: ignore[call-overload]
        NodeDefinitionError,
        r"\('a', 'b'\)",
    ),
    "one output named twice": mistake(
        lambda: node(clean_text.func, output_name=("a", "a")), NodeDefinitionError, "'a'", "twice"
    ),
    "output name given first": mistake(lambda: node("cleaned"), NodeDefinitionError, "output_name='cleaned'"),  # type: ignore[call-overload]
    "node of no function": mistake(lambda: node(3), NodeDefinitionError, "3"),  # type: ignore[call-overload]
    "node of a node": mistake(lambda: node(clean_text), NodeDefinitionError, "'clean_text'", "already"),
    "lambda without a name": mistake(lambda: node(lambda x: x), NodeDefinitionError, "output_name="),
    "generator as a batch node": mistake(
        lambda: node(generating, batch_size=4), NodeDefinitionError, "'generating' yields", "batch_size=4"
    ),
    "function whose parameters cannot be read": mistake(
        lambda: node(functools.reduce, output_name="x"), NodeDefinitionError, "'reduce'"
    ),
    "negative retries": mistake(lambda: node(clean_text.func, retries=-1), NodeDefinitionError, "retries=-1"),
    "timeout of 0": mistake(lambda: node(clean_text.func, timeout=0), NodeDefinitionError, "timeout=0"),
    "timeout as text": mistake(
        lambda: node(clean_text.func, timeout="1s"),  # type: ignore[call-overload]
        NodeDefinitionError,
        "'1s'",
    ),
    "unknown option of a node": mistake(
        lambda: node(clean_text.func, retrys=1),  # type: ignore[call-overload]
        TypeError,
        "retrys",
    ),
    # pipelines
    "nodes that are no list": mistake(lambda: Pipeline(nodes=clean_text), NodeDefinitionError, r"nodes=\[clean_text\]"),  # type: ignore[arg-type]
    "nodes as one pipeline": mistake(lambda: Pipeline(nodes=search()), NodeDefinitionError, r"nodes=\[search\]"),  # type: ignore[arg-type]
    "nodes as a dict": mistake(lambda: Pipeline(nodes={"a": clean_text}), NodeDefinitionError, "list of nodes"),  # type: ignore[arg-type]
    "nodes as a string": mistake(lambda: Pipeline(nodes="clean_text"), NodeDefinitionError, "'clean_text'"),
    "no nodes": mistake(lambda: Pipeline(nodes=[], name="search"), NodeDefinitionError, "'search' has no nodes"),
    "something else among the nodes": mistake(
        lambda: Pipeline(nodes=[clean_text, 3], name="search"), NodeDefinitionError, "'search'", "3"
    ),
    "pipeline class among the nodes": mistake(lambda: Pipeline(nodes=[Pipeline]), NodeDefinitionError, "Pipeline"),
    "pipeline name that is no string": mistake(
        lambda: Pipeline(nodes=[clean_text], name=3),  # type: ignore[arg-type]
        NodeDefinitionError,
        "3",
    ),
    "input_mapping to nothing": mistake(
        lambda: search().as_node(input_mapping={"raw": "txt"}), UnknownInputError, "'txt'", "did you mean 'text'"
    ),
    "input_mapping the wrong way round": mistake(
        lambda: search().as_node(input_mapping={"text": "raw"}), UnknownInputError, "'raw'", "from outer to inner"
    ),
    "output_mapping of nothing": mistake(
        lambda: search().as_node(output_mapping={"tokns": "words"}), UnknownOutputError, "did you mean 'tokens'"
    ),
    "output_mapping onto one name": mistake(
        lambda: search().as_node(output_mapping={"tokens": "cleaned"}), NodeDefinitionError, "'cleaned'"
    ),
    "output_mapping to no identifier": mistake(
        lambda: search().as_node(output_mapping={"tokens": "my tokens"}), NodeDefinitionError, "'my tokens'"
    ),
    "mapping that is no dict": mistake(
        lambda: search().as_node(input_mapping=["text"]),  # type: ignore[arg-type]
        NodeDefinitionError,
        "input_mapping",
    ),
}


def _count_of_int(cleaned: int) -> int:
    return cleaned


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_gets_a_sentence_before_any_node_runs(name: str) -> None:
    act, error, words = MISTAKES[name]
    with pytest.raises(error) as caught:
        act()
    message = str(caught.value)
    for word in words:
        assert re.search(word, message), f"no {word} in: {message}"
    assert "\n" not in message or error is UnknownNameError
    # a TypeError of Python's own names an unknown option well enough
    assert isinstance(caught.value, HypernodesError) or type(caught.value) in (TypeError, ValueError)


@pytest.mark.parametrize("returned", [("a",), ("a", "b", "c"), [], "ab", None, 3])
def test_wrong_count_of_outputs_names_node_and_outputs(returned: Any) -> None:
    pair = node(lambda x: returned, output_name=("first", "second"), name="pair")
    with pytest.raises(OutputCountError, match="node 'pair' declares 2 outputs \\('first', 'second'\\) but returned"):
        Pipeline(nodes=[pair]).run(x=1)


def test_unequal_lists_inside_a_map_name_both_lengths_and_the_path() -> None:
    inner = Pipeline(nodes=[node(lambda a, b: a, output_name="c")], name="inner")
    outer = Pipeline(nodes=[inner.as_node(map_over=["a", "b"])], name="outer")
    with pytest.raises(ValueError, match="'a' has 1, 'b' has 2") as caught:
        outer.run(a=[1], b=[1, 2])
    assert "outer > inner" in str(caught.value)


def test_mistake_is_refused_as_well_when_a_sound_call_was_compiled_before() -> None:
    pipeline = Pipeline(nodes=[node(lambda x: x, output_name="a"), node(lambda x: x, output_name="b")])
    assert pipeline.run(x=1, output_nodes=["a", "b"]) == {"a": 1, "b": 1}
    with pytest.raises(GraphError, match="not both"):
        pipeline.run(x=1, output_name="a", output_nodes=["a", "b"])
    with pytest.raises(UnknownOutputError, match="'ab'"):
        pipeline.run(x=1, output_nodes="ab")


def test_row_with_other_keys_is_named_where_it_comes() -> None:
    with pytest.raises(MissingInputError, match="'x'"):
        Pipeline(nodes=[node(lambda x: x, output_name="y")]).map([{"x": 1}, {}])
    with pytest.raises(TypeError, match="item 2 is a str"):
        Pipeline(nodes=[node(lambda x: x, output_name="y")]).map([{"x": 1}, {"x": 1}, "x"])  # type: ignore[list-item]


def test_pipeline_and_node_never_change() -> None:
    with pytest.raises(AttributeError, match="'clean_text' is immutable"):
        clean_text.retries = 3
    with pytest.raises(AttributeError):
        search().name = "other"  # type: ignore[misc]


# random mistakes

PACKAGE = str(Path(hypernodes.__file__).parent)
NAMES = ["text", "cleaned", "tokens", "weights", "index", "query", "score", "title"]


def typo(pick: random.Random, name: str) -> str:
    """A name at one edit's distance."""
    at = pick.randrange(1, len(name))
    return pick.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + name[at - 1] + name[at:],
            name[: at - 1] + name[at : at + 1] + name[at - 1] + name[at + 1 :],
        ]
    )


def function(name: str, parameters: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"ran": ran}
    exec(f"def {name}({parameters}):\n    ran.append('{name}')\n    return 1", namespace)
    made: Callable[..., Any] = namespace[name]
    return made


class Drawn(NamedTuple):
    """A program with one mistake in it: what it does, a name that the answer must hold, and a hint it should hold."""

    act: Callable[[], Any]
    named: str
    hint: str | None = None


def chain(pick: random.Random, count: int) -> tuple[list[Any], list[str]]:
    """Sound nodes in a row: of the first name, each makes the next."""
    names = pick.sample(NAMES, count + 1)
    made = [node(function(f"make_{new}", old), output_name=new) for old, new in itertools.pairwise(names)]
    return made, names


def draw(pick: random.Random) -> Drawn:
    nodes, names = chain(pick, pick.randint(2, 5))
    first, final = names[0], names[-1]
    some = pick.choice(names[1:])
    wrap = pick.randint(0, 2)

    def pipeline(extra: list[Any] | None = None) -> Pipeline:
        found = nodes + (extra or [])
        pick.shuffle(found)
        made = Pipeline(nodes=found, name="inmost")
        for level in range(wrap):
            made = Pipeline(nodes=[made], name=f"around{level}")
        return made

    wrong = typo(pick, some)
    while wrong in names or not wrong.isidentifier():
        wrong = typo(pick, some)
    wrong_first = typo(pick, first)
    while wrong_first in names:
        wrong_first = typo(pick, first)
    lock = threading.Lock()
    grammar: list[Callable[[], Drawn]] = [
        lambda: Drawn(lambda: pipeline([node(function("back", final), output_name=first)]), "back"),
        lambda: Drawn(lambda: pipeline([node(function("selfish", "extra"), output_name="extra")]), "selfish"),
        lambda: Drawn(lambda: pipeline([node(function("again", first), output_name=some)]), some),
        lambda: Drawn(lambda: pipeline([pick.choice(nodes)]), names[1] if len(nodes) == 1 else ""),
        lambda: Drawn(lambda: pipeline().run({first: 1}, output_name=wrong), wrong, some),
        lambda: Drawn(lambda: pipeline().run({first: 1}, output_nodes=[final, wrong]), wrong, some),
        lambda: Drawn(lambda: pipeline().run({wrong_first: 1}), wrong_first, first),
        lambda: Drawn(lambda: pipeline().map([{first: 1, wrong: 2}]), wrong, some),
        lambda: Drawn(lambda: pipeline().map(inputs={first: [1]}, map_over=wrong_first), wrong_first, first),
        lambda: Drawn(lambda: pipeline().as_node(map_over=wrong_first), wrong_first, first),
        lambda: Drawn(lambda: pipeline().as_node(input_mapping={"other": wrong_first}), wrong_first, first),
        lambda: Drawn(lambda: pipeline().as_node(output_mapping={wrong: "other"}), wrong, some),
        lambda: Drawn(lambda: pipeline().run(), first),
        lambda: Drawn(lambda: pipeline().map([{}]), first),
        lambda: Drawn(lambda: pipeline().run({first: 1}, **{first: 2}), first),  # type: ignore[arg-type]
        lambda: Drawn(lambda: node(function("starred", f"{first}, *{some}_")), f"{some}_"),
        lambda: Drawn(lambda: pipeline([function("starred", f"**{some}_")]), f"{some}_"),
        lambda: Drawn(lambda: node(function("slashed", f"{some}, /")), some),
        lambda: Drawn(lambda: node(function("odd", first), output_name=f"{some}-{final}"), f"{some}-{final}"),
        lambda: Drawn(lambda: node(function("odd", first), output_name=f"../{some}"), f"../{some}"),
        lambda: Drawn(lambda: node(function("odd", first), output_name=pick.choice(["def", "None"])), "odd"),
        lambda: Drawn(lambda: node(function("odd", first), output_name=(some, some)), some),
        lambda: Drawn(lambda: node(function("odd", first), output_name=(some, None)), "None"),  # type: ignore[arg-type]
        lambda: Drawn(lambda: node(function("odd", first), output_name={some}), "odd"),  # type: ignore[call-overload]
        lambda: Drawn(lambda: node(function("odd", first), timeout=-pick.random()), "timeout"),
        lambda: Drawn(lambda: node(function("odd", first), retries=pick.random()), "retries"),  # type: ignore[call-overload]
        lambda: Drawn(lambda: pipeline([Pipeline(nodes=[node(function("again", first), output_name=some)])]), some),
        lambda: Drawn(lambda: pipeline([pick.choice([None, 3, "text", object, {}, lock, LocalBackend()])]), "inmost"),
        lambda: Drawn(lambda: Pipeline(nodes=pick.choice([None, 3, "text", {}, object]), name=some), some),  # type: ignore[list-item]
        lambda: Drawn(lambda: Pipeline(nodes=nodes, name=some, backend=pick.choice([3, "local", LocalBackend])), some),  # type: ignore[arg-type]
        lambda: Drawn(
            lambda: pipeline().map(
                inputs={first: [1] * 3, final: [1] * 2}, map_over=[first, final], output_nodes=[final]
            ),
            final,
        ),
        lambda: Drawn(lambda: pipeline().map(inputs={first: pick.choice(["ab", 3, None, {}])}, map_over=first), first),
        lambda: Drawn(lambda: pipeline().map(inputs={first: [1]}, map_over=[first, first]), first),
        lambda: Drawn(lambda: pipeline().map(inputs={first: [1]}, map_over=first, map_mode="zap"), "zap", "zip"),
        lambda: Drawn(lambda: pipeline().map(pick.choice(["ab", 3, {first: 1}, lock])), ""),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().map([{first: 1}, pick.choice([None, 3, [first], first])][1:]), "item 0"),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().map([{first: 1}], on_error="retur"), "retur", "return"),
        lambda: Drawn(lambda: pipeline().run(pick.choice([3, [first], first])), ""),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().run({3: 1, first: 1}), "3"),  # type: ignore[dict-item]
        lambda: Drawn(lambda: pipeline().run({first: 1}, output_nodes=pick.choice([some, 3])), ""),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().run({first: 1}, output_name=pick.choice([3, [some]])), ""),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().run({first: 1}, output_nodes=[[some]]), some),  # type: ignore[list-item]
        lambda: Drawn(lambda: pipeline().as_node(input_mapping={"not so": first}), "not so"),
        lambda: Drawn(lambda: pipeline().as_node(input_mapping={"a": first, "b": first}), first),
        lambda: Drawn(lambda: pipeline().as_node(input_mapping={"a": [first]}), first),  # type: ignore[dict-item]
        lambda: Drawn(lambda: pipeline().as_node(output_mapping={some: 3}), "3"),  # type: ignore[dict-item]
        lambda: Drawn(lambda: pipeline().as_node(output_mapping={final: names[1]}), names[1]),
        lambda: Drawn(lambda: pipeline().as_node(map_over=[first, 3]), "3"),  # type: ignore[list-item]
        lambda: Drawn(lambda: pipeline().as_node(map_over=3), "map_over"),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().map(inputs={first: [1]}, map_over=3), "map_over"),  # type: ignore[arg-type]
        lambda: Drawn(lambda: pipeline().as_node(name=3), "3"),  # type: ignore[arg-type]
        lambda: Drawn(lambda: LocalBackend(max_workers=pick.choice([0, -1, 1.5, "2", True])), "max_workers"),  # type: ignore[arg-type]
        lambda: Drawn(lambda: LocalBackend(node_execution="asyncc"), "asyncc", "async"),
        lambda: Drawn(lambda: LocalBackend(engine=pick.choice(["asinc", "sequentail"])), "'"),
        lambda: Drawn(lambda: LocalBackend(engine=pick.choice([3, Clusterwide, ["async"]])), "engine="),  # type: ignore[arg-type]
        lambda: Drawn(lambda: LocalBackend(engine=Clusterwide()), "clusterwide"),
        lambda: Drawn(lambda: LocalBackend(engine="async", map_execution=3), "3"),  # type: ignore[arg-type]
    ]
    return pick.choice(grammar)()


def refusal(seed: int) -> tuple[Drawn, Exception]:
    drawn = draw(random.Random(seed))
    try:
        drawn.act()
    except Exception as error:
        return drawn, error
    raise AssertionError(f"nothing was refused, '{drawn.named}' expected")


def check_refusal(drawn: Drawn, error: Exception) -> None:
    """Raised on purpose, by this package, with the offending name."""
    raised_in = traceback.extract_tb(error.__traceback__)[-1]
    assert isinstance(error, HypernodesError | TypeError | ValueError), repr(error)
    assert raised_in.filename.startswith(PACKAGE), f"{error!r} arose in {raised_in}"
    assert "raise" in str(raised_in.line), f"{error!r} was not meant"
    assert drawn.named in str(error), f"no '{drawn.named}' in: {error}"


def test_500_random_mistakes_are_refused_with_their_name_and_the_right_hint() -> None:
    first = int(os.environ.get("HYPERNODES_SEED", "0"))
    hints = hits = 0
    for seed in range(first, first + 500):
        try:
            drawn, error = refusal(seed)
            check_refusal(drawn, error)
        except AssertionError as found:
            found.add_note(f"this was the mistake of HYPERNODES_SEED={seed}")
            raise
        if drawn.hint is not None:
            hints += 1
            hits += f"did you mean '{drawn.hint}'" in str(error)
    assert not ran
    assert hits >= 0.95 * hints > 50, f"{hits} of {hints} hints were right"


def test_planted_bare_error_is_caught() -> None:
    def bare() -> Any:
        return search().graph.producers["txt"]

    with pytest.raises(KeyError) as caught:
        bare()
    with pytest.raises(AssertionError):
        check_refusal(Drawn(bare, "txt"), caught.value)
