"""Clusters of a test's own: one that has no memory left, one of other versions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from ray_support import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.long]

Run = Callable[..., "subprocess.Popen[str]"]

OUT_OF_MEMORY = """
import os, time
from hypernodes import Pipeline, RayBackend, node

@node(output_name="y")
def hold(x):
    time.sleep(600)  # until Ray's memory monitor ends it

with RayBackend(os.environ["ADDRESS"], log_to_driver=False) as backend:
    pipeline = Pipeline(nodes=[hold], name="main", backend=backend)
    (failed,) = pipeline.map([{"x": 1}], output_name="y", on_error="return")
print(failed.where, failed.type_name, failed.message)
"""


def test_worker_that_is_killed_for_memory_is_told_with_what_to_say_of_the_node(
    start_head: Callable[..., Any], start_script: Run
) -> None:
    # Whoever runs for a second has too much: the machine as a whole uses more than this.
    head = start_head(RAY_memory_usage_threshold="0.001", RAY_memory_monitor_refresh_ms="1000")
    script = start_script(OUT_OF_MEMORY, **head.environment, ADDRESS=head.address)
    said, errors = script.communicate(timeout=PATIENCE)
    assert said.startswith("main (item 0) > hold WorkerLostError Ray killed the worker that ran this item, as"), errors
    assert "ran out of memory; say what the node of the pipeline needs, @node(resources={'memory': '4GB'})" in said
    assert "low on memory" in said


OTHER_VERSIONS = """
import os
from hypernodes import Pipeline, RayBackend, VersionMismatchError, node

add = node(lambda x: x + 1, output_name="y")
for address in os.environ["ADDRESSES"].split():
    try:
        Pipeline(nodes=[add], backend=RayBackend(address, log_to_driver=False)).run(x=1)
    except VersionMismatchError as error:
        print(error)
"""


def test_cluster_of_another_release_is_a_sentence(start_head: Callable[..., Any], start_script: Run) -> None:
    head = start_head(CLAIMED_RAY="2.1.0")
    script = start_script(OTHER_VERSIONS, **head.environment, ADDRESSES=head.address)
    said, errors = script.communicate(timeout=PATIENCE)
    assert said.startswith(f"the Ray cluster at '{head.address}' has other versions than this process, which"), errors
    assert "started with: Ray: 2.1.0 Python: 3." in said


@pytest.mark.skipif("RAY_OTHER_PYTHON" not in os.environ, reason="RAY_OTHER_PYTHON names no Python of another version")
def test_cluster_of_another_python_is_a_sentence_by_either_address(
    start_head: Callable[..., Any], start_script: Run
) -> None:
    python = os.environ["RAY_OTHER_PYTHON"]
    version = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    assert version.stdout.split() != list(map(str, sys.version_info[:2]))
    head = start_head(python)
    addresses = [head.address, head.client]
    script = start_script(OTHER_VERSIONS, **head.environment, ADDRESSES=" ".join(addresses))
    said, errors = script.communicate(timeout=PATIENCE)
    told = said.splitlines()
    assert len(told) == 2, errors
    for line, address in zip(told, addresses, strict=True):
        assert line.startswith(f"the Ray cluster at '{address}' has other versions than this process, which has")
        assert f"Python: {version.stdout.replace(' ', '.').strip()}" in line
