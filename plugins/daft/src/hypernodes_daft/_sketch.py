"""The dataframes of a stage as Daft explains them."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable

from hypernodes.plugin import PlaceError, Stage
from hypernodes_daft import _runner
from hypernodes_daft._columns import dataframe
from hypernodes_daft._phases import Columns, Plan, plan_of

__all__ = ["sketch"]

_SERIAL = re.compile(r"-\d+-\d+(?=\()")
"""What Daft puts behind a function's name, another number each time."""
_STATS = re.compile(r"^\|   Stats = \{[^}]*\}\n?", re.MULTILINE)
"""How many rows Daft expects: it sees one, where a call will have many."""


def sketch(stage: Stage, rows_of_batch: Callable[[int], int]) -> str:
    """Daft's plan for each dataframe of the stage, in the order in which they run."""
    try:
        _runner.native()
    except PlaceError as error:
        return str(error)
    return "\n".join(_of(plan_of(stage), rows_of_batch))


def _of(plan: Plan, rows_of_batch: Callable[[int], int]) -> list[str]:
    found = []
    for phase in plan.phases:
        if isinstance(phase, Columns):
            text = io.StringIO()
            dataframe(0, phase.columns, 1, rows_of_batch(1)).explain(show_all=True, file=text)
            optimized = text.getvalue().partition("== Optimized Logical Plan ==")[2].partition("\n== ")[0]
            found.append(_STATS.sub("", _SERIAL.sub("", optimized)).strip("\n"))
        else:
            found.append(f"for all items of '{' > '.join(phase.step.path)}' together")
            found += [textwrap.indent(text, "    ") for text in _of(phase.inner, rows_of_batch)]
    return found
