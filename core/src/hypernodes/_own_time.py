"""The time of each row of a block: its clock stands still while the block works on other rows.

So whether a row is in time does not depend on its neighbours. In the columns of a block a deadline is what is left of
it; whoever works on a row gets it as a moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from hypernodes._clock import Deadline
from hypernodes._layout import Loop

__all__ = ["OwnTime", "moments", "on_own_time", "own_times", "spend"]


class OwnTime:
    """What a row has `left` of a deadline, in seconds; `around` is that of the pipeline around, which runs out too.

    The rows of a mapped pipeline share it with the row they belong to.
    """

    __slots__ = ("around", "deadline", "left")

    def __init__(self, deadline: Deadline, now: float, around: OwnTime | None = None) -> None:
        self.deadline, self.left, self.around = deadline, deadline.at - now, around

    def at(self, now: float) -> Deadline:
        """The deadline of a row that is worked on from now on."""
        return self.deadline._replace(at=now + self.left)


def own_times(deadlines: Iterable[Any]) -> list[OwnTime]:
    """What is left of each, where it is not known yet."""
    now = time.time()
    return [OwnTime(one, now) if isinstance(one, Deadline) else one for one in deadlines]


def moments(times: Iterable[OwnTime]) -> list[Deadline]:
    """The other way round."""
    now = time.time()
    return [one.at(now) for one in times]


def spend(times: Iterable[OwnTime], seconds: float) -> None:
    """So long was worked on these together: it is taken from each once."""
    seen: set[int] = set()
    for one in times:
        found: OwnTime | None = one
        while found is not None and id(found) not in seen:
            seen.add(id(found))
            found.left -= seconds
            found = found.around


def on_own_time(
    rows: Iterable[Any], part: Loop, columns: dict[int, list[Any]], clocks: frozenset[int], made: list[list[Any]]
) -> Iterator[Any]:
    """The rows of a loop, each with its deadlines as moments; what it took is spent when the next one is asked for.

    Deadlines that the loop itself made, in the lists of `made`, become what is left of them.
    """
    open_clocks = [columns[slot] for slot in clocks if slot in columns]
    timed = [at for at, slot in enumerate(part.reads) if slot in clocks]
    begun = [(step.clock, step.writes[0]) for step in part.program.steps if getattr(step, "is_clock", False)]
    places = {slot: at for at, slot in enumerate(part.writes)}
    counts = dict.fromkeys([slot for _, slot in begun if slot in places], 0)
    several = len(part.reads) > 1
    for index, row in enumerate(rows):
        now = time.time()
        known = {slot: columns[slot][index] for slot in clocks if slot in columns}
        given = {slot: own.at(now) for slot, own in known.items()}
        if not timed:
            yield row
        elif several:
            values = list(row)
            for at in timed:
                values[at] = given[part.reads[at]]
            yield tuple(values)
        else:
            yield given[part.reads[0]]
        over = time.time()
        spend([column[index] for column in open_clocks], over - now)
        for around, slot in begun:
            if slot in counts and len(made[places[slot]]) > counts[slot]:
                counts[slot] += 1
                column = made[places[slot]]
                began = column[-1]
                outer, moment = (None, None) if around is None else (known.get(around), given.get(around))
                # A clock gives back the deadline around where that comes first: then what is left of it is left here.
                own = outer if outer is not None and began is moment else OwnTime(began, over, outer)
                known[slot], given[slot] = own, began
                column[-1] = own
