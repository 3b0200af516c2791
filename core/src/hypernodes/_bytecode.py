"""What a code object does, whatever its source looked like: the same after comments, blank lines or a move in the file.

The instructions are read as a graph of what can follow what. Jumps, padding and numbers of constants depend on how
the source was laid out in lines, and so does whether the compiler wrote one exit several times; the graph, with parts
that do the same made one, does not. Names, operations, constants and exception handlers all count, docstrings do not.

Of 8,700 functions of the standard library, written anew from their syntax trees, 2 had another digest (on 3.11; none
on 3.12 and 3.13): a rare reformatting costs one needless run, and never a wrong result.
"""

from __future__ import annotations

import dis
import sys
import weakref
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import sha256
from types import CodeType
from typing import Any, NamedTuple

from hypernodes._digest import encode

__all__ = ["Body", "body_of"]


class Body(NamedTuple):
    """A code object's digest, and the names it reaches out to.

    `reached` holds each global as it is used, with the attributes read from it: `("helpers", "normalise")`. `imported`
    holds each import that the code does itself: level, module and the names taken from it, none where it is kept whole.
    """

    digest: bytes
    reached: tuple[tuple[str, ...], ...]
    imported: tuple[tuple[int, str, tuple[str, ...]], ...]


class _Step(NamedTuple):
    label: tuple[Any, ...]
    following: tuple[int, ...]


_known: dict[int, tuple[weakref.ref[CodeType], Body]] = {}


def body_of(code: CodeType) -> Body:
    """The `Body` of a code object and all within it; worked out once for each object."""
    key = id(code)
    found = _known.get(key)
    if found is None or found[0]() is not code:
        found = (weakref.ref(code, lambda _: _known.pop(key, None)), _body(code))
        _known[key] = found
    return found[1]


