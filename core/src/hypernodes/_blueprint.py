"""How a stage is cut for scheduling: segments that run as one call, and fans that spread a mapped pipeline's rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, cast

from hypernodes._demand import Demand
from hypernodes._plan import MapStep, Plan, Step, leaves
from hypernodes._strategy import stands_apart
from hypernodes._task import Stage, gathers_of

__all__ = ["Blueprint", "Unit", "blueprint_of", "cut", "demands_of", "group"]


class Unit:
    """One node of a blueprint's graph: a `stage` to send out, or a `fan` with a blueprint for its rows.

    `reads` and `writes` are slots; `members` are the indices of its steps, by which failures are ranked, `first` is the
    earliest; `readers` are the units that wait for it, `waits` how many it waits for. It comes `after` slots that it
    does not read, too: those that a clock waits for.
    """

    __slots__ = ("after", "fan", "first", "inner", "members", "readers", "reads", "stage", "waits", "writes")

    def __init__(
        self,
        reads: Sequence[int],
        writes: Sequence[int],
        members: Sequence[int],
        stage: Stage | None,
        fan: MapStep | None,
    ) -> None:
        self.reads, self.writes, self.members = tuple(reads), tuple(writes), tuple(members)
        self.first = self.members[0]
        self.stage, self.fan = stage, fan
        self.after: tuple[int, ...] = ()
        self.inner: Blueprint | None = None
        self.readers: list[int] = []
        self.waits = 0


class Blueprint:
    """Units and their dependencies. `single` is the only unit's stage, where one stage is all there is.

    With `in_order` each unit waits for the one before it. With a `memo` each row finds out by itself, perhaps more than
    once, which of the steps it has to run: the memo gives it a blueprint of those, and there are no units here.
    `gathers` are the batch nodes in it and in the fans, as those of a stage.
    """

    __slots__ = ("gathers", "inputs", "memo", "outputs", "single", "units")

    def __init__(
        self,
        units: Sequence[Unit],
        inputs: Sequence[int],
        outputs: Sequence[int],
        memo: Any | None = None,
        *,
        in_order: bool = False,
    ) -> None:
        self.units, self.memo = tuple(units), memo
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.single = units[0].stage if len(units) == 1 else None
        self.gathers: dict[int, int] = {} if memo is None else gathers_of(leaves(memo.plan))
        for unit in units:
            within = unit.stage if unit.stage is not None else unit.inner
            assert within is not None
            self.gathers.update(within.gathers)
        maker = {slot: at for at, unit in enumerate(units) for slot in unit.writes}
        for at, unit in enumerate(units):
            sources = {maker[slot] for slot in (*unit.reads, *unit.after) if slot in maker}
            if in_order and at:
                sources.add(at - 1)
            unit.waits = len(sources)
            for source in sources:
                units[source].readers.append(at)

    def ranks(self) -> dict[int, int]:
        """Where in the pipeline each step comes, by its id."""
        found: dict[int, int] = {}
        todo: list[Unit | Step | MapStep] = list(reversed(self.units if self.memo is None else self.memo.plan.steps))
        while todo:
            one = todo.pop()
            if isinstance(one, Unit):
                todo += reversed(one.stage.steps) if one.stage is not None else [cast(MapStep, one.fan)]
                continue
            found[id(one)] = len(found)
            if isinstance(one, MapStep):
                todo += reversed(one.inner.steps)
        return found


def group(steps: Sequence[Step | MapStep], key_of: Callable[[Step | MapStep], Hashable | None]) -> list[list[int]]:
    """Indices of steps in runs of one key, in the order of the steps; a key of None stands alone.

    A run takes in only neighbours. Were later steps of the same key drawn in too, their failure would take down with it
    what steps in between need, and those could no longer be the ones that fail first.
    """
    groups: list[list[int]] = []
    last: Hashable | None = None
    for at, step in enumerate(steps):
        key = key_of(step)
        if groups and key is not None and key == last:
            groups[-1].append(at)
        else:
            groups.append([at])
        last = key
    return groups


def cut(
    name: str,
    steps: Sequence[Step | MapStep],
    inputs: Sequence[tuple[str, int]],
    outputs: Sequence[tuple[str, int]],
    *,
    fine: bool,
    is_fan: Callable[[MapStep], bool],
    key_of: Callable[[Step | MapStep], Hashable | None] | None = None,
    inner_of: Callable[[MapStep], Blueprint],
    salvages: bool = False,
    spare: frozenset[int] = frozenset(),
    in_order: bool = False,
    is_apart: Callable[[Step], bool] | None = None,
    shared: dict[Hashable, Stage] | None = None,
) -> Blueprint:
    """Cut steps into units: each step its own if `fine` (chains stay whole), else a unit for each run of one key.

    With `salvages` a row that fails brings home what its steps had made before. `spare` are outputs that only a cache
    wants. A step that `is_apart` is a unit of its own in any case; with `shared` such a unit has the same stage in
    every blueprint that it is in, so that rows that came by different ways share its batches.
    """

    def apart(step: Step | MapStep) -> bool:
        return is_apart is not None and isinstance(step, Step) and is_apart(step)

    def key(step: Step | MapStep) -> Hashable | None:
        if (isinstance(step, MapStep) and is_fan(step)) or apart(step):
            return None
        return key_of(step) if key_of else "here"

    groups = _chains(steps, key) if fine else group(steps, key)
    wanted = [slot for _, slot in outputs]
    read_by: dict[int, list[int]] = {}
    for at, step in enumerate(steps):
        for slot in step.sources:
            read_by.setdefault(slot, []).append(at)
    units = []
    for members in groups:
        first = steps[members[0]]
        if isinstance(first, MapStep) and is_fan(first):
            unit = Unit(first.sources, first.writes, members, None, first)
            unit.inner = inner_of(first)
        else:
            if len(groups) == 1:
                # All there is: the stage takes and gives what the blueprint does, and rows need no frames.
                reads, writes = [slot for _, slot in inputs], wanted
            else:
                reads, writes = _border(steps, members, wanted, read_by)
            names: dict[int, str] = {slot: given for given, slot in inputs}
            own = set(members)
            loose = [slot for slot in writes if slot in spare and own.issuperset(read_by.get(slot, ()))]
            alike = (id(first), *reads, -1, *writes, -1, *loose)
            stage = shared.get(alike) if shared is not None and apart(first) else None
            if stage is None:
                stage = Stage(
                    name,
                    [steps[at] for at in members],
                    [(names.get(slot, f"value_{slot}"), slot) for slot in reads],
                    [(f"value_{slot}", slot) for slot in writes],
                    members,
                    salvages=salvages,
                    spare=loose,
                )
                if shared is not None and apart(first):
                    shared[alike] = stage
            unit = Unit(reads, writes, members, stage, None)
            unit.after = _after(steps, members)
        units.append(unit)
    return Blueprint(units, [slot for _, slot in inputs], wanted, in_order=in_order)


def _after(steps: Sequence[Step | MapStep], members: list[int]) -> tuple[int, ...]:
    """The slots that a group's clocks wait for, and that other groups make."""
    waited = [slot for at in members if isinstance(step := steps[at], Step) for slot in step.after]
    inside = {slot for at in members for slot in steps[at].writes} if waited else ()
    return tuple(slot for slot in waited if slot not in inside)


