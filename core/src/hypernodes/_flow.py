"""What generator nodes yield: as a list, or item by item where a mapped pipeline alone takes it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from hypernodes._failure import Located
from hypernodes._node import Node
from hypernodes._plan import MapStep, Step

__all__ = ["Flow", "FromAbove", "flow_into", "flows", "function_of"]


def function_of(node: Node[..., Any]) -> Callable[..., Any]:
    """The node's function; of a generator node one that gives the list of all that it yields."""
    func: Callable[..., Any] = node.func
    if not node.is_generator:
        return func
    if node.is_async:

        async def collect_async(*args: Any, **kwargs: Any) -> list[Any]:
            return [item async for item in func(*args, **kwargs)]

        return collect_async

    def collect(*args: Any, **kwargs: Any) -> list[Any]:
        return list(func(*args, **kwargs))

    return collect


def flows(step: Step | MapStep, reader: Step | MapStep) -> bool:
    """Whether a generator's items may flow into the step right behind it, so that the list of them is never made.

    Right behind: what lay between could fail before the generator does, though it comes later. Where the items take
    anything but time - another try, a deadline, a limit - the call must be over before its values count.
    """
    if not isinstance(step, Step) or not isinstance(reader, MapStep) or reader.mode != "zip" or len(reader.mapped) != 1:
        return False
    node = step.node
    if not node.is_generator or node.is_async or node.unpacks:
        return False
    if step.retry or node.timeout is not None or step.clock is not None or step.keeps or step.needs or step.gates:
        return False
    return [at for at, slot in enumerate(reader.sources) if slot == step.writes[0]] == list(reader.mapped)


Over = Callable[[BaseException | None], object]


class FromAbove(Exception):
    """Raised where a generator's items are drawn: `error` is the generator's own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error

    def located(self, step: Step | MapStep, at: int) -> Located:
        """The generator's error as that of its step, whose index is `at`."""
        own = self.error.__traceback__
        while own is not None and own.tb_next is not None and own.tb_frame.f_code.co_filename == __file__:
            own = own.tb_next
        return Located(self.error.with_traceback(own), step.path, (None,) * len(step.path), at)


class Flow:
    """An iterator over what a generator yields, on its way to the one who takes it.

    `begin` is called when the first item is to be drawn, and what it returns once at the end, with the exception that
    ended it if any. What the generator raises comes as `FromAbove`, except an interrupt.
    """

    __slots__ = ("_begin", "_items", "_over")

    def __init__(self, items: Generator[Any, Any, Any], begin: Callable[[], Over] | None = None) -> None:
        self._items, self._begin = items, begin
        self._over: Over | None = None

    def __iter__(self) -> Flow:
        begin, self._begin = self._begin, None
        if begin is not None:
            self._over = begin()
        return self

    def __next__(self) -> Any:
        try:
            return next(self._items)
        except StopIteration:
            self._end(None)
            raise
        except KeyboardInterrupt as error:
            self._end(error)
            raise
        except BaseException as error:
            self._end(error)
            raise FromAbove(error) from None

    def drain(self) -> None:
        """Let the generator come to its end, as if all its items had been taken before any was used."""
        try:
            for _ in self:
                pass
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the generator now, so that its `finally` runs; what it raises meanwhile is logged."""
        try:
            self._items.close()
        except Exception as error:
            import logging

            logging.getLogger("hypernodes").warning("a generator node raised while it was closed", exc_info=error)
        self._end(GeneratorExit())

    def _end(self, error: BaseException | None) -> None:
        over, self._over = self._over, None
        if over is not None:
            over(error)


def flow_into(step: MapStep, values: Sequence[Any]) -> Flow | None:
    """What flows into a mapped step with these values of its sources; None where it takes lists."""
    value = values[step.mapped[0]]
    return value if isinstance(value, Flow) else None
