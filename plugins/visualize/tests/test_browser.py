"""Reports and pictures in a real browser: they render, ask for nothing, and answer clicks."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hypernodes import LocalBackend, Pipeline, ReportCallback, node


def _driver() -> ModuleType:
    """The module beside this one; tests are imported one by one, without their folder."""
    spec = importlib.util.spec_from_file_location("hypernodes_visualize_browser", Path(__file__).parent / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


browser = _driver()
PROGRAM = browser.executable()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=f"no browser is installed: none of {', '.join(browser.NAMES)}"),
]


@node(output_name="cleaned")
def clean(text: str) -> str:
    """Take away <b>what</b> surrounds the text."""
    if text == "bad":
        raise ValueError("<img src=x onerror=document.title='owned'>")
    return text.strip()


@node(output_name="size")
def measure(cleaned: str) -> int:
    return len(cleaned)


@node(output_name="double")
def double(size: int) -> int:
    return 2 * size


inner = Pipeline([clean, measure], name="inner", backend=LocalBackend(engine="async"))
encode = Pipeline([inner, double], name="encode")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.started(PROGRAM, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(params=["light", "dark"])
def dark(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "dark")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    pipeline = encode.with_options(callbacks=[ReportCallback(file, messages=True)])
    pipeline.map([{"text": "bad" if at == 3 else f" {at} "} for at in range(8)], on_error="return")
    return file


def opened(page: Any, file: Path, dark: bool = False) -> None:
    page.requests.clear()
    page.complaints.clear()
    page.open(file, dark=dark)


def quiet(page: Any, file: Path) -> None:
    assert page.complaints == []
    assert page.requests == [file.as_uri()], "the page itself, and nothing else"


def text_of(page: Any, selector: str) -> str:
    return str(page.run(f"document.querySelector({selector!r}).innerText"))


def details(page: Any) -> dict[str, str]:
    return dict(
        page.run(
            "[...document.querySelectorAll('#details dt')]"
            ".map((e) => [e.textContent, e.nextElementSibling.textContent])"
        )
    )


def chosen_boxes(page: Any) -> list[str]:
    return list(page.run("[...document.querySelectorAll('svg .node.chosen')].map((e) => e.textContent)"))


def colours(page: Any) -> list[int]:
    """Of each lane of the timeline, how many of its pixels are strongly coloured."""
    return list(
        page.run(
            """(() => {
              const canvas = document.getElementById("timeline"), ratio = devicePixelRatio;
              const data = JSON.parse(document.getElementById("data").textContent);
              // A copy, since the browser complains of pages that read often what they drew.
              const copy = Object.assign(document.createElement("canvas"), {
                width: canvas.width, height: canvas.height });
              const pen = copy.getContext("2d", { willReadFrequently: true });
              pen.drawImage(canvas, 0, 0);
              return data.lanes.map((_, lane) => {
                const left = Math.min(220, canvas.width / ratio * 0.25) * ratio + 1;
                const row = pen.getImageData(left, (24 + lane * 22 + 8) * ratio, canvas.width - left, 1).data;
                let count = 0;
                for (let at = 0; at < row.length; at += 4) {
                  const part = [row[at], row[at + 1], row[at + 2]];
                  count += Math.max(...part) - Math.min(...part) > 60;
                }
                return count;
              });
            })()"""
        )
    )


def middle_of_bar(page: Any, name: str) -> tuple[float, float]:
    """Where on the screen a bar of this node is, that no other bar is close to."""
    page.box("#timeline")
    x, y = page.run(
        """(() => {
          const data = JSON.parse(document.getElementById("data").textContent), bars = data.bars;
          const canvas = document.getElementById("timeline").getBoundingClientRect();
          const room = Math.min(220, canvas.width * 0.25);
          const at = bars.node.findIndex((node) => data.nodes[node].path.at(-1) === NAME);
          const middle = bars.start[at] + bars.took[at] / 2;
          const x = canvas.x + room + middle / data.span * (canvas.width - room);
          return [x, canvas.y + 24 + bars.lane[at] * 22 + 11];
        })()""".replace("NAME", repr(name))
    )
    return x, y


@node(output_name="slept")
def sleep(seconds: float) -> float:
    import time

    time.sleep(seconds)
    return seconds


@node(output_name="woken")
def wake(slept: float) -> float:
    import time

    time.sleep(slept)
    return slept


@pytest.fixture
def long_bars(tmp_path: Path) -> Path:
    """A report of calls that are wide enough on the screen to be clicked: half a timeline each."""
    file = tmp_path / "long.html"
    inner = Pipeline([sleep], name="inner")
    Pipeline([inner, wake], name="outer", callbacks=[ReportCallback(file)]).run(seconds=0.05)
    return file


def test_a_report_renders_and_asks_for_nothing(page: Any, report: Path, dark: bool, layout: str) -> None:
    opened(page, report, dark)
    assert text_of(page, "h1").startswith("encode")
    assert page.run("document.querySelectorAll('#drawing svg .node').length") == 4
    assert all(count > 0 for count in colours(page)), "every lane shows bars"
    ground = page.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (sum(ground) < 200) is dark
    fill = page.run("getComputedStyle(document.querySelector('svg .node .box')).fill.match(/[0-9]+/g).map(Number)")
    assert (sum(fill) < 200) is dark, "the policy lets the picture's own style in"
    assert page.run("document.title") == "encode: finished"
    assert "onerror" in text_of(page, "#failures")
    assert page.run("document.querySelectorAll('img, b, iframe').length") == 0
    quiet(page, report)


def test_a_click_on_a_bar_shows_its_node_and_marks_it_in_the_picture(page: Any, long_bars: Path, dark: bool) -> None:
    opened(page, long_bars, dark)
    page.click(*middle_of_bar(page, "sleep"))
    told = details(page)
    assert told["node"] == "outer > inner > sleep"
    assert told["status"] == "ok"
    assert told["place"] == "local:sequential"
    assert told["calls"] == "1"
    [box] = chosen_boxes(page)
    assert "sleep" in box
    assert page.run("[...document.querySelectorAll('tr.chosen th')].map((e) => e.textContent)") == [told["node"]]
    page.click(*middle_of_bar(page, "wake"))
    assert details(page)["node"] == "outer > wake"
    assert len(chosen_boxes(page)) == 1
    quiet(page, long_bars)


def test_a_click_in_the_picture_marks_its_bars(page: Any, long_bars: Path, dark: bool) -> None:
    opened(page, long_bars, dark)
    [before] = colours(page)
    box_id = page.run(
        "[...document.querySelectorAll('svg .node')].find((e) => e.textContent.includes('wake')).dataset.id"
    )
    box = page.box(f'svg .node[data-id="{box_id}"]')
    page.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert details(page)["node"] == "outer > wake"
    [after] = colours(page)
    assert 0.2 * before < after < 0.8 * before, "the bars of other nodes are pale"
    assert len(chosen_boxes(page)) == 1
    quiet(page, long_bars)


def test_a_click_on_a_nested_pipeline_marks_all_that_is_in_it(page: Any, report: Path) -> None:
    opened(page, report)
    frame = page.box('svg .cluster[data-id="c1"] .frame')
    page.click(frame["x"] + 20, frame["y"] + 15)  # on its name
    assert details(page) == {"nodes": "2"}
    assert len(chosen_boxes(page)) == 2
    quiet(page, report)


def test_a_click_on_a_row_of_the_table_shows_its_node(page: Any, report: Path) -> None:
    opened(page, report)
    row = page.box("tr[data-node]")
    page.click(row["x"] + 10, row["y"] + row["height"] / 2)
    assert details(page)["node"] == text_of(page, "tr.chosen th")
    quiet(page, report)


def test_pointing_at_a_bar_tells_where_it_ran(page: Any, long_bars: Path) -> None:
    opened(page, long_bars)
    page.move(*middle_of_bar(page, "sleep"))
    said = text_of(page, "#tip")
    assert "outer > inner > sleep" in said
    assert "local:sequential" in said
    quiet(page, long_bars)


def test_coming_closer_shows_less_time_and_back_all(page: Any, long_bars: Path) -> None:
    opened(page, long_bars)
    image = "document.getElementById('timeline').toDataURL()"
    before = page.run(image)
    button = page.box("#closer")
    page.click(button["x"] + 5, button["y"] + 5)
    assert page.run(image) != before
    button = page.box("#all")
    page.click(button["x"] + 5, button["y"] + 5)
    assert page.run(image) == before
    quiet(page, long_bars)


@pytest.mark.parametrize("form", ["svg", "html"])
def test_a_picture_renders_and_asks_for_nothing(page: Any, form: str, dark: bool, layout: str, tmp_path: Path) -> None:
    file = tmp_path / f"encode.{form}"
    encode.visualize(None, filename=file)
    opened(page, file, dark)
    ground = page.run("getComputedStyle(document.querySelector('.ground')).fill.match(/[0-9]+/g).map(Number)")
    assert (sum(ground) < 200) is dark
    assert page.run("[...document.querySelectorAll('.node')].every((e) => e.getBoundingClientRect().width > 40)")
    # Letters are as wide as the layout took them to be, with the fonts that this machine has.
    assert page.run(
        """[...document.querySelectorAll(".node")].every((e) => {
          const box = e.querySelector(".box").getBoundingClientRect();
          return [...e.querySelectorAll("text")].every((text) => {
            const words = text.getBoundingClientRect();
            return words.left >= box.left - 1 && words.right <= box.right + 1;
          });
        })"""
    )
    quiet(page, file)


def test_the_browser_tests_would_see_a_request_and_a_complaint(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "loud.html"
    (tmp_path / "other.css").write_text("")
    file.write_text("<link rel=stylesheet href=other.css><script>console.log(1); undefined.x</script>")
    opened(page, file)
    assert len(page.requests) == 2
    assert len(page.complaints) == 2
