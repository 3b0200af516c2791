"""Every box and every arrow is in every form of a picture, and nothing a user wrote becomes markup."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hypernodes import LocalBackend, Pipeline, PluginLoadError, node
from hypernodes.plugin import Diagram, DiagramCluster, DiagramEdge, DiagramNode
from hypernodes.testing import draw_case
from hypernodes_visualize._draw import draw
from hypernodes_visualize._graphviz import dot_layout
from hypernodes_visualize._layout import Box, Layout, lay_out
from hypernodes_visualize._levels import layered

SVG = "{http://www.w3.org/2000/svg}"
SLACK = 0.6  # Graphviz rounds to half a point


@node(output_name="cleaned", retries=1)
def clean(text: str) -> str:
    """Take away what surrounds the text."""
    return text.strip()


@node(output_name=("head", "tail"))
def cut(cleaned: str, at: int = 1) -> tuple[str, str]:
    return cleaned[:at], cleaned[at:]


@node(output_name="size")
def measure(head: str, cleaned: str) -> int:
    return len(head + cleaned)


@node(output_name="total")
def add(sizes: list[int]) -> int:
    return sum(sizes)


low = Pipeline([clean, cut], name="low", backend=LocalBackend(engine="async"))
middle = Pipeline([low, measure], name="middle")
each = middle.as_node(input_mapping={"texts": "text"}, output_mapping={"size": "sizes"}, map_over="texts", name="each")
top = Pipeline([each, add], name="top")


def random_diagram(seed: int, depth: int | None = None) -> Diagram:
    return draw_case(random.Random(seed).randint).build().visualize(depth).diagram


def drawn(diagram: Diagram, form: str, orient: str = "TB") -> str:
    found = draw(diagram, form, orient)
    assert isinstance(found, str)
    return found


def chain(count: int) -> Pipeline:
    def step(value: int) -> int:
        return value

    nodes = [node(step, output_name="v0", name="s0")]
    for at in range(1, count):
        inner = Pipeline([node(step, output_name="out", name="step")], name=f"p{at}")
        nodes.append(inner.as_node(input_mapping={f"v{at - 1}": "value"}, output_mapping={"out": f"v{at}"}))
    return Pipeline(nodes, name="chain")


# --- everything is there ---


def in_svg(text: str, diagram: Diagram) -> tuple[set[str], set[str], set[str]]:
    """The ids of boxes and clusters in an SVG, and the arrows."""
    root = ElementTree.fromstring(text)
    groups = list(root.iter(f"{SVG}g"))
    boxes = {one.get("data-id", "") for one in groups if one.get("class", "").startswith("node")}
    clusters = {one.get("data-id", "") for one in groups if one.get("class", "").startswith("cluster")}
    return boxes, clusters, {pair for one in groups for pair in one.get("data-edges", "").split()}


def everything(diagram: Diagram) -> tuple[set[str], set[str], set[str]]:
    return (
        {box.id for box in diagram.nodes},
        {cluster.id for cluster in diagram.clusters},
        {f"{edge.source}-{edge.target}" for edge in diagram.edges},
    )


@pytest.mark.parametrize("orient", ["TB", "LR"])
@pytest.mark.parametrize("depth", [1, 2, None])
def test_every_box_cluster_and_arrow_is_in_the_svg(depth: int | None, orient: str, layout: str) -> None:
    diagram = top.visualize(depth).diagram
    text = drawn(diagram, "svg", orient)
    assert in_svg(text, diagram) == everything(diagram)
    words = "".join(ElementTree.fromstring(text).itertext())
    for box in diagram.nodes:
        assert box.label in words
    for edge in diagram.edges:
        assert edge.name in words
        assert edge.type in words
    for cluster in diagram.clusters:
        assert cluster.place in words


@pytest.mark.slow
def test_every_box_and_arrow_of_random_pipelines_is_in_each_form(layout: str) -> None:
    for seed in range(25):
        diagram = random_diagram(seed)
        boxes, clusters, arrows = everything(diagram)
        assert in_svg(drawn(diagram, "svg"), diagram) == (boxes, clusters, arrows)
        dot = drawn(diagram, "dot")
        assert set(re.findall(r'^ +"(n\d+)" \[label', dot, re.MULTILINE)) == boxes
        assert {"-".join(pair) for pair in re.findall(r'^ +"(n\d+)" -> "(n\d+)"', dot, re.MULTILINE)} == arrows
        assert set(re.findall(r'subgraph "cluster_(c\d+)"', dot)) == clusters
        mermaid = drawn(diagram, "mmd")
        assert set(re.findall(r"^ +(n\d+)[(\[]", mermaid, re.MULTILINE)) == boxes
        pairs = re.findall(r'^ +(n\d+) (?:-->|==>)(?:\|"[^"]*"\|)? (n\d+)$', mermaid, re.MULTILINE)
        assert {"-".join(pair) for pair in pairs} == arrows
        assert len(pairs) == len(diagram.edges)
        assert set(re.findall(r"^ +subgraph (c\d+)\[", mermaid, re.MULTILINE)) == clusters
        assert len(re.findall(r"^ +end$", mermaid, re.MULTILINE)) == len(clusters)


def test_mermaid_says_what_flows_and_where_it_runs() -> None:
    assert (
        top.visualize(2).mermaid
        == """\
