"""What a plan's rows need to know of its caches: the key of each result, what is kept already, what is left to run.

A result's key is made of the node's code and of the keys of what it reads; what no cached node made has the digest of
its content for a key. So keys are known before anything runs, but for what comes after a node whose results are not
kept: its result is digested when it is there. A row is looked up from the wanted outputs backwards, and what a found
result was made of is neither loaded nor run.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import sha256
from operator import is_
from typing import Any, NamedTuple

from hypernodes._blueprint import Blueprint
from hypernodes._cache import Cache
from hypernodes._code import Code, code_with
from hypernodes._digest import digest_of
from hypernodes._errors import CacheWarning, UnkeyableError
from hypernodes._plan import HIDDEN, MapStep, Plan, Step, leaves
from hypernodes._recall import Recall
from hypernodes._task import gathers_of

__all__ = ["Memo", "caches_of"]

Key = bytes | None
"""None says that there is no sound one."""

Named = Sequence[tuple[str, int]]
Cut = Callable[[Sequence[Step | MapStep], Named, Named, frozenset[int]], Blueprint]


MOST_VARIANTS = 256
"""Choices of steps to run that stay compiled: where entries go missing here and there, there may be very many."""


class Variant(NamedTuple):
    """Some steps of a plan, cut for scheduling: the slots they take from elsewhere, and those that come home."""

    steps: tuple[int, ...]
    blueprint: Blueprint
    reads: tuple[int, ...]
    makes: tuple[int, ...]


def caches_of(plan: Plan, caches: Sequence[Cache | None]) -> list[Cache | None]:
    """For each step the cache that keeps its results; `caches` has one for each setting of the whole plan."""
    return [caches[step.setting] if _is_kept(step) else None for step in plan.steps]


def _is_kept(step: Step | MapStep) -> bool:
    """Of a mapped pipeline the rows are kept, not the lists."""
    return isinstance(step, Step) and step.node.cache and not step.is_clock


class Memo:
    """One plan and its caches. `cut` makes a blueprint of some of its steps; `inner` are the memos of its maps."""

    def __init__(self, plan: Plan, caches: Sequence[Cache | None], cut: Cut, inner: Mapping[int, Memo]) -> None:
        self.plan, self.cut, self.inner = plan, cut, inner
        self.steps = plan.steps
        self.caches = caches_of(plan, caches)
        self.kept = [None if cache is None else step for step, cache in zip(plan.steps, self.caches, strict=True)]
        self.own = frozenset([slot for _, slot in plan.inputs])
        self.maker = {slot: at for at, step in enumerate(plan.steps) for slot in step.writes}
        self.inputs = tuple(slot for _, slot in plan.inputs)
        self.wanted = tuple(slot for _, slot in plan.outputs)
        self.variants: dict[tuple[int, ...], Variant] = {}
        self.codes: list[Code | None] = []
        self.prefixes: list[bytes | None] = []
        # For each step what its key is made of: how each name is written in it, and the slot that it reads.
        self.fields = [_fields(step) for step in plan.steps]
        self.last: dict[int, tuple[Any, Key]] = {}
        self.steady: frozenset[int] = frozenset()
        self.calls = 0
        self.lock = threading.Lock()
        # What was seen not to leave the process it is made in: its readers have no key, and run where it is made.
        self.bound: set[int] = set()
        # Rows that were looked up and have something left to run, until they do: by the id of their values.
        self.begun: dict[int, Recall] = {}
        self.warned: set[str] = set()
        self.keyed = self._keyed_slots()
        # The batch nodes of each step: of itself, or of those it maps.
        self.gathers = [
            tuple(gathers_of(leaves(step.inner) if isinstance(step, MapStep) else (step,))) for step in plan.steps
        ]
        self.ordered = tuple(
            at
            for at, step in enumerate(plan.steps)
            if self.caches[at] is not None or (at in inner and not self.keyed.isdisjoint(step.writes))
        )

    def _keyed_slots(self) -> set[int]:
        """The slots whose keys some result's key hangs on."""
        keyed: set[int] = set()
        for at in range(len(self.steps) - 1, -1, -1):
            step = self.steps[at]
            if self.caches[at] is not None or (at in self.inner and not keyed.isdisjoint(step.writes)):
                keyed.update(step.sources)
        return keyed

    # -- a call

    def begin(self, steady: Container[str] | None = None) -> None:
        """Look at the code of the nodes anew: what their functions reach may have changed since the last call.

        `steady` names the inputs whose value, where it is the same object as in the row before, has not been changed
        since; None means all of them. Calls of several threads may go on at once.
        """
        before = self.codes or [None] * len(self.kept)
        codes = [None if step is None else self._code(step, old) for step, old in zip(self.kept, before, strict=True)]
        if len(codes) != len(self.codes) or not all(map(is_, codes, self.codes)):
            self.prefixes = [
                None if code is None else b"hypernodes 1" + code.digest + _counted(step)
                for code, step in zip(codes, self.steps, strict=True)
            ]
            self.codes = codes
        own = self.own if steady is None else frozenset([slot for name, slot in self.plan.inputs if name in steady])
        with self.lock:
            self.steady = own & self.steady if self.calls else own
            self.calls += 1

    def end(self) -> None:
        """Let go of what a call gave."""
        with self.lock:
            self.calls -= 1
            if not self.calls:
                self.last = {}

    def row(self, values: Iterable[Any], keys: Mapping[int, Key] | None = None) -> Recall:
        """One row; `keys` are those of inputs that have one already."""
        begun = self.begun.pop(id(values), None) if self.begun else None
        if begun is not None:
            return begun
        return Recall(self, dict(zip(self.inputs, values, strict=True)), dict(keys or {}))

    def recalled(self, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The outputs of a row for which nothing has to run. Of any other what was found is kept for its run.

        The row that runs next must be this very tuple; `forget` it where it does not run after all.
        """
        recall = self.row(values)
        if recall.next() is None:
            return recall.outputs()
        self.begun[id(values)] = recall
        return None

    def forget(self, values: tuple[Any, ...]) -> None:
        """Let go of what was found for a row."""
        self.begun.pop(id(values), None)

    def _code(self, step: Step | MapStep, known: Code | None) -> Code | None:
        assert isinstance(step, Step)
        try:
            return code_with(step.node.func, step.needs, known)
        except UnkeyableError as error:
            self.warn(step, str(error))
            return None

    def warn(self, step: Step | MapStep, reason: str) -> None:
        """Say once for each node that its results are not kept."""
        where = " > ".join(step.path)
        if where not in self.warned:
            self.warned.add(where)
            message = f"results of node '{where}' are not cached: {reason}"
            try:
                warnings.warn(message, CacheWarning, stacklevel=2)
            except CacheWarning:
                import logging

                logging.getLogger("hypernodes").warning("%s", message)

    # -- keys

    def digest(self, slot: int, value: Any) -> Key:
        """The key of a value that no cached node made. One that comes with row after row is digested once."""
        last = self.last.get(slot) if slot in self.steady else None
        if last is not None and last[0] is value:
            return last[1]
        name = next((name for name, at in self.plan.inputs if at == slot), None)
        try:
            key: Key = digest_of(value, name or self._output_name(slot))
        except UnkeyableError as error:
            for step in self.steps:
                if isinstance(step, Step) and slot in step.sources:
                    self.warn(step, str(error))
            key = None
        if slot in self.steady:
            self.last[slot] = (value, key)
        return key

    def leave(self, slot: int) -> None:
        """A value could not be brought home for its key to be made."""
        if slot not in self.bound:
            self.bound.add(slot)
            reason = f"{self._output_name(slot)!r}, which it reads, cannot leave the process that it is made in"
            for at, step in enumerate(self.steps):
                if self.caches[at] is not None and slot in step.sources:
                    self.warn(step, reason)

    def _output_name(self, slot: int) -> str:
        step = self.steps[self.maker[slot]]
        names = [name for name, _ in step.inner.outputs] if isinstance(step, MapStep) else step.node.outputs
        return names[step.writes.index(slot)]

    def step_key(self, at: int, keys: Mapping[int, Key]) -> Key:
        """The key of a cached step's results; raises KeyError while that of something it reads is not known."""
        prefix = self.prefixes[at]
        if prefix is None:
            return None
        parts = [prefix]
        for name, slot in self.fields[at]:
            key = keys[slot]
            if key is None:
                return None
            parts += (name, b"%d:" % len(key), key)
        return sha256(b"".join(parts)).digest()

    def derive(self, keys: dict[int, Key], steps: Iterable[int]) -> None:
        """Add to `keys` those of what these steps make, as far as it follows from the keys that are known."""
        for at in steps:
            step = self.steps[at]
            if isinstance(step, MapStep):
                keys.update(self._map_keys(at, step, keys))
                continue
            if self.caches[at] is None:
                continue
            try:
                found = self.step_key(at, keys)
            except KeyError:
                continue
            if found is not None:
                for position, slot in enumerate(step.writes):
                    keys[slot] = found + b"%d" % position

    def _map_keys(self, at: int, step: MapStep, keys: Mapping[int, Key]) -> dict[int, Key]:
        """The keys of the lists that a mapped pipeline makes: of its nodes for any row, and of the lists it is over."""
        inner = self.inner.get(at)
        if inner is None or not inner.codes:
            return {}
        own: dict[int, Key] = {}
        lists: dict[int, bytes] = {}
        for position, ((name, slot), source) in enumerate(zip(step.inner.inputs, step.sources, strict=True)):
            if name in HIDDEN:
                continue
            key = keys.get(source)
            if key is None:
                return {}
            if position in step.mapped:
                lists[position] = key
            own[slot] = _hashed((b"each", key)) if position in step.mapped else key
        over = [lists[position] for position in step.mapped]  # a product's rows come in the order of these
        inner.derive(own, range(len(inner.steps)))
        made = [own.get(slot) for slot in inner.wanted]
        if any(key is None for key in made):
            return {}
        mode = step.mode.encode()
        return {
            slot: _hashed((b"map", mode, key, *over))
            for slot, key in zip(step.writes, made, strict=True)
            if key is not None
        }

    def note(self, at: int, keys: Mapping[int, Key]) -> dict[str, Any]:
        """What an entry says of how it came about, without any value."""
        step, code = self.steps[at], self.codes[at]
        assert isinstance(step, Step)
        inputs = {name: (keys.get(slot) or b"").hex() for name, slot in step.inputs}
        outputs = list(step.node.outputs)
        return {
            "node": step.node.name,
            "code": {} if code is None else code.parts,
            "inputs": inputs,
            "outputs": outputs,
        }

    # -- what is left to run

    def variant(self, steps: tuple[int, ...]) -> Variant:
        """These steps, cut for scheduling; cut once for each choice of steps."""
        found = self.variants.get(steps)
        if found is None:
            if len(self.variants) >= MOST_VARIANTS:
                self.variants.clear()
            found = self.variants[steps] = self._variant(steps)
        return found

    def _variant(self, steps: tuple[int, ...]) -> Variant:
        chosen = set(steps)
        made = {slot for at in steps for slot in self.steps[at].writes}
        reads = tuple(dict.fromkeys(slot for at in steps for slot in self.steps[at].sources if slot not in made))
        elsewhere = {slot for at, step in enumerate(self.steps) if at not in chosen for slot in step.sources}
        kept = {slot for at in steps if self.caches[at] is not None for slot in self.steps[at].writes}
        home = kept | elsewhere | set(self.wanted)
        makes = tuple(slot for at in steps for slot in self.steps[at].writes if slot in home)
        spare = frozenset(makes).difference(self.wanted)
        names = {slot: name for name, slot in self.plan.inputs}
        blueprint = self.cut(
            [self.steps[at] for at in steps],
            [(names.get(slot, f"value_{slot}"), slot) for slot in reads],
            [(f"value_{slot}", slot) for slot in makes],
            spare,
        )
        return Variant(steps, blueprint, reads, makes)


def _hashed(parts: Sequence[bytes]) -> bytes:
    """A hash of the parts that no other parts have."""
    return sha256(b"".join([b"%d:%b" % (len(part), part) for part in parts])).digest()


def _fields(step: Step | MapStep) -> list[tuple[bytes, int]]:
    names = step.reads if isinstance(step, Step) else zip((n for n, _ in step.inner.inputs), step.sources, strict=True)
    return [(b"%d:%b" % (len(name.encode()), name.encode()), slot) for name, slot in names if name not in HIDDEN]


def _counted(step: Step | MapStep) -> bytes:
    """How many outputs a node's result is unpacked into, 0 where it is one value as it is; and what it takes lists of.

    Of a batch node an item's result is kept, under the key of that item's elements.
    """
    assert isinstance(step, Step)
    over = b"" if step.lists is None else b"batch:%b;" % ",".join(step.lists).encode()
    return b"%d;%b" % (len(step.writes) if step.node.unpacks else 0, over)
