"""One level of a diagram in layers, after Sugiyama, Tagawa and Toda (1981): longest paths, barycentres, then places.

Everything flows downwards here; whoever draws from left to right swaps the axes. A value with several readers is one
trunk that branches late, so the number of bends grows with values and layers, not with arrows. Items stand in even
ranks, labels and bends also in the odd ones between them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from hypernodes_visualize._boxes import Size

__all__ = ["Arranged", "Stop", "Trunk", "arrange"]

_GAP = 18.0  # between two ranks
_FLAT = 14.0  # the same, where nothing stands in one of them
_PORT = 4.0  # the same, where one is the edge of a pipeline
_APART = 26.0  # between two boxes of a rank
_BEND = 12.0  # around a line that passes
_STIFF = 6.0
_MOST_BENDS = 100_000
_CAREFUL = 4_000  # lines up to which crossings are counted


@dataclass(slots=True)
class Trunk:
    """A value on one level: from item `source` to each of `targets`.

    The offsets say where it leaves and enters, from the middle of the item; None lets the layout spread them.
    """

    source: int
    targets: list[int]
    label: Size | None = None
    leaves: float | None = None
    enters: list[float | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a line passes: straight from top to bottom at x."""

    x: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one trunk: `stem` are its stops from the source on, and for each target it has left the stem
    after the stop `leaves[...]` towards the stop `ends[...]`. `label` is the middle of its label."""

    stem: list[Stop]
    leaves: list[int]
    ends: list[Stop]
    label: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Arranged:
    """The middle and the top of each item, the route of each trunk, and the size of it all."""

    items: list[tuple[float, float]]
    routes: list[Route]
    size: Size


def arrange(sizes: Sequence[Size], trunks: Sequence[Trunk], first: set[int], last: set[int]) -> Arranged:
    """Place items of these sizes; those in `first` stand at the top edge, those in `last` at the bottom edge."""
    level = _Level(sizes, trunks)
    level.rank(first, last)
    level.bend()
    level.order()
    level.place()
    return level.result()


class _Level:
    def __init__(self, sizes: Sequence[Size], trunks: Sequence[Trunk]) -> None:
        self.sizes, self.trunks = sizes, trunks
        self.count = len(sizes)
        self.widths = [size.width for size in sizes]
        self.heights = [size.height for size in sizes]
        self.ranks = [0] * self.count
        self.lines: list[tuple[int, int, float, float]] = []  # upper, lower, and the offset at each
        self.chains: list[list[int]] = []  # the label, if any, and the bends of each trunk
        self.branches: list[list[int]] = []  # for each target how much of the chain it shares

    def rank(self, first: set[int], last: set[int]) -> None:
        after: list[set[int]] = [set() for _ in range(self.count)]
        for trunk in self.trunks:
            after[trunk.source].update(trunk.targets)
        waits = [0] * self.count
        for targets in after:
            for target in targets:
                waits[target] += 1
        sources = [at for at, wait in enumerate(waits) if not wait]
        layer = [1 if first else 0] * self.count
        order: list[int] = []
        ready = sources[::-1]
        while ready:
            at = ready.pop()
            order.append(at)
            for target in after[at]:
                layer[target] = max(layer[target], layer[at] + 1)
                waits[target] -= 1
                if not waits[target]:
                    ready.append(target)
        for at in sources:
            # What waits for nothing stands just above its first reader, not far away at the top.
            nearest = min((layer[target] for target in after[at] if target not in last), default=layer[at] + 1)
            layer[at] = max(layer[at], nearest - 1)
        self.edge = first | last
        bottom = 1 + max((layer[at] for at in range(self.count) if at not in last), default=0)
        for at in range(self.count):
            self.ranks[at] = 2 * (0 if at in first else bottom if at in last else layer[at])

    def bend(self) -> None:
        """Give each trunk its label and the bends on the way to its readers."""
        bends = 0
        for trunk in self.trunks:
            at, leaves, rank = trunk.source, trunk.leaves or 0.0, self.ranks[trunk.source]
            chain: list[int] = []
            branches = [0] * len(trunk.targets)
            for which in sorted(range(len(trunk.targets)), key=lambda one: self.ranks[trunk.targets[one]]):
                target = trunk.targets[which]
                while rank < self.ranks[target] - 1 and (bends < _MOST_BENDS or not chain):
                    rank += 1
                    label = trunk.label if not chain else None
                    bends += label is None
                    chain.append(self._vertex(rank, label))
                    self.lines.append((at, chain[-1], leaves, 0.0))
                    at, leaves = chain[-1], 0.0
                branches[which] = len(chain)
                if self.ranks[target] - rank == 1:
                    self.lines.append((at, target, leaves, (trunk.enters[which] if trunk.enters else None) or 0.0))
            self.chains.append(chain)
            self.branches.append(branches)

    def _vertex(self, rank: int, label: Size | None) -> int:
        self.ranks.append(rank)
        self.widths.append(label.width if label else 0.0)
        self.heights.append(label.height if label else 0.0)
        return len(self.ranks) - 1

    def order(self) -> None:
        """Order each rank by the barycentres of its neighbours, and keep the order with the fewest crossings."""
        rows: list[list[int]] = [[] for _ in range(max(self.ranks, default=0) + 1)]
        for at, rank in enumerate(self.ranks):
            rows[rank].append(at)
        above: list[list[int]] = [[] for _ in self.ranks]
        below: list[list[int]] = [[] for _ in self.ranks]
        for upper, lower, _, _ in self.lines:
            above[lower].append(upper)
            below[upper].append(lower)
        self.rows, self.spot = rows, [0] * len(self.ranks)
        self._spots()
        careful = len(self.lines) <= _CAREFUL
        best, kept = self._crossings() if careful else 0, [row[:] for row in rows]
        for turn in range(12 if careful else 4):
            down = turn % 2 == 0
            for row in rows[1:] if down else rows[-2::-1]:
                self._sort(row, above if down else below)
            if careful:
                crossings = self._crossings()
                if crossings < best:
                    best, kept = crossings, [row[:] for row in rows]
        if careful:
            self.rows = kept
            self._spots()

    def _sort(self, row: list[int], neighbours: list[list[int]]) -> None:
        spot = self.spot

        def centre(at: int) -> float:
            near = neighbours[at]
            return sum(spot[other] for other in near) / len(near) if near else float(spot[at])

        row.sort(key=centre)
        for place, at in enumerate(row):
            spot[at] = place

    def _spots(self) -> None:
        for row in self.rows:
            for place, at in enumerate(row):
                self.spot[at] = place

    def _crossings(self) -> int:
        """How many pairs of lines between neighbouring ranks cross, counted by merging as in a sort."""
        between: dict[int, list[tuple[int, int]]] = {}
        for upper, lower, _, _ in self.lines:
            between.setdefault(self.ranks[upper], []).append((self.spot[upper], self.spot[lower]))
        found = 0
        for lines in between.values():
            seen: list[int] = []
            for _, end in sorted(lines):
                found += len(seen) - bisect_right(seen, end)
                insort(seen, end)
        return found

    def place(self) -> None:
        """Choose x: near the neighbours' mean, in the order found, never closer than they may stand."""
        near_above: list[list[tuple[int, float]]] = [[] for _ in self.ranks]
        near_below: list[list[tuple[int, float]]] = [[] for _ in self.ranks]
        for upper, lower, leaves, enters in self.lines:
            near_above[lower].append((upper, leaves - enters))
            near_below[upper].append((lower, enters - leaves))
        self.x = [0.0] * len(self.ranks)
        offsets = [self._offsets(row) for row in self.rows]
        for row, steps in zip(self.rows, offsets, strict=True):
            for at, step in zip(row, steps, strict=True):
                self.x[at] = step - steps[-1] / 2
        both = [above + below for above, below in zip(near_above, near_below, strict=True)]
        rounds = 24 if len(self.ranks) < 2_000 else 8 if len(self.ranks) < 20_000 else 3
        for turn in range(rounds):
            near = both if turn >= rounds // 2 else near_above if turn % 2 == 0 else near_below
            rows = list(zip(self.rows, offsets, strict=True))
            for row, steps in rows if turn % 2 == 0 else reversed(rows):
                self._settle(row, steps, near)

    def _offsets(self, row: list[int]) -> list[float]:
        steps = [0.0] if row else []
        for left, right in pairwise(row):
            thin = self.widths[left] == 0 or self.widths[right] == 0
            apart = _BEND if thin else _APART
            steps.append(steps[-1] + (self.widths[left] + self.widths[right]) / 2 + apart)
        return steps

    def _settle(self, row: list[int], steps: list[float], near: list[list[tuple[int, float]]]) -> None:
        """The least squares places of a row under its order and distances: pool neighbours that would collide."""
        x = self.x
        blocks: list[tuple[float, float, int]] = []  # sum of weight x place, weight, members
        for at, step in zip(row, steps, strict=True):
            close = near[at]
            bend = at >= self.count
            wish, weight = x[at], 0.05  # what has no neighbour gives way
            if close:
                # Bends hold on to bends, so that long lines become straight.
                pulls = [_STIFF if bend and other >= self.count else 1.0 for other, _ in close]
                wish = sum(pull * (x[other] + shift) for pull, (other, shift) in zip(pulls, close, strict=True))
                wish, weight = wish / sum(pulls), max(pulls)
            total, members = weight * (wish - step), 1
            while blocks and blocks[-1][0] / blocks[-1][1] > total / weight:
                before = blocks.pop()
                total, weight, members = total + before[0], weight + before[1], members + before[2]
            blocks.append((total, weight, members))
        place = 0
        for total, weight, members in blocks:
            for _ in range(members):
                x[row[place]] = total / weight + steps[place]
                place += 1

    def result(self) -> Arranged:
        ranks, heights = self.ranks, self.heights
        tall = [max((heights[at] for at in row), default=0.0) for row in self.rows]
        ports = {ranks[at] for at in self.edge}
        tops = [0.0]
        for rank, height in enumerate(tall):
            flat = 0.0 in (height, *tall[rank + 1 : rank + 2])
            narrow = flat and not ports.isdisjoint((rank, rank + 1))
            tops.append(tops[-1] + height + (_PORT if narrow else _FLAT if flat else _GAP))
        half = [width / 2 for width in self.widths]
        left = min((x - wide for x, wide in zip(self.x, half, strict=True)), default=0.0)
        right = max((x + wide for x, wide in zip(self.x, half, strict=True)), default=0.0)
        x = [place - left for place in self.x]
        top = [tops[rank] + (tall[rank] - heights[at]) / 2 for at, rank in enumerate(ranks)]
        leaving, entering = self._spread(x)
        routes = []
        for which, trunk in enumerate(self.trunks):
            source, chain = trunk.source, self.chains[which]
            rank = ranks[source]
            stem = [Stop(x[source] + leaving[which], top[source] + heights[source], tops[rank] + tall[rank])]
            kept = [0, *accumulate(int(tall[ranks[at]] > 0) for at in chain)]
            # Where nothing stands in a rank, a line needs no stop there to get around it.
            bends = [at for at in chain if tall[ranks[at]] > 0]
            stem += [Stop(x[at], tops[ranks[at]], tops[ranks[at]] + tall[ranks[at]]) for at in bends]
            ends = [
                Stop(x[target] + enters, tops[ranks[target]], top[target])
                for target, enters in zip(trunk.targets, entering[which], strict=True)
            ]
            label = (x[chain[0]], top[chain[0]] + heights[chain[0]] / 2) if trunk.label and chain else None
            routes.append(Route(stem, [kept[shared] for shared in self.branches[which]], ends, label))
        size = Size(right - left, tops[-2] + tall[-1])
        return Arranged([(x[at], top[at]) for at in range(self.count)], routes, size)

    def _spread(self, x: list[float]) -> tuple[list[float], list[list[float]]]:
        """Where lines leave and enter where nobody said it: side by side, in the order of where they come from."""
        leaving = [trunk.leaves or 0.0 for trunk in self.trunks]
        entering = [[offset or 0.0 for offset in trunk.enters] or [0.0] * len(trunk.targets) for trunk in self.trunks]
        out: dict[int, list[tuple[float, int]]] = {}
        into: dict[int, list[tuple[float, int, int]]] = {}
        for which, trunk in enumerate(self.trunks):
            chain = self.chains[which]
            if trunk.leaves is None and trunk.targets:
                out.setdefault(trunk.source, []).append((x[chain[0] if chain else trunk.targets[0]], which))
            for one, target in enumerate(trunk.targets):
                if not trunk.enters or trunk.enters[one] is None:
                    shared = self.branches[which][one]
                    origin = x[chain[shared - 1]] if shared else x[trunk.source] + leaving[which]
                    into.setdefault(target, []).append((origin, which, one))
        for at, ways in out.items():
            for shift, (_, which) in zip(self._fan(at, len(ways)), sorted(ways), strict=True):
                leaving[which] = shift
        for at, ends in into.items():
            for shift, (_, which, one) in zip(self._fan(at, len(ends)), sorted(ends), strict=True):
                entering[which][one] = shift
        return leaving, entering

    def _fan(self, at: int, count: int) -> list[float]:
        room = min(self.widths[at] * 0.7, 22.0 * (count - 1))
        return [0.0] if count == 1 else [room * (one / (count - 1) - 0.5) for one in range(count)]
