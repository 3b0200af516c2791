"""The report of a run as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from hypernodes import Run
from hypernodes.plugin import Diagram
from hypernodes_visualize._layout import lay_out
from hypernodes_visualize._page import data_block, page
from hypernodes_visualize._svg import STYLE, svg_of
from hypernodes_visualize._tally import Fault, Tally
from hypernodes_visualize._text import cut, escape, plain

__all__ = ["report_of"]

MOST_LANES = 200
MOST_DRAWN = 3_000
"""Boxes and arrows of a pipeline that a report still draws."""

_WORDS = {"ok": "finished", "cached": "finished", "error": "failed", "stopped": "stopped", "": "did not end"}

_TOOLS = """<div class="tools"><button id="closer">Closer</button><button id="farther">Farther</button>
<button id="all">Show all</button><span class="hint">drag to look closer, click a bar for its details</span></div>
<div id="scroller"><canvas id="timeline" tabindex="0" role="img" aria-label="timeline"></canvas></div></section>"""

_DETAILS = """<section id="details"><h2>Details</h2>
<p class="hint">Click a bar of the timeline, a box of the picture or a row of the table.</p><dl></dl></section></div>"""

Path = tuple[str, ...]


def report_of(run: Run, tally: Tally, *, messages: bool = False) -> str:
    """The page as text. It holds no values, and no exception's message but with `messages`."""
    package = files(__package__)
    style = package.joinpath("report.css").read_text(encoding="utf-8")
    script = package.joinpath("report.js").read_text(encoding="utf-8")
    paths = list(dict.fromkeys([*tally.nodes, *(bar.path for bar in tally.bars)]))
    at_path = {path: at for at, path in enumerate(paths)}
    drawing, boxes = _drawing(run, at_path)
    title = f"{run.pipeline}: {_WORDS[_status(tally)]}"
    body = [
        f'<header><h1>{escape(run.pipeline)}<span class="status {_status(tally)}">{_WORDS[_status(tally)]}</span></h1>',
        _facts(run, tally),
        "</header><main>",
        '<section class="wide"><h2>Timeline</h2>',
        _timeline_note(tally),
        _TOOLS,
        f'<div class="pair"><section id="drawing"><h2>Pipeline</h2>{drawing}</section>',
        _DETAILS,
        _slowest(tally, paths),
        _failures(list(tally.faults.values()), tally.faults_left_out, messages, at_path),
        "</main>",
        '<div id="tip" hidden></div>',
        data_block("data", _data(tally, paths, at_path, boxes)),
    ]
    return page(title, "\n".join(body), styles=[style, STYLE], script=script)


def _status(tally: Tally) -> str:
    return tally.status if tally.status in _WORDS else ""