def _chains(steps: Sequence[Step | MapStep], key: Callable[[Step | MapStep], Hashable | None]) -> list[list[int]]:
    """Each step alone, except that a step read by exactly one other, which reads nothing else, is one with it.

    That both read one clock does not count. A clock that only one chain reads is part of it.
    """
    maker = {slot: at for at, step in enumerate(steps) for slot in step.writes}
    clocks = {slot for step in steps if isinstance(step, Step) and step.is_clock for slot in step.writes}
    sources = [{maker[slot] for slot in step.sources if slot in maker and slot not in clocks} for step in steps]
    readers = [0] * len(steps)
    for found in sources:
        for source in found:
            readers[source] += 1
    chain_of: dict[int, list[int]] = {}
    chains: list[list[int]] = []
    for at, step in enumerate(steps):
        if len(sources[at]) == 1 and key(step) is not None:
            (source,) = sources[at]
            chain = chain_of[source]
            alike = key(steps[source]) == key(step) and steps[source].clock == step.clock
            if readers[source] == 1 and chain[-1] == source and alike:
                chain.append(at)
                chain_of[at] = chain
                continue
        chain_of[at] = [at]
        chains.append(chain_of[at])
    return _with_clocks(steps, chains, key) if clocks else chains


def _with_clocks(
    steps: Sequence[Step | MapStep], chains: list[list[int]], key: Callable[[Step | MapStep], Hashable | None]
) -> list[list[int]]:
    """The chains, each with the clocks that only it reads: what would start a clock alone need not."""
    for clock in reversed(range(len(steps))):
        step = steps[clock]
        if not (isinstance(step, Step) and step.is_clock):
            continue
        under = [chain for chain in chains if any(steps[at].clock in step.writes for at in chain)]
        if len(under) == 1 and key(steps[under[0][0]]) == key(step):
            chains.remove([clock])
            under[0].insert(0, clock)
    return sorted(chains)


