"""Runs told event by event, for tests of those who listen: every start after its parent's, every end before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from hypernodes import Callback, Event, Failure, Run

__all__ = ["Span", "Story"]


class Span:
    """A part of the run that has begun. `end()` it, or use it in `with`."""

    def __init__(
        self, story: Story, kind: str, parent: str, path: tuple[str, ...], items: tuple[int | None, ...]
    ) -> None:
        self.story, self.kind, self.parent, self.path, self.items = story, kind, parent, path, items
        self.id = f"{story.next():016x}"
        self.began = story.clock()
        self.place = ""

    def tell(self, phase: str, **more: Any) -> None:
        story = self.story
        fields = {"time": story.clock(), "place": self.place, **more}
        story.tell(Event(self.kind, phase, story.run.id, self.id, self.parent, self.path, self.items, **fields))

    def begun(self, kind: str, name: str | None = None, index: int | None = None, **more: Any) -> Span:
        path = self.path if name is None else (*self.path, name)
        items = (*self.items[:-1], index) if name is None else (*self.items, None)
        span = Span(self.story, kind, self.id, path, items)
        span.tell("start", **more)
        return span

    def item(self, index: int) -> Span:
        return self.begun("item", index=index)

    def nested(self, name: str, total: int | None = None) -> Span:
        return self.begun("nested", name, total=total)

    def node(self, name: str, *, place: str = "local:threaded", worker: str = "1:a") -> Span:
        span = Span(self.story, "node", self.id, (*self.path, name), (*self.items, None))
        span.place = place
        span.tell("start", worker=worker)
        span.worker = worker  # type: ignore[attr-defined]
        return span

    def end(self, status: str = "ok", error: str = "", failure: Failure | None = None) -> None:
        worker = getattr(self, "worker", "")
        seconds = self.story.clock() - self.began
        self.tell("end", seconds=seconds, status=status, error=error, failure=failure, worker=worker)

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.end("stopped")
        else:
            self.end("ok" if error is None else "error", "" if kind is None else kind.__name__)


class Story:
    """One call of a pipeline as `callback` hears it; `total` makes it a map. `start()` gives its root."""

    def __init__(
        self,
        callback: Callback,
        name: str = "main",
        *,
        kind: str = "pipeline",
        total: int | None = None,
        steps: list[tuple[str, ...]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._numbers = 0
        self.run = Run("f" * 16, name, kind, total, [(path, "local") for path in steps or []])
        self.tell = callback.begin(self.run) or (lambda event: None)

    def next(self) -> int:
        self._numbers += 1
        return self._numbers

    def start(self) -> Span:
        root = Span(self, self.run.kind, "", (self.run.pipeline,), (None,))
        root.tell("start", total=self.run.total)
        return root
