"""What Daft calls for a batch of rows: the pipeline itself."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypernodes import Failure, Pipeline
from hypernodes.plugin import SharedScope
from hypernodes_daft import _runner

__all__ = ["Body", "Reference", "Resources"]

_serials = itertools.count(1)


class Reference:
    """A function for Daft that pickles as a number, so that nothing of the user's has to be pickled.

    Daft holds it as long as a dataframe needs it.
    """

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.serial = next(_serials)
        self.__name__ = self.__qualname__ = name
        self.__module__ = ""
        _alive[self.serial] = self
        # Not an attribute: Daft copies those to a function of its own, and pickles that.
        _calls[self] = call

    def __call__(self, *columns: Any) -> Any:
        return _calls[self](*columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return _find, (self.serial,)


_alive: weakref.WeakValueDictionary[int, Reference] = weakref.WeakValueDictionary()
_calls: weakref.WeakKeyDictionary[Reference, Callable[..., Any]] = weakref.WeakKeyDictionary()


def _find(serial: int) -> Reference:
    return _alive[serial]


class Resources:
    """What the batches of one dataframe share: it is built once, and closed when nothing refers to the dataframe."""

    def __init__(self) -> None:
        self.scope = SharedScope()
        weakref.finalize(self, self.scope.close)


class Body:
    """Runs a pipeline for batches of rows: for the outputs `makes`, from the inputs `reads` and those all rows share.

    Of a row that failed it tells why. With `keeps_failures` its outputs are None then, else the first of a batch
    raises.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        reads: Sequence[str],
        makes: Sequence[str],
        shared: Mapping[str, Any],
        keeps_failures: bool,
        resources: Resources,
    ) -> None:
        self.pipeline, self.reads, self.makes, self.shared = pipeline, tuple(reads), tuple(makes), dict(shared)
        self.keeps_failures, self.resources = keeps_failures, resources

    def __call__(
        self, rows: Sequence[int], reasons: Sequence[str | None], lists: Sequence[list[Any]]
    ) -> tuple[list[list[Any]], list[str | None]]:
        """The values of each output, and why rows failed; those that have a reason already are left out."""
        told = list(reasons)
        living = [at for at, reason in enumerate(reasons) if reason is None]
        found = self._run([[values[at] for at in living] for values in lists], len(living))
        made: list[list[Any]] = [[None] * len(rows) for _ in self.makes]
        for position, (at, results) in enumerate(zip(living, zip(*found, strict=True), strict=True)):
            failure = next((one for one in results if isinstance(one, Failure) and one.item == position), None)
            if failure is None:
                for column, value in zip(made, results, strict=True):
                    column[at] = value
                continue
            failure = failure.at(rows[at])
            if not self.keeps_failures:
                failure.reraise()
            told[at] = str(failure)
        return made, told

    def _run(self, lists: list[list[Any]], count: int) -> list[list[Any]]:
        token = _runner.in_query.set(True)
        try:
            with self.resources.scope.calls():
                if self.reads:
                    columns = self.pipeline.map(
                        inputs={**self.shared, **dict(zip(self.reads, lists, strict=True))},
                        map_over=self.reads,
                        output_nodes=self.makes,
                        on_error="return",
                    )
                    return [columns[name] for name in self.makes]
                rows = self.pipeline.map([{}] * count, inputs=self.shared, output_nodes=self.makes, on_error="return")
                return [[row if isinstance(row, Failure) else row[name] for row in rows] for name in self.makes]
        finally:
            _runner.in_query.reset(token)
