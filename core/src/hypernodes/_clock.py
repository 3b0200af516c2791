"""The clock of a pipeline with a timeout: a node that nobody sees, whose value says when time is up.

The value travels like any other, so it reaches the pipeline's nodes on every engine and in every place. Clocks of
different machines are compared: what they differ by is lost or gained.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from hypernodes._errors import PipelineTimeoutError
from hypernodes._node import Node, Parameter

__all__ = ["CLOCK", "Clock", "Deadline"]

CLOCK = "hypernodes_deadline__"


class Deadline(NamedTuple):
    """When time is up, in seconds since the epoch, by which pipeline's timeout, and how long that is."""

    at: float
    pipeline: str
    seconds: float

    def left(self, node: str) -> float:
        """Seconds until then. Raises `PipelineTimeoutError` where none are left for the node."""
        left = self.at - time.time()
        if left <= 0:
            raise self.error(f"node '{node}' was not started")
        return left

    def error(self, what: str) -> PipelineTimeoutError:
        return PipelineTimeoutError(
            f"pipeline '{self.pipeline}' ran longer than its timeout of {self.seconds:g} s; {what}"
        )


class Clock(Node[..., Deadline]):
    """Starts the clock of one run of a pipeline; where `inherits`, the deadline around it holds if it is earlier."""

    __slots__ = ("inherits", "pipeline", "seconds")

    pipeline: str
    seconds: float
    inherits: bool

    def __init__(self, pipeline: str, seconds: float, inherits: bool) -> None:
        super().__init__(self.start, CLOCK, name=f"the clock of {pipeline}")
        set_ = object.__setattr__
        set_(self, "pipeline", pipeline)
        set_(self, "seconds", seconds)
        set_(self, "inherits", inherits)
        set_(self, "parameters", (Parameter(CLOCK, True),) if inherits else ())

    def start(self, around: Deadline | None = None) -> Deadline:
        own = Deadline(time.time() + self.seconds, self.pipeline, self.seconds)
        return own if around is None or own.at < around.at else around

    def __reduce__(self) -> tuple[Any, ...]:
        return Clock, (self.pipeline, self.seconds, self.inherits)
