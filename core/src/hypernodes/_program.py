"""The hot loop: steps compiled into one straight-line Python function, a line for each step.

A call through such a function costs what hand-written Python costs (the ratios are in benchmarks/README.md): no
dispatch, no dictionaries, no bookkeeping. Where a step failed is read from the line number of the exception's
traceback, so that knowing it costs nothing until something fails.

Three flavours exist. `"sync"` calls functions; `"inline"` is a coroutine function that awaits coroutine nodes and calls
the others where it stands; `"threads"` awaits coroutine nodes and hands the others to helper threads.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from inspect import CO_COROUTINE
from types import CodeType, FunctionType, TracebackType
from typing import Any, NoReturn

from hypernodes._answer import as_single, unpack
from hypernodes._errors import ends_call
from hypernodes._failure import Located
from hypernodes._flow import Flow, FromAbove, flow_into, flows
from hypernodes._guard import guarded
from hypernodes._late import importing
from hypernodes._plan import MapStep, Step, leaves
from hypernodes._record import RecordedBatch, is_stopped, recorded
from hypernodes._replay import KeptCall
from hypernodes._rows import columns_of, map_rows, with_index

__all__ = [
    "ABORTS",
    "IrregularRow",
    "Program",
    "begin_in_function",
    "compile_program",
    "flowing_steps",
    "is_async",
    "kept_call",
    "recorded_call",
]

ABORTS = (KeyboardInterrupt, GeneratorExit)
"""Raised to stop a coroutine, not by an item: never turned into a failure. In plain code only the first one is."""

LONGEST_DISPLAY = 15
"""Pairs up to which CPython builds a dict display in one go. A longer one is updated piece by piece: for 1000 pairs
that takes 1.3 times as long as `dict(zip(...))`, and twice as long to compile."""

_AROUND = frozenset(
    __file__.replace("_program", name) for name in ("_acquire", "_answer", "_flow", "_gated", "_guard", "_record")
)
"""Where the frames between a program and the user's function are from."""

Steps = Sequence[Step | MapStep]


class IrregularRow(Exception):
    """Raised by a generated row loop at a row whose keys are not those it was compiled for."""


class Program:
    """A generated function and what is needed to tell which step a line of it is."""

    __slots__ = ("call", "code", "first_line", "made_slots", "read_line", "source", "spell", "steps")

    def __init__(
        self,
        call: Callable[..., Any],
        source: str,
        steps: Steps,
        first_line: int,
        read_line: int | None,
        spell: Mapping[int, str],
        made_slots: Sequence[int],
    ) -> None:
        assert isinstance(call, FunctionType)
        self.call: Callable[..., Any] = call
        self.code: CodeType = call.__code__
        self.source, self.steps, self.first_line, self.read_line = source, steps, first_line, read_line
        self.spell, self.made_slots = spell, made_slots

    def frame_of(self, error: BaseException) -> TracebackType | None:
        """The entry of the exception's traceback that lies in this program."""
        entry = error.__traceback__
        while entry is not None and entry.tb_frame.f_code is not self.code:
            entry = entry.tb_next
        return entry

    def made(self, error: BaseException) -> dict[int, Any]:
        """By slot, those outputs that had been made when the exception was raised."""
        entry = self.frame_of(error)
        if entry is None and isinstance(error.__cause__, StopIteration):
            entry = self.frame_of(error.__cause__)  # it left a coroutine; see `_as_raised`
        found = {} if entry is None else entry.tb_frame.f_locals
        return {slot: found[self.spell[slot]] for slot in self.made_slots if self.spell[slot] in found}

    def locate(self, error: BaseException) -> Located | None:
        """Which step raised, as a `Located`; None where the error arose outside the steps (an items iterator, say), or
        ends the call.
        """
        if ends_call(error):
            return None
        if self.code.co_flags & CO_COROUTINE:
            error = self._as_raised(error)
        entry = self.frame_of(error)
        if entry is None:
            return None
        at = entry.tb_lineno - self.first_line
        if not 0 <= at < len(self.steps):
            return None
        if isinstance(error, Located):
            return Located(error.error, error.path, error.items, at, error.kept)
        if isinstance(error, FromAbove):
            # Raised where its items were drawn: in the line of the step behind the generator's.
            return error.located(self.steps[at - 1], at - 1)
        step = self.steps[at]
        kept = None
        if isinstance(step, Step) and step.keeps:
            values = entry.tb_frame.f_locals
            kept = kept_call(step, {name: values[self.spell[slot]] for name, slot in step.inputs})
        begin_in_function(error, entry)
        return Located(error, step.path, (None,) * len(step.path), at, kept)

    def _as_raised(self, error: BaseException) -> BaseException:
        """What the function raised: Python turns a StopIteration that leaves a coroutine into a RuntimeError."""
        cause = error.__cause__
        if not isinstance(cause, StopIteration) or str(error) != "coroutine raised StopIteration":
            return error
        entry = self.frame_of(error) or self.frame_of(cause)
        at = -1 if entry is None else entry.tb_lineno - self.first_line
        step = self.steps[at] if 0 <= at < len(self.steps) else None
        if not isinstance(step, Step) or step.node.is_async:
            return error
        if self.frame_of(cause) is None:
            cause.__traceback__ = error.__traceback__
        return cause


