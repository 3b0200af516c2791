"""What there is to draw of a pipeline, and what users are told who cannot draw it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypernodes import GraphError, LocalBackend, Pipeline, node
from hypernodes._diagram import diagram_of
from hypernodes._picture import Picture
from hypernodes._typetext import short
from hypernodes._whole import write_whole
from hypernodes.plugin import Diagram, DiagramCluster, DiagramNode
from hypernodes.testing import draw_case


@node(output_name="cleaned", retries=2, timeout=3.0)
def clean(text: str, strip: bool = True) -> str:
    """Take away what surrounds the text.

    And no more.
    """
    return text.strip() if strip else text


@node(output_name=("head", "tail"), cache=False)
def cut(cleaned: str) -> tuple[str, list[int]]:
    return cleaned[:1], [ord(char) for char in cleaned[1:]]


@node(output_name="size")
async def measure(cleaned: str, tail: list[int]) -> int:
    return len(tail)


@node(output_name="total")
def add(sizes: list[int]) -> int:
    return sum(sizes)


low = Pipeline([clean, cut], name="low", backend=LocalBackend(engine="sequential"))
middle = Pipeline([low, measure], name="middle")
each = middle.as_node(input_mapping={"texts": "text"}, output_mapping={"size": "sizes"}, map_over="texts", name="each")
top = Pipeline([each, add], name="top")


def named(diagram: Diagram) -> dict[str, DiagramNode]:
    return {" > ".join(each.path): each for each in diagram.nodes}


def arrows(diagram: Diagram) -> set[tuple[str, str, str, str]]:
    label = {node.id: node.label for node in diagram.nodes}
    return {(label[edge.source], label[edge.target], edge.name, edge.type) for edge in diagram.edges}


def test_every_input_and_node_is_a_box_with_its_options() -> None:
    boxes = named(diagram_of(Pipeline([clean, cut, measure], name="flat")))
    assert list(boxes) == ["flat > text", "flat > strip", "flat > clean", "flat > cut", "flat > measure"]
    assert [boxes[f"flat > {name}"].required for name in ("text", "strip")] == [True, False]
    cleaning = boxes["flat > clean"]
    assert (cleaning.kind, cleaning.outputs, cleaning.results) == ("node", (("cleaned", "str"),), ())
    assert (cleaning.retries, cleaning.timeout, cleaning.cache, cleaning.is_async) == (2, 3.0, True, False)
    assert cleaning.doc == "Take away what surrounds the text."
    assert not boxes["flat > cut"].cache
    assert boxes["flat > measure"].is_async


def test_an_output_that_no_box_reads_is_a_result() -> None:
    boxes = named(diagram_of(Pipeline([clean, cut, measure], name="flat")))
    assert boxes["flat > cut"].results == ("head",)
    assert boxes["flat > measure"].results == ("size",)


def test_every_value_is_an_arrow_with_its_type() -> None:
    assert arrows(diagram_of(Pipeline([clean, cut, measure], name="flat"))) == {
        ("text", "clean", "text", "str"),
        ("strip", "clean", "strip", "bool"),
        ("clean", "cut", "cleaned", "str"),
        ("clean", "measure", "cleaned", "str"),
        ("cut", "measure", "tail", "list[int]"),
    }


def test_depth_one_shows_a_nested_pipeline_as_one_box() -> None:
    diagram = diagram_of(top)
    assert [cluster.label for cluster in diagram.clusters] == ["top"]
    box = named(diagram)["top > each"]
    assert (box.kind, box.size, box.map_over, box.map_mode) == ("nested", 2, ("texts",), "zip")
    assert (box.place, box.inherited) == ("local:sequential", True)
    assert arrows(diagram) == {
        ("texts", "each", "texts", "list[str]"),
        ("strip", "each", "strip", "bool"),
        ("each", "add", "sizes", "list[int]"),
    }


@pytest.mark.parametrize(("depth", "clusters"), [(2, ["top", "each"]), (3, ["top", "each", "low"]), (None, 3)])
def test_each_further_level_opens_the_pipelines_nested_there(depth: int | None, clusters: list[str] | int) -> None:
    diagram = diagram_of(top, depth)
    found = [cluster.label for cluster in diagram.clusters]
    assert found == clusters if isinstance(clusters, list) else len(found) == clusters
    ids = {cluster.id for cluster in diagram.clusters}
    assert all(cluster.parent in ids for cluster in diagram.clusters[1:])
    assert {box.cluster for box in diagram.nodes} <= ids


def test_an_arrow_that_crosses_borders_leads_from_maker_to_reader() -> None:
    diagram = diagram_of(top, None)
    assert arrows(diagram) == {
        ("texts", "clean", "texts", "list[str]"),
        ("strip", "clean", "strip", "bool"),
        ("clean", "cut", "cleaned", "str"),
        ("clean", "measure", "cleaned", "str"),
        ("cut", "measure", "tail", "list[int]"),
        ("measure", "add", "sizes", "list[int]"),
    }
    mapped = {edge.name for edge in diagram.edges if edge.mapped}
    assert mapped == {"texts", "sizes"}, "a map takes these lists apart, or puts them together"


def test_a_cluster_says_its_place_and_who_chose_it() -> None:
    outer = Pipeline([middle], name="outer", backend=LocalBackend(engine="async"))
    places = [
        (each.label, each.place, each.inherited, each.chosen_by) for each in diagram_of(outer, None).clusters
    ]  # fmt: skip
    assert places == [
        ("outer", "local:async", False, "outer"),
        ("middle", "local:async", True, "outer"),
        ("low", "local:sequential", False, "low"),
    ]
    [default] = diagram_of(Pipeline([clean], name="alone")).clusters
    assert (default.place, default.inherited, default.chosen_by) == ("local:sequential", True, "")


def test_one_name_on_two_levels_stays_two_boxes() -> None:
    inner = Pipeline([clean, cut], name="clean")
    outer = Pipeline([inner.as_node(output_mapping={"cleaned": "once", "head": "h", "tail": "t"}), clean], name="clean")
    diagram = diagram_of(outer, None)
    paths = [box.path for box in diagram.nodes if box.kind == "node"]
    assert paths == [("clean", "clean", "clean"), ("clean", "clean", "cut"), ("clean", "clean")]
    assert len({box.id for box in diagram.nodes}) == len(diagram.nodes)


def test_an_input_that_two_read_is_one_box_with_two_arrows() -> None:
    @node(output_name="other")
    def again(text: str) -> str:
        return text

    diagram = diagram_of(Pipeline([low, again], name="two"), None)
    [box] = [box for box in diagram.nodes if box.label == "text"]
    assert [edge.target for edge in diagram.edges if edge.source == box.id] == ["n2", "n4"]


def test_a_thousand_levels_are_drawn_or_not_as_asked() -> None:
    deep = Pipeline([clean], name="level")
    for _ in range(999):
        deep = Pipeline([deep], name="level")
    whole = diagram_of(deep, None)
    assert len(whole.clusters) == 1000
    assert arrows(whole) == {("text", "clean", "text", "str"), ("strip", "clean", "strip", "bool")}
    assert len(diagram_of(deep).nodes) == 3


def test_ten_thousand_nodes_are_boxes() -> None:
    def step(value: int) -> int:
        return value

    nodes = [
        node(step, output_name=f"v{at}", name=f"step{at}") for at in range(10_000)
    ]  # fmt: skip
    diagram = diagram_of(Pipeline(nodes, name="many"))
    assert (len(diagram.nodes), len(diagram.edges)) == (10_001, 10_000)


@pytest.mark.parametrize("seed", range(60))
def test_of_random_pipelines_everything_is_drawn_once(seed: int) -> None:
    diagram = diagram_of(draw_case(random.Random(seed).randint).build(), None)
    boxes = {box.id: place for place, box in enumerate(diagram.nodes)}
    assert len(boxes) == len(diagram.nodes)
    assert len({(box.kind, box.path) for box in diagram.nodes}) == len(diagram.nodes)
    assert all(boxes[edge.source] < boxes[edge.target] for edge in diagram.edges), "a box comes after what it reads"
    read = {(edge.target, edge.parameter) for edge in diagram.edges}
    assert len(read) == len(diagram.edges), "a parameter has one value"
    json.dumps(diagram.to_dict())


@pytest.mark.parametrize("depth", [0, -1, 1.5, "all", True])
def test_an_impossible_depth_is_refused_with_what_is_possible(depth: Any) -> None:
    with pytest.raises(GraphError) as caught:
        top.visualize(depth)
    assert str(caught.value) == (
        f"pipeline 'top': depth={depth!r}; give a whole number, 1 or more, or None to show every level"
    )


def test_an_unknown_orientation_is_refused_with_a_guess() -> None:
    with pytest.raises(GraphError, match=r"^pipeline 'top': orient='RL'.*; give 'TB' \(top to bottom\) or 'LR'"):
        top.visualize(orient="RL")


def test_a_filename_without_a_suffix_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        top.visualize(filename=tmp_path / "picture")
    assert "says no form; end it with one of '.svg', '.png', '.dot', '.mmd', '.html'" in str(caught.value)
    assert not list(tmp_path.iterdir())


# --- types as text ---


def hints(a: int, b: list[str], c: int | None, d: Path, e: dict[str, list[Path]], f: Callable[[int], str]) -> None:
    raise AssertionError("only its annotations are read")


hints.__annotations__ |= {"g": "pandas.DataFrame", "h": LocalBackend, "i": "x" * 100}


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "a": "int", "b": "list[str]", "c": "int | None", "d": "Path", "e": "dict[str, list[Path]]",
        "f": "Callable[[int], str]", "g": "DataFrame", "h": "LocalBackend", "i": "x" * 39 + "…",
    }.items(),
)  # fmt: skip
def test_a_type_is_written_as_people_write_it(name: str, text: str) -> None:
    assert short(hints.__annotations__[name]) == text


Pair = tuple[int, list[str]]


@pytest.mark.parametrize("hint", ["tuple[int, list[str]]", "typing.Tuple[int, list[str]]", Pair])
def test_each_output_of_several_has_its_own_type(hint: Any) -> None:
    def both(x: int) -> Any:
        return x, []

    both.__annotations__["return"] = hint
    [_, box] = diagram_of(Pipeline([node(both, output_name=("a", "b"))], name="pair")).nodes
    assert box.outputs == (("a", "int"), ("b", "list[str]"))


@pytest.mark.parametrize("hint", ["tuple[int, ...]", "tuple[int, str, str]", "list[int, str]", "not python(", Any])
def test_outputs_of_which_nothing_is_said_have_no_type(hint: Any) -> None:
    def both(x: int) -> Any:
        return x, []

    both.__annotations__["return"] = hint
    [_, box] = diagram_of(Pipeline([node(both, output_name=("a", "b"))], name="pair", check_types=False)).nodes
    assert box.outputs == (("a", ""), ("b", ""))


def test_a_hint_that_cannot_be_shown_stops_no_picture() -> None:
    class Hint:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    def reads(x: Any) -> Any:
        return x

    reads.__annotations__ = {"x": Hint(), "return": Hint()}
    diagram = diagram_of(Pipeline([node(reads, output_name="y")], name="odd"))
    assert [edge.type for edge in diagram.edges] == [""]


# --- who draws ---


def test_without_a_plugin_that_draws_one_sentence_says_what_to_install(place: Any) -> None:
    said = place.python(
        """
        answer = []
        from hypernodes import Pipeline, PluginLoadError, node

        @node(output_name="y")
        def double(x: int) -> int:
            return 2 * x

        pipeline = Pipeline([double], name="twice")
        assert pipeline.visualize().diagram.nodes[1].label == "double"
        assert list(pipeline._repr_mimebundle_()) == ["text/plain"]
        for look in (lambda: pipeline.visualize().svg, lambda: pipeline.visualize(filename="twice.svg")):
            try:
                look()
            except PluginLoadError as error:
                answer.append(str(error))
        """
    )
    sentence = "pipeline 'twice' cannot be drawn: no installed plugin draws pictures; "
    assert said == [sentence + 'pip install "hypernodes[visualize]" brings one'] * 2


PAINTER = """
    @hookimpl
    def draw(diagram, form, orient):
        if form == "svg":
            raise ZeroDivisionError("no canvas")
        return f"{diagram.name} {len(diagram.nodes)} {orient}" if form == "txt" else None