def _facts(run: Run, tally: Tally) -> str:
    began, ended = tally.began or 0.0, tally.ended or tally.began or 0.0
    calls = sum(node.ran for node in tally.nodes.values())
    cached = sum(node.cached for node in tally.nodes.values())
    busy = sum(lane.seconds for lane in tally.lanes.values())
    facts: list[tuple[str, str]] = [
        ("began", datetime.fromtimestamp(began, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")),
        ("took", seconds_text(ended - began)),
    ]
    done = tally.items_ok + tally.items_failed
    # Who listens to a nested pipeline does not hear of the items around it.
    if run.kind == "map" and (tally.items_begun or not tally.nodes):
        total = f" of {run.total:,}" if run.total is not None and run.total != done else ""
        facts += [("items", f"{done:,}{total}"), ("failed items", f"{tally.items_failed:,}")]
    errors = sum(node.errors for node in tally.nodes.values())
    facts += [
        ("calls of nodes", f"{calls:,}"),
        ("failed calls", f"{errors:,}"),
        ("cache hits", f"{cached:,}"),
        ("time in nodes", seconds_text(busy)),
        ("workers", f"{sum(1 for place, _ in tally.lanes if place != 'cache'):,}"),
    ]
    shown = [(name, str(value)) for name, value in run.facts.items() if isinstance(value, str | int | float)]
    facts += [(name, cut(value, 80)) for name, value in shown[:20]]
    rows = "".join(
        f"<div{' class=bad' if name.startswith('failed') and value != '0' else ''}>"
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts
    )
    return f'<dl class="facts">{rows}</dl>'


def _timeline_note(tally: Tally) -> str:
    notes = []
    if tally.calls > len(tally.bars):
        notes.append(
            f"{len(tally.bars):,} of {tally.calls:,} calls are shown, chosen evenly at random; "
            f"{tally.calls - len(tally.bars):,} are left out here and counted everywhere else"
        )
    if len(tally.lanes) > MOST_LANES:
        notes.append(f"the {MOST_LANES} busiest of {len(tally.lanes):,} workers are shown")
    return f'<p class="hint">{escape("; ".join(notes))}.</p>' if notes else ""


def _drawing(run: Run, at_path: dict[Path, int]) -> tuple[str, dict[str, list[int]]]:
    """The picture, and for each box the nodes that it stands for."""
    make = run.facts.get("diagram")
    diagram = make() if callable(make) else None
    if not isinstance(diagram, Diagram):
        return '<p class="hint">There is no picture of this pipeline.</p>', {}
    size = len(diagram.nodes) + len(diagram.edges)
    if size > MOST_DRAWN:
        return f'<p class="hint">The pipeline is not drawn: it has {len(diagram.nodes):,} boxes.</p>', {}
    inside: dict[Path, list[int]] = {}
    for path, at in at_path.items():
        for depth in range(1, len(path) + 1):
            inside.setdefault(path[:depth], []).append(at)
    boxes = {node.id: inside.get(node.path, []) for node in diagram.nodes if node.kind != "input"}
    boxes |= {cluster.id: inside.get(cluster.path, []) for cluster in diagram.clusters}
    return f'<div class="canvas">{svg_of(diagram, lay_out(diagram, "TB"), style=False)}</div>', boxes


def _slowest(tally: Tally, paths: list[Path]) -> str:
    ranked = sorted(range(len(paths)), key=lambda at: -tally.nodes[paths[at]].seconds)
    busy = sum(node.seconds for node in tally.nodes.values()) or 1.0
    rows = []
    for at in ranked[:500]:
        node = tally.nodes[paths[at]]
        mean = node.seconds / node.ran if node.ran else 0.0
        numbers = [
            *(f"{node.count:,}", seconds_text(node.seconds), f"{100 * node.seconds / busy:.1f} %"),
            *(seconds_text(mean), seconds_text(node.median), seconds_text(node.longest)),
            *(f"{node.cached:,}", f"{node.errors:,}"),
        ]
        cells = "".join(f"<td>{number}</td>" for number in numbers)
        rows.append(
            f'<tr data-node="{at}" tabindex="0"><th scope="row">{escape(" > ".join(paths[at]))}</th>{cells}</tr>'
        )
    names = ("node", "calls", "total", "share", "mean", "median", "longest", "cached", "failed")
    note = f'<p class="hint">The first 500 of {len(ranked):,} nodes.</p>' if len(ranked) > 500 else ""
    return f'<section class="wide"><h2>Slowest nodes</h2>{note}{_table(names, rows)}</section>'


def _failures(faults: Sequence[Fault], left_out: int, messages: bool, at_path: dict[Path, int]) -> str:
    if not faults:
        return ""
    names = ["where", "exception", "place"] + (["message"] if messages else [])
    rows = []
    for fault in faults:
        at = at_path.get(fault.path)
        pick = "" if at is None else f' data-node="{at}" tabindex="0"'
        last = f'<td class="message">{escape(cut(fault.message, 2_000))}</td>' if messages else ""
        rows.append(
            f'<tr{pick}><th scope="row">{escape(fault.where)}</th><td class="kind">{escape(fault.kind)}</td>'
            f"<td>{escape(fault.place)}</td>{last}</tr>"
        )
    note = f'<p class="hint">{left_out:,} more are not listed.</p>' if left_out else ""
    return f'<section class="wide" id="failures"><h2>Failures</h2>{note}{_table(names, rows)}</section>'


def _table(names: Iterable[str], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _data(tally: Tally, paths: list[Path], at_path: dict[Path, int], boxes: dict[str, list[int]]) -> dict[str, Any]:
    """What the script needs, times in milliseconds from the beginning; columns, since there may be many bars."""
    busiest = sorted(tally.lanes, key=lambda key: -tally.lanes[key].count)[:MOST_LANES]
    lanes = sorted(busiest, key=lambda key: (key[0] == "cache", *key))
    lane_at = {key: at for at, key in enumerate(lanes)}
    bars = sorted((bar for bar in tally.bars if bar.lane in lane_at), key=lambda bar: (bar.start, bar.path))
    zero = min([tally.began or 0.0, *(bar.start for bar in bars)]) if bars else tally.began or 0.0
    statuses = list(dict.fromkeys(bar.status for bar in bars))
    errors = list(dict.fromkeys(bar.error for bar in bars))
    span = max([(tally.ended or zero) - zero, *(bar.start + bar.seconds - zero for bar in bars)], default=0.0)
    return {
        "nodes": [
            {
                "path": [plain(name) for name in path],
                "calls": tally.nodes[path].count,
                "total": seconds_text(tally.nodes[path].seconds),
                "median": seconds_text(tally.nodes[path].median),
                "longest": seconds_text(tally.nodes[path].longest),
                "cached": tally.nodes[path].cached,
                "failed": tally.nodes[path].errors,
            }
            for path in paths
        ],
        "boxes": boxes,
        "lanes": [
            {
                "place": plain(place),
                "worker": plain(worker),
                "calls": tally.lanes[place, worker].count,
                "busy": seconds_text(tally.lanes[place, worker].seconds),
            }
            for place, worker in lanes
        ],
        "statuses": statuses,
        "errors": [plain(error) for error in errors],
        "span": span * 1e3,
        "bars": {
            "node": [at_path[bar.path] for bar in bars],
            "lane": [lane_at[bar.lane] for bar in bars],
            "start": [round((bar.start - zero) * 1e3, 4) for bar in bars],
            "took": [round(bar.seconds * 1e3, 4) for bar in bars],
            "status": [statuses.index(bar.status) for bar in bars],
            "error": [errors.index(bar.error) for bar in bars],
            "items": [[-1 if item is None else item for item in bar.items] for bar in bars],
        },
    }


def seconds_text(seconds: float) -> str:
    """A duration as people read it: `420 ns`, `830 µs`, `12.3 ms`, `4.56 s`, `3 min 7 s`."""
    seconds = max(0.0, seconds)
    if seconds < 1e-6:
        return f"{seconds * 1e9:.0f} ns"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