flowchart TB
  subgraph c0["top · local:sequential (default)"]
    n0(["texts: list[str]"])
    n1(["at: int"])
    n4["add<br/>→ total: int"]
    subgraph c1["each · local:sequential (inherited) · for each of texts"]
      n2[["low<br/>2 nodes<br/>local:async<br/>→ tail: str"]]
      n3["measure"]
    end
  end
  n0 ==> n2
  n1 --> n2
  n2 -->|"head: str"| n3
  n2 -->|"cleaned: str"| n3
  n3 ==>|"sizes: list[int]"| n4
"""
    )


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [("svg", "<svg "), ("dot", "digraph"), ("gv", "digraph"), ("mmd", "flowchart"), ("html", "<!DOCTYPE html>")],
)
def test_the_suffix_says_the_form(suffix: str, begins: str, tmp_path: Path) -> None:
    file = tmp_path / f"top.{suffix}"
    picture = top.visualize(filename=file)
    assert file.read_text(encoding="utf-8").startswith(begins)
    assert [one.name for one in tmp_path.iterdir()] == [file.name]
    assert picture.svg.startswith("<svg ")


def test_an_unknown_form_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(PluginLoadError, match=r"cannot be drawn as 'jpg'.*'svg', 'png', 'dot', 'mmd', 'html'"):
        top.visualize(filename=tmp_path / "top.jpg")
    assert not list(tmp_path.iterdir())


def test_png_is_drawn_by_graphviz(tmp_path: Path) -> None:
    if shutil.which("dot") is None:
        pytest.skip("the program 'dot' of Graphviz is not installed")
    top.visualize(None, filename=tmp_path / "top.png")
    assert (tmp_path / "top.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.usefixtures("without_dot")
def test_without_graphviz_png_is_refused_with_what_to_install_or_save(tmp_path: Path) -> None:
    with pytest.raises(PluginLoadError, match=r"needs the program 'dot'.*'apt install graphviz'.*or save '\.svg'"):
        top.visualize(filename=tmp_path / "top.png")


def test_a_graphviz_that_fails_at_png_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dot").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginLoadError, match=r"'dot' of Graphviz failed.*for 4 boxes; show fewer with depth="):
        top.visualize(filename=tmp_path / "top.png")


def test_a_graphviz_that_never_ends_is_stopped_and_our_layout_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dot").write_text("#!/bin/sh\nwhile :; do :; done\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("hypernodes_visualize._graphviz._SECONDS", 0.2)
    diagram = top.visualize(None).diagram
    assert in_svg(drawn(diagram, "svg"), diagram) == everything(diagram)


def test_a_graphviz_that_says_nonsense_or_fails_gives_way_to_our_layout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    diagram = top.visualize(None).diagram
    dot = tmp_path / "dot"
    for answer in ('echo \'{"bb": "0,0"}\'', "echo no", "exit 3"):
        dot.write_text(f"#!/bin/sh\n{answer}\n")
        dot.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert dot_layout(diagram, "TB") is None
        assert in_svg(drawn(diagram, "svg"), diagram) == everything(diagram)


def test_a_notebook_shows_pipelines_and_pictures() -> None:
    for shown in (top._repr_mimebundle_(), top.visualize()._repr_mimebundle_()):
        assert list(shown) == ["text/plain", "image/svg+xml"]
        assert ElementTree.fromstring(shown["image/svg+xml"]).tag == f"{SVG}svg"


# --- the layout ---


def apart(one: Box, other: Box) -> bool:
    return (
        one.x + one.width <= other.x + SLACK
        or other.x + other.width <= one.x + SLACK
        or one.y + one.height <= other.y + SLACK
        or other.y + other.height <= one.y + SLACK
    )


def holds(outer: Box, inner: Box) -> bool:
    return (
        outer.x <= inner.x + SLACK
        and outer.y <= inner.y + SLACK
        and inner.x + inner.width <= outer.x + outer.width + SLACK
        and inner.y + inner.height <= outer.y + outer.height + SLACK
    )


def check_places(diagram: Diagram, found: Layout) -> None:
    assert set(found.nodes) == {box.id for box in diagram.nodes}
    assert set(found.clusters) == {cluster.id for cluster in diagram.clusters}
    inside: dict[str, list[Box]] = {}
    for box in diagram.nodes:
        inside.setdefault(box.cluster, []).append(found.nodes[box.id])
    for cluster in diagram.clusters:
        inside.setdefault(cluster.parent, []).append(found.clusters[cluster.id])
    sheet = Box(0, 0, found.width, found.height)
    for cluster_id, boxes in inside.items():
        around = found.clusters[cluster_id] if cluster_id else sheet
        for box in boxes:
            assert holds(around, box), (cluster_id, around, box)
        for one, other in combinations(boxes, 2):
            assert apart(one, other), (cluster_id, one, other)


@pytest.mark.slow
@pytest.mark.parametrize("orient", ["TB", "LR"])
def test_our_layout_overlaps_nothing_and_clusters_hold_their_own(orient: str) -> None:
    for seed in range(150):
        diagram = random_diagram(seed)
        check_places(diagram, layered(diagram, orient))


@pytest.mark.slow
@pytest.mark.parametrize("orient", ["TB", "LR"])
def test_the_layout_of_graphviz_overlaps_nothing_and_clusters_hold_their_own(orient: str) -> None:
    if shutil.which("dot") is None:
        pytest.skip("the program 'dot' of Graphviz is not installed")
    for seed in range(25):
        diagram = random_diagram(seed)
        found = dot_layout(diagram, orient)
        assert found is not None
        check_places(diagram, found)


@pytest.mark.parametrize("pipeline", [top, low, Pipeline([low, middle.as_node(name="again", output_mapping={
    name: f"{name}2" for name in ("cleaned", "head", "tail", "size")})], name="both")])  # fmt: skip
def test_arrows_go_down(pipeline: Pipeline, layout: str) -> None:
    diagram = pipeline.visualize(None).diagram
    places = lay_out(diagram, "TB").nodes
    for edge in diagram.edges:
        assert places[edge.source].y < places[edge.target].y, edge


@pytest.mark.usefixtures("without_dot")
def test_wide_and_long_and_deep_pipelines_are_laid_out() -> None:
    def step(value: int) -> int:
        return value

    wide = Pipeline([node(step, output_name=f"v{at}", name=f"s{at}") for at in range(60)], name="wide")
    deep = Pipeline([clean], name="deep")
    for _ in range(299):
        deep = Pipeline([deep], name="deep")
    for pipeline in (wide, chain(150), deep):
        diagram = pipeline.visualize(None).diagram
        check_places(diagram, lay_out(diagram, "TB"))


# --- what users wrote ---

PARTS = (
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><svg onload=alert(1)>", "]]>", "<!--"),
    *("' onmouseover='alert(1)", "&lt;b&gt;", "&#60;i&#62;", "</style><script>", "</script>", "\\N\\G\\l", '\\"'),
    *('"]; click n0 "javascript:alert(1)"', "`<b>`", "#quot;", "|x|", "end\nsubgraph", "\u202e", "\x00\x08\x1b[31m"),
    *("\ud800", "\uffff", "\u2028", "url(http://x.test/)", "{{x}}", "${x}", "%%{", "<![CDATA[", "é漢字🙂"),
)
TAGS = {"svg", "style", "rect", "g", "title", "path", "text", "html", "head", "meta", "body"}
CALM = {
    *(
        "xmlns",
        "class",
        "viewbox",
        "width",
        "height",
        "role",
        "aria-label",
        "rx",
        "data-id",
        "data-edges",
        "x",
        "y",
        "d",
    ),
    *("d", "font-size", "text-anchor", "lang", "charset", "http-equiv", "content", "name"),
}


def payload(seed: int) -> str:
    pick = random.Random(seed)
    return "".join(pick.choices(PARTS, k=pick.randint(1, 4)))


def hostile(say: Callable[[], str]) -> Diagram:
    """A diagram all of whose texts are from `say`, whatever a pipeline would refuse of it."""
    clusters = (
        DiagramCluster("c0", say(), ("c0", say()), "", say(), say(), False),
        DiagramCluster("c1", say(), ("c0", say(), "c1"), "c0", say(), "", True, (say(), say()), "product"),
    )
    clusters = (
        clusters[0],
        DiagramCluster("c1", say(), (*clusters[0].path, say()), "c0", say(), "", True, (say(),), "zip"),
    )
    nodes = (
        DiagramNode("n0", "input", name := say(), ("p", name), "c0", ((name, say()),), required=False),
        DiagramNode("n1", "node", say(), ("p", say()), "c0", ((made := say(), say()),), (), say(), timeout=1.5),
        DiagramNode("n2", "nested", say(), ("p", say()), "c1", ((last := say(), say()),), (last,), say(),
                    place=say(), map_over=(say(),), map_mode="zip", size=1),
    )  # fmt: skip
    edges = (DiagramEdge("n0", "n1", name, say(), say()), DiagramEdge("n1", "n2", made, say(), say(), mapped=True))
    return Diagram(say(), nodes, edges, clusters)


class Markup(HTMLParser):
    """What a browser would make of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attributes)

    handle_startendtag = handle_starttag