_LAYOUT = {"NOP", "CACHE", "EXTENDED_ARG", "NOT_TAKEN"}
_JUMPS = {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP", "JUMP_NO_INTERRUPT"}
_ENDS = {"RETURN_VALUE", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"}
_PAIRS = {  # one instruction where two stood in one line
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}
_NAME_FLAGS = {"LOAD_GLOBAL": 1, "LOAD_ATTR": 1 if sys.version_info >= (3, 12) else 0, "LOAD_SUPER_ATTR": 3}
_BY_COMPILER = {"__doc__", "__firstlineno__", "__static_attributes__"}  # what it stores in a class's body
_FLAGS = ~(0x4000000 | 0x1FE0000 | 0x10)  # less: has a docstring, `from __future__`, is nested


class _Instruction(NamedTuple):
    offset: int
    name: str
    arg: int
    value: Any  # the constant, the name or the offset that `arg` stands for
    kind: str  # "const", "name", "jump" or ""


def _body(code: CodeType) -> Body:
    instructions = list(_instructions(code))
    inner = [body_of(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    signature = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
    names = (code.co_varnames, code.co_freevars, code.co_cellvars)
    flow = _canonical(_graph(code, instructions))
    digest = sha256(encode((signature, names, flow), "code")).digest()
    reached = {*_reached(instructions), *(chain for body in inner for chain in body.reached)}
    imported = {*_imported(instructions), *(found for body in inner for found in body.imported)}
    return Body(digest, tuple(sorted(reached)), tuple(sorted(imported)))


def _instructions(code: CodeType) -> Iterator[_Instruction]:
    """The instructions that do something, pairs taken apart, without those that only describe a class to a reader."""
    held: _Instruction | None = None
    for found in dis.get_instructions(code):
        name, arg, kind = found.opname, found.arg or 0, ""
        if name in _LAYOUT:
            continue
        if found.opcode in dis.hasconst:
            kind = "const"
        elif found.opcode in dis.hasname:
            kind = "name"
        elif found.opcode in dis.hasjrel or found.opcode in dis.hasjabs:
            kind = "jump"
        value = code.co_consts[arg] if kind == "const" else found.argval if kind else None
        now = _Instruction(found.offset, name, arg, value, kind)
        if held is not None:
            if name == "STORE_NAME" and value in _BY_COMPILER:
                held = None
                continue
            yield held
            held = None
        if name in _PAIRS:
            first, second = _PAIRS[name]
            yield _Instruction(found.offset, first, arg >> 4, None, "")
            yield _Instruction(found.offset, second, arg & 15, None, "")
        elif name == "RETURN_CONST":
            yield now._replace(name="LOAD_CONST")
            yield _Instruction(found.offset, "RETURN_VALUE", 0, None, "")
        elif name == "LOAD_CONST" and not isinstance(value, CodeType):
            held = now
        else:
            yield now
    if held is not None:
        yield held


def _graph(code: CodeType, instructions: list[_Instruction]) -> list[_Step]:
    """Each instruction with what may follow it and where its exception would go; the first is the entry."""
    starts = [instruction.offset for instruction in instructions]
    at_offset: dict[int, int] = {}
    for index in range(len(starts) - 1, -1, -1):
        at_offset[starts[index]] = index
    ordered = sorted(at_offset)

    def target(offset: int) -> int:
        """The instruction at or after an offset."""
        at = bisect_left(ordered, offset)
        return at_offset[ordered[at]] if at < len(ordered) else len(instructions)

    def settle(index: int) -> int:
        """The instruction that is really done next: jumps are no deeds. A loop of jumps alone stays one."""
        seen = set()
        while index < len(instructions) and instructions[index].name in _JUMPS and index not in seen:
            seen.add(index)
            index = target(instructions[index].value)
        return index

    handlers = [
        (entry.start, entry.end, settle(target(entry.target)), entry.depth, entry.lasti)
        for entry in dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    ]
    steps = []
    for index, instruction in enumerate(instructions):
        name = instruction.name
        if name in _JUMPS:
            following = [settle(index)]
            label: tuple[Any, ...] = ("jump",)
        elif instruction.kind == "jump":
            name, swapped = _branch(name)
            following = [settle(index + 1), settle(target(instruction.value))]
            label = (name,)
            if swapped:
                following.reverse()
        else:
            following = [] if name in _ENDS else [settle(index + 1)]
            label = (name, *_argument(instruction))
        for start, end, handler, depth, lasti in handlers:
            if start <= instruction.offset < end:
                following.append(handler)
                label = (*label, "handled", depth, lasti)
                break
        steps.append(_Step(label, tuple(following)))
    steps.append(_Step(("end",), ()))
    first = settle(0)
    return [_Step(("entry",), (first + 1,)), *(_Step(s.label, tuple(to + 1 for to in s.following)) for s in steps)]


def _branch(name: str) -> tuple[str, bool]:
    """A branch without its direction, and whether its two ways have to change places for that."""
    name = name.replace("_FORWARD_", "_").replace("_BACKWARD_", "_")
    if name in ("POP_JUMP_IF_FALSE", "POP_JUMP_IF_NOT_NONE"):
        return name.replace("_NOT_NONE", "_NONE").replace("_FALSE", "_TRUE"), True
    return name, False


def _argument(instruction: _Instruction) -> tuple[Any, ...]:
    """What an instruction works on: constants and names by themselves, for a docstring moves their numbers."""
    value = instruction.value
    if instruction.kind == "const":
        return (body_of(value).digest if isinstance(value, CodeType) else encode(value, "constant"),)
    if instruction.kind == "name":
        return (value, instruction.arg & _NAME_FLAGS.get(instruction.name, 0))
    return (instruction.arg,)


def _canonical(steps: list[_Step]) -> list[Any]:
    """The steps reached from the entry, those that do the same made one, numbered as they are met."""
    classes = _classes(steps)
    numbers: dict[int, int] = {}
    waiting = [0]
    order = []
    while waiting:
        step = waiting.pop()
        if classes[step] in numbers:
            continue
        numbers[classes[step]] = len(numbers)
        order.append(step)
        waiting.extend(reversed(steps[step].following))
    flat: list[Any] = []  # one list of plain values is encoded at once, a nested one piece by piece
    for step in order:
        label, following = steps[step]
        flat += (len(label), *label, len(following), *(numbers[classes[to]] for to in following))
    return flat


def _classes(steps: list[_Step]) -> list[int]:
    """For each step the number of its class: those of one class have one label and lead to the same classes.

    Classes are split until nothing splits any more. What lies ahead is taken as split in this round already, which
    leaves a few rounds where going step by step would take one for each instruction.
    """
    labels: dict[Any, int] = {}
    old = [labels.setdefault(step.label, len(labels)) for step in steps]
    count = len(labels)
    while True:
        signatures: dict[Any, int] = {}
        new = [0] * len(steps)
        for index in range(len(steps) - 1, -1, -1):
            ahead = tuple((to > index, new[to] if to > index else old[to]) for to in steps[index].following)
            new[index] = signatures.setdefault((old[index], ahead), len(signatures))
        if len(signatures) == count:
            return new
        old, count = new, len(signatures)


_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}


def _reached(instructions: list[_Instruction]) -> Iterator[tuple[str, ...]]:
    chain: tuple[str, ...] = ()
    for instruction in instructions:
        if chain and instruction.name in _ATTRIBUTES:
            chain = (*chain, instruction.value)
            continue
        if chain:
            yield chain
        chain = (instruction.value,) if instruction.name in _GLOBALS else ()
    if chain:
        yield chain


def _imported(instructions: list[_Instruction]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for index, instruction in enumerate(instructions):
        if instruction.name != "IMPORT_NAME":
            continue
        level = instructions[index - 2].value
        names = instructions[index - 1].value
        taken = tuple(names) if isinstance(names, tuple) else ()
        yield (level if isinstance(level, int) else 0, instruction.value, taken)
