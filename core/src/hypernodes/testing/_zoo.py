"""Importable nodes, classes and values that contracts send through engines; no test framework travels with them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hypernodes import Node, node

__all__ = [
    "ORDINARY",
    "Coded",
    "Colour",
    "Held",
    "Point",
    "Refused",
    "Suffix",
    "check",
    "double",
    "release",
    "same",
    "stalling",
    "unowned_function",
]


class Refused(Exception):
    """A user's own exception, as plain as they come."""


class Coded(Exception):
    """Cannot be rebuilt from its `args`, as many exceptions in the wild cannot."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Held(Exception):
    """Cannot be pickled: it holds a lock."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@dataclass
class Point:
    x: Any
    y: Any = None


class Colour(Enum):
    RED = "red"


ORDINARY: tuple[Any, ...] = (
    None, False, 0, 0.0, -0.0, float("nan"), "", b"", (), [], {}, set(), 2**80, True, (1, (2,)), [(1,)],
    {1: "a", "1": b"b", None: (3,)}, frozenset({1}), Point((1,), [2]), Colour.RED, ValueError("kept", 1), Exception,
)  # fmt: skip
"""Values that some engine or other has been seen to change, drop or take for something else."""


@node(output_name="doubled")
def double(x: Any) -> Any:
    return x * 2


@node(output_name="checked")
def check(x: Any) -> Any:
    if x == 1:
        raise Refused(f"{x} is refused", x)
    return x


@node(output_name="same")
def same(x: Any) -> Any:
    return x


class Suffix:
    """Its bound method `add` makes a node."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def add(self, halved: Any) -> str:
        return f"{halved}{self.suffix}"


def unowned_function(text: str, name: str) -> Callable[..., Any]:
    """The function `name` of a program text, as a script's or a notebook cell's: importable from nowhere."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec", dont_inherit=True), namespace)
    function: Callable[..., Any] = namespace[name]
    return function


def stalling(gate: Path) -> Node[..., Any]:
    """A node that, for the item 1, waits until `gate` exists: 20 seconds at most, for a place that cannot see it."""
    path = str(gate)

    def stall(x: Any) -> Any:
        for _ in range(2000 if x == 1 else 0):
            if os.path.exists(path):
                break
            time.sleep(0.01)
        return x

    return node(stall, output_name="y")


def release(gate: Path) -> None:
    """Let stalling nodes end; those of this process have ended when this returns."""
    gate.touch()
    for thread in threading.enumerate():
        if thread.name.startswith("hypernodes-timeout-"):
            thread.join(10)
