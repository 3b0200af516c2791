"""The example of the docs, started as a reader would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "modal_encode.py"


@pytest.mark.slow
def test_example_encodes_on_gpus_with_volume_secret_and_configs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--local"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *explained, first, second, third, again = done.stdout.splitlines()
    assert any("up to 100 containers; about $2.36 an hour for each" in line for line in explained)
    assert first == again == "'Write functions for one item' -> 0.44, 0.48, 0.44, 0.36, ... (8 numbers)"
    assert second == "'choose WHERE they run' -> 0.39, 0.14, 0.56, 0.45, ... (8 numbers)"
    assert third.endswith("(8 numbers)")
    assert re.fullmatch(r"\d+ calls kept \d+ containers? busy for .*", done.stderr.strip())


@pytest.mark.cloud
def test_example_runs_at_modal(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert "(8 numbers)" in done.stdout