@pytest.mark.slow
@pytest.mark.usefixtures("without_dot")
def test_of_500_payloads_none_becomes_markup() -> None:
    plain = hostile(lambda: "plain")
    shape = [re.sub(r'"[^"]*"', '""', line) for line in drawn(plain, "mmd").splitlines()]
    for seed in range(500):
        diagram = hostile(lambda seed=seed: payload(seed))  # type: ignore[misc]
        for form in ("svg", "html"):
            text = drawn(diagram, form)
            text.encode()
            found = Markup(text)
            assert found.tags <= TAGS, (seed, found.tags - TAGS)
            assert found.attributes <= CALM, (seed, found.attributes - CALM)
        tree = ElementTree.fromstring(drawn(diagram, "svg"))
        assert {one.tag.removeprefix(SVG) for one in tree.iter()} <= TAGS
        lines = drawn(diagram, "mmd").splitlines()
        assert [re.sub(r'"[^"]*"', '""', line) for line in lines] == shape, seed
        assert not re.search(r"<(?!br/>)|`|%%", "\n".join(lines)), seed


@pytest.mark.slow
def test_graphviz_reads_hostile_texts_as_texts() -> None:
    program = shutil.which("dot")
    if program is None:
        pytest.skip("the program 'dot' of Graphviz is not installed")
    for seed in range(0, 500, 12):
        diagram = hostile(lambda seed=seed: payload(seed))  # type: ignore[misc]
        source = drawn(diagram, "dot")
        done = subprocess.run([program, "-Tsvg"], input=source.encode(), capture_output=True, check=True, timeout=60)
        tree = ElementTree.fromstring(done.stdout)
        kinds = [one.get("class") for one in tree.iter(f"{SVG}g")]
        assert (kinds.count("node"), kinds.count("edge"), kinds.count("cluster")) == (3, 2, 2), seed
        assert dot_layout(diagram, "TB") is not None


def test_a_picture_asks_for_nothing_outside_itself() -> None:
    for form in ("svg", "html"):
        text = drawn(top.visualize(None).diagram, form).replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//|@import|url\(|src=|href", text)


def test_hostile_docstrings_and_hints_of_a_real_pipeline_are_escaped() -> None:
    def evil(x: Any) -> Any:
        return x

    evil.__doc__ = "<script>alert(1)</script>"
    evil.__annotations__ = {"x": "<script>x</script>", "return": "</svg><script>"}
    pipeline = Pipeline([node(evil, output_name="y")], name="evil")
    for text in (pipeline.visualize().svg, drawn(pipeline.visualize().diagram, "html")):
        assert "<script" not in text
        assert "&lt;script&gt;alert(1)" in text