def _border(
    steps: Sequence[Step | MapStep], members: list[int], wanted: Sequence[int], read_by: dict[int, list[int]]
) -> tuple[list[int], list[int]]:
    """The slots that enter and leave a group of steps."""
    chosen = set(members)
    inside = {slot for at in members for slot in steps[at].writes}
    reads = list(dict.fromkeys(slot for at in members for slot in steps[at].sources if slot not in inside))
    asked = set(wanted)
    leaving = [
        slot
        for at in members
        for slot in steps[at].writes
        if slot in asked or any(reader not in chosen for reader in read_by.get(slot, ()))
    ]
    return reads, leaving


def demands_of(steps: Iterable[Step | MapStep]) -> set[Demand]:
    """What the nodes of these steps and of the mapped pipelines in them ask for; nothing counts as asked for, too."""
    return {step.node.resources or Demand() for step in leaves(Plan((), (), (), tuple(steps), ()))}


def _demand_keys(steps: Sequence[Step | MapStep]) -> dict[int, Hashable]:
    """By the id of each step, what tells it from those that ask for something else; a clock goes with what follows."""
    found: dict[int, Hashable] = {}
    last: Hashable = "here"
    for step in reversed(steps):
        if not (isinstance(step, Step) and step.is_clock):
            last = frozenset(demands_of([step]))
        found[id(step)] = last
    return found


def blueprint_of(stage: Stage, *, fine: bool, fans: bool, apart: bool = False, by_demand: bool = False) -> Blueprint:
    """A stage cut for one way of scheduling; cut once for each way.

    With `fans` the rows of mapped pipelines go out one by one. With `apart` the steps that `stands_apart` names are
    units of their own, and mapped pipelines with such steps are fans. With `by_demand` a unit holds only steps that ask
    for the same resources, and mapped pipelines with steps that do not are fans.
    """
    split = by_demand and len(demands_of(stage.steps)) > 1

    def inner_of(step: MapStep) -> Blueprint:
        return cut_plan(step.path[-1], step.inner)

    def is_fan(step: MapStep) -> bool:
        return (
            fans
            or (apart and any(map(stands_apart, leaves(step.inner))))
            or (split and len(demands_of(step.inner.steps)) > 1)
        )

    def cut_plan(name: str, plan: Plan | Stage) -> Blueprint:
        keys = _demand_keys(plan.steps) if split else {}
        return cut(
            name,
            plan.steps,
            plan.inputs,
            plan.outputs,
            fine=fine,
            is_fan=is_fan,
            key_of=(lambda step: keys[id(step)]) if split else None,
            inner_of=inner_of,
            salvages=stage.salvages,
            spare=stage.spare if plan is stage else frozenset(),
            is_apart=stands_apart if apart else None,
            in_order=split and not fine,
        )

    found: Blueprint | None = stage.blueprints.get((fine, fans, apart, split))
    if found is None:
        found = stage.blueprints[fine, fans, apart, split] = cut_plan(stage.name, stage)
    return found
