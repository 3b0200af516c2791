"""When places are closed, and what comes back from far ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hypernodes import Pipeline, node
from hypernodes.testing import SubprocessBackend

LIBRARY_WITH_AN_EXIT_FUNCTION = """
import atexit
from dataclasses import dataclass
from typing import Any, ClassVar
from hypernodes import LocalBackend, Pipeline, node
from hypernodes.plugin import Backend, Session, pair

class Opened(Session):
    here = warm = True

    def close(self):
        print("the place is closed")

@dataclass(frozen=True)
class Elsewhere(Backend):
    name: ClassVar[str] = "elsewhere"
    engine: Any = None
    node_execution: Any = None
    map_execution: Any = None
    max_workers: Any = None

    def __post_init__(self):
        pair(self)

    def open(self):
        atexit.register(print, "the library has ended")
        return Opened()

same = node(lambda x: x, output_name="same")
Pipeline(nodes=[same], backend=LocalBackend(engine="sequential")).run(x=1)
Pipeline(nodes=[same], backend=Elsewhere()).run(x=1)
"""


def test_place_is_closed_at_the_end_before_the_library_that_it_brought() -> None:
    command = [sys.executable, "-c", LIBRARY_WITH_AN_EXIT_FUNCTION]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines() == ["the place is closed", "the library has ended"]


def test_traceback_from_far_shows_the_line_in_the_file_also_of_what_travels_by_value() -> None:
    @node(output_name="y")
    def refuse(x: int) -> int:
        raise ValueError(f"no {x}")

    with SubprocessBackend(machines=1) as far, pytest.raises(ValueError, match="no 1") as caught:
        Pipeline([refuse], backend=far).run(x=1)
    told = "\n".join(caught.value.__notes__)
    assert f'File "{__file__}", line {refuse.func.__code__.co_firstlineno + 2}, in refuse' in told
    assert 'raise ValueError(f"no {x}")' in told