def kept_call(step: Step, values: dict[str, Any]) -> KeptCall:
    """The call of a step for one item; a batch node's lists hold this one item."""
    lists = step.lists or ()
    inputs = {name: [value] if name in lists else value for name, value in values.items()}
    return KeptCall(step.node, inputs, step.needs)


def begin_in_function(error: BaseException, entry: TracebackType) -> None:
    """Let the traceback begin in the user's function, below our own `entry`: our frames say nothing to them."""
    own = entry.tb_next
    while own is not None and own.tb_next is not None and own.tb_frame.f_code.co_filename in _AROUND:
        own = own.tb_next
    if own is not None:
        error.with_traceback(own)  # by method, as a class may forbid to set attributes


def is_async(steps: Steps) -> bool:
    """Whether any step, at any depth of maps, is a coroutine function."""
    todo: list[Step | MapStep] = list(steps)
    while todo:
        step = todo.pop()
        if isinstance(step, MapStep):
            todo += step.inner.steps
        elif step.node.is_async:
            return True
    return False


def compile_program(
    steps: Steps,
    inputs: Sequence[tuple[str, int]],
    outputs: Sequence[tuple[str, int]],
    *,
    shape: str = "tuple",
    flavour: str = "sync",
    loop: str | None = None,
    mapped: Sequence[str] = (),
    in_thread: Callable[..., Any] | None = None,
    name: str = "pipeline",
    flows_out: bool = False,
) -> Program:
    """A function of `inputs` that runs `steps` and gives `outputs`.

    `shape` is `"tuple"` (parameters are positional), `"dict"` or `"value"`. With `loop="rows"` the function takes
    `(rows, append, **shared)` and appends the shaped result of each row, a dict with exactly the keys `mapped`; with
    `loop="columns"` it takes `(rows, append, **shared)` where rows are tuples in the order of `mapped`. With
    `loop="lists"` it takes `(rows, *lists)`, rows that are tuples of the inputs or the one input itself, and appends to
    one list for each output; `shape` then says nothing.

    `flows_out` says that the items of the last step, a generator, flow into what comes after these steps.
    """
    prefix = "_"
    while any(given.startswith(prefix) for given, _ in inputs):
        prefix += "_"
    positional = shape == "tuple" and loop is None
    spell = {slot: f"{prefix}{slot}" if positional else given for given, slot in inputs}
    namespace: dict[str, Any] = {"__name__": "hypernodes.pipeline"}
    namespace |= {f"{prefix}{tool.__name__}": tool for tool in (unpack, type, tuple, len)}
    if flavour == "threads":
        namespace[f"{prefix}thread"] = in_thread
    flowing = flowing_steps(steps, {slot for _, slot in outputs}, flavour)
    if flows_out:
        flowing |= {len(steps) - 1}
    last_use = _last_use(steps, {slot for _, slot in outputs} | {slot for _, slot in inputs})
    indent = "        " if loop else "    "
    lines = [
        indent + _line(at, step, spell, prefix, flavour, namespace, at in flowing) + _forget(last_use.get(at), spell)
        for at, step in enumerate(steps)
    ]
    result = _result(shape, outputs, spell, prefix, namespace)
    asynchronous = "async def" if flavour != "sync" else "def"
    read_line = None
    if loop is None:
        head = [f"{asynchronous} {name}({', '.join(spell[slot] for _, slot in inputs)}):"]
        tail = [f"    return {result}"]
    elif loop == "lists":
        lists = [f"{prefix}list{at}" for at in range(len(outputs))]
        head = [f"{asynchronous} {name}({', '.join([f'{prefix}rows', *lists])}):"]
        head.append(f"    for {', '.join(spell[slot] for _, slot in inputs)} in {prefix}rows:")
        # Called as a method, `append` takes 0.01 us; through a variable it takes 0.025 us.
        appends = [f"{one}.append({spell[slot]})" for one, (_, slot) in zip(lists, outputs, strict=True)]
        tail = [f"{indent}{'; '.join(appends)}"]
    else:
        shared = [given for given, _ in inputs if given not in mapped]
        head = [f"{asynchronous} {name}({', '.join([f'{prefix}rows', f'{prefix}append', *shared])}):"]
        if loop == "rows":
            head.append(f"    for {prefix}row in {prefix}rows:")
            reads = [f"{given} = {prefix}row[{given!r}]" for given in mapped]
            namespace[f"{prefix}Irregular"] = IrregularRow
            check = f"if {prefix}len({prefix}row) != {len(mapped)}: raise {prefix}Irregular"
            head.append(f"{indent}{check}")
            head += [f"{indent}{'; '.join(reads) or 'pass'}"]
            read_line = 4
        else:
            comma = "," if len(mapped) == 1 else ""
            head.append(f"    for {', '.join(mapped)}{comma} in {prefix}rows:")
        tail = [f"{indent}{prefix}append({result})"]
    source = "\n".join([*head, *lines, *tail, ""])
    filename = f"<hypernodes {steps[0].path[0] if steps else name}>"
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    given = {slot for _, slot in inputs}
    made = [slot for _, slot in outputs if slot not in given]
    return Program(namespace[name], source, steps, len(head) + 1, read_line, spell, made)


