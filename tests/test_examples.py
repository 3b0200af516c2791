"""The short examples run as they are, and print what their readers are told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

pytestmark = pytest.mark.slow


def lines_of(script: str, folder: Path) -> list[str]:
    """What the script prints, started from somewhere else as a reader would."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / script)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_nested_places_measures_elsewhere_and_reports_here(tmp_path: Path) -> None:
    lines = lines_of("nested_places.py", tmp_path)
    assert re.search(r"^far > measure +subprocess:sequential ", "\n".join(lines), re.MULTILINE)
    assert lines[-2:] == [
        "{'a': 1, 'bb': 2, 'ccc': 3}, measured elsewhere, reported here",
        "{'dddd': 4}, measured elsewhere, reported here",
    ]


def test_streaming_takes_results_in_order_from_items_without_an_end(tmp_path: Path) -> None:
    *results, last = lines_of("streaming.py", tmp_path)
    assert [line.partition("s  ")[2] for line in results] == [f"{n} squared is {n * n}" for n in range(24)]
    found = re.fullmatch(r"24 results taken; (\d+) items were drawn when the stream was closed", last)
    assert found
    assert 24 <= int(found[1]) < 200


def test_errors_say_item_path_and_place(tmp_path: Path) -> None:
    lines = lines_of("errors.py", tmp_path)
    assert "  {'line': '90 EUR', 'people': 3}: 30.0" in lines
    assert any(
        line.endswith("item 2 failed in dinner > bill > divide: ZeroDivisionError: float division by zero")
        for line in lines
    )
    assert "  ValueError: could not convert string to float: '12,50'" in lines
    assert "    in dinner (item 1) > bill > parse, on local:multiprocess" in lines
    assert lines[-1].startswith("  UnknownInputError: pipeline 'dinner' has no input 'lin' (did you mean 'line'?)")