"""


def test_a_plugin_draws_the_forms_it_knows_and_is_named_when_it_fails(place: Any) -> None:
    place.plugin("paint", PAINTER)
    drawn, failed, unknown = place.python(
        """
        from pathlib import Path
        from hypernodes import Pipeline, PluginError, PluginLoadError, node

        pipeline = Pipeline([node(lambda x: x, output_name="y", name="f")], name="p")
        answer = []
        answer.append(pipeline.visualize(filename="p.txt", orient="LR").draw("txt") + Path("p.txt").read_text())
        try:
            pipeline.visualize().svg
        except PluginLoadError:
            raise
        except PluginError as error:
            answer.append(str(error))
        try:
            pipeline.visualize().save("p.htm")
        except PluginLoadError as error:
            answer.append(str(error))
        """
    )
    assert drawn == "p 2 LRp 2 LR"
    assert "paint" in failed
    assert failed.endswith("could not draw pipeline 'p' as 'svg': ZeroDivisionError: no canvas")
    assert unknown.startswith("pipeline 'p' cannot be drawn as 'html'")


def test_a_picture_says_what_it_holds() -> None:
    assert repr(top.visualize()) == "<picture of pipeline 'top': 4 boxes, 3 arrows>"
    assert isinstance(Picture(diagram_of(top)).diagram.clusters[0], DiagramCluster)


# --- whole files ---


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 100 + ".svg")
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "p.svg", b"")
    assert caught.value.filename == str(tmp_path / "none" / "p.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder.svg", b"")
    assert os.listdir(tmp_path) == ["folder.svg"]