def flowing_steps(steps: Steps, kept: Container[int], flavour: str) -> set[int]:
    """Which steps are generators whose items flow into the next step: nothing else reads them, nobody wants them.

    None with "threads", where each of the two would run in a thread of its own.
    """
    found = [] if flavour == "threads" else [at for at in range(len(steps) - 1) if flows(steps[at], steps[at + 1])]
    if not found:
        return set()
    reads = [slot for step in steps for slot in step.sources]
    return {at for at in found if reads.count(steps[at].writes[0]) == 1 and steps[at].writes[0] not in kept}


def _flow_of(step: Step) -> Callable[..., Flow]:
    """A function that makes the step's generator; its record is that of the time in which items are drawn."""
    func, path = step.node.func, step.path
    if step.span is None:
        return lambda *args, **kwargs: Flow(func(*args, **kwargs))

    def flow(span: Any, /, *args: Any, **kwargs: Any) -> Flow:
        def begin() -> Callable[[BaseException | None], None]:
            record = RecordedBatch(path, [span])
            return lambda error: record.end({}, error)

        return Flow(func(*args, **kwargs), begin)

    return flow


def _line(
    at: int,
    step: Step | MapStep,
    spell: dict[int, str],
    prefix: str,
    flavour: str,
    namespace: dict[str, Any],
    flowing: bool,
) -> str:
    for slot in step.writes:
        spell[slot] = f"{prefix}{slot}"
    function = f"{prefix}f{at}"
    if isinstance(step, MapStep):
        asynchronous = flavour != "sync" and (flavour == "threads" or is_async(step.inner.steps))
        thread = namespace.get(f"{prefix}thread")
        namespace[function] = map_call(step, flavour, thread) if asynchronous else map_call(step, "sync", None)
        arguments = [spell[slot] for slot in step.sources]
        unpacks = False
    else:
        node = step.node
        asynchronous = node.is_async
        arguments = [] if step.is_clock else _arguments(step, spell)
        namespace[function] = _flow_of(step) if flowing else recorded_call(step)
        # The hidden ones come first: which row it is, when time is up, which run it belongs to.
        arguments[:0] = [spell[slot] for slot in (step.span, step.clock, step.scope) if slot is not None]
        unpacks = node.unpacks
    call = f"{function}({', '.join(arguments)})"
    if asynchronous:
        call = f"await {call}"
    elif flavour == "threads" and not (isinstance(step, Step) and step.is_clock):
        call = f"await {prefix}thread({', '.join([function, *arguments])})"
    targets = [spell[slot] for slot in step.writes]
    if isinstance(step, MapStep):
        return f"{', '.join(targets)}{',' if len(targets) == 1 else ''} = {call}"
    if unpacks:
        namespace[f"{prefix}n{at}"] = step.node
        made, count = f"{prefix}made", len(targets)
        # A tuple of the right length is told here in 0.05 us; everything else goes to `unpack`, which takes 0.25 us.
        fits = f"{prefix}type({made}) is {prefix}tuple and {prefix}len({made}) == {count}"
        value = f"{made} if {fits} else {prefix}unpack({made}, {prefix}n{at})"
        return f"{made} = {call}; {', '.join(targets)}{',' if count == 1 else ''} = {value}; del {made}"
    return f"{targets[0]} = {call}"


def recorded_call(step: Step) -> Callable[..., Any]:
    """The node's function for one item, with everything around it.

    It takes the span, the deadline and the scope first, each where the step has it; a batch node's lists have one item.
    """
    call = guarded(step)
    if step.lists is not None:
        call = as_single(call, step.node)
    return call if step.span is None else recorded(step.path, call, is_async=step.node.is_async)


def _arguments(step: Step, spell: dict[int, str]) -> list[str]:
    reads, arguments, positional = dict(step.reads), [], True
    lists = step.lists or ()
    for parameter in step.node.parameters:
        slot = reads.get(parameter.name)
        if slot is None:
            # A default stands here: what follows must be passed by name.
            positional = False
            continue
        value = f"[{spell[slot]}]" if parameter.name in lists else spell[slot]
        arguments.append(value if positional and not parameter.keyword_only else f"{parameter.name}={value}")
    return arguments


def _last_use(steps: Steps, kept: set[int]) -> dict[int, list[int]]:
    """For each step the slots that nothing after it reads and nobody asked for: their values are let go."""
    last: dict[int, int] = {}
    for at, step in enumerate(steps):
        for slot in (*step.sources, *step.writes):
            if slot not in kept:
                last[slot] = at
    ends: dict[int, list[int]] = {}
    for slot, at in last.items():
        ends.setdefault(at, []).append(slot)
    return ends


def _forget(slots: list[int] | None, spell: dict[int, str]) -> str:
    return f"; del {', '.join(spell[slot] for slot in slots)}" if slots else ""


def _result(
    shape: str, outputs: Sequence[tuple[str, int]], spell: dict[int, str], prefix: str, namespace: dict[str, Any]
) -> str:
    if shape == "value":
        return spell[outputs[0][1]]
    if shape == "dict" and len(outputs) <= LONGEST_DISPLAY:
        return "{" + ", ".join(f"{name!r}: {spell[slot]}" for name, slot in outputs) + "}"
    values = "(" + "".join(f"{spell[slot]}, " for _, slot in outputs) + ")"
    if shape == "dict":
        namespace[f"{prefix}names"] = tuple(name for name, _ in outputs)
        namespace |= {f"{prefix}dict": dict, f"{prefix}zip": zip}
        return f"{prefix}dict({prefix}zip({prefix}names, {values}))"
    return values


def map_call(step: MapStep, flavour: str, in_thread: Callable[..., Any] | None) -> Callable[..., Any]:
    """A function of the step's sources that runs its inner plan for each row: one after another, or in batches."""
    inner = step.inner
    if any(leaf.lists is not None for leaf in leaves(inner)):
        with importing("hypernodes._blocks"):
            from hypernodes._blocks import fan_call

        return fan_call(step, flavour, in_thread)
    width, depth = len(inner.outputs), len(step.path) - 1
    # One output needs no tuple for each row: that is 56 bytes an item, and 1.3 times the time of trivial nodes.
    shape = "value" if width == 1 else "tuple"
    program = compile_program(
        inner.steps, inner.inputs, inner.outputs, shape=shape, flavour=flavour, in_thread=in_thread, name="mapped"
    )
    call = program.call

    def located(error: BaseException, index: int) -> Located | None:
        found = program.locate(error)
        if found is None:
            return None
        return Located(found.error, found.path, with_index(found.items, depth, index), found.step, found.kept)

    if flavour == "sync":

        def run(*values: Any) -> Any:
            results: list[Any] = []
            append, flow, failed = results.append, flow_into(step, values), None
            try:
                for row in map_rows(step, values):
                    append(call(*row))
            except KeyboardInterrupt:
                _stop(flow)
                raise
            except BaseException as error:
                found = located(error, len(results))
                if found is None:
                    _stop(flow)
                    raise
                if flow is None:
                    raise found from None
                failed = found
            if failed is not None:
                _fail(flow, failed)
            return [results] if width == 1 else columns_of(results, width)

        return run

    async def run_async(*values: Any) -> Any:
        results: list[Any] = []
        flow, failed = flow_into(step, values), None
        try:
            for row in map_rows(step, values):
                results.append(await call(*row))
        except BaseException as error:
            if is_stopped(error):
                # Ctrl-C may come as a cancellation; whoever runs the loop knows it by its type.
                _stop(flow)
                raise
            found = located(error, len(results))
            if found is None:
                _stop(flow)
                raise
            if flow is None:
                raise found from None
            failed = found
        if failed is not None:
            _fail(flow, failed)
        return [results] if width == 1 else columns_of(results, width)

    return run_async


def _stop(flow: Flow | None) -> None:
    if flow is not None:
        flow.stop()


def _fail(flow: Flow | None, error: BaseException) -> NoReturn:
    """Raise what an inner row raised, unless the generator comes to raise: its step is the earlier one.

    Outside of any `except`, or Python would note the row's error as the context of the generator's.
    """
    if flow is not None:
        flow.drain()
    raise error from None
