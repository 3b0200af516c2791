"""The generator of random cases. Everything is drawn through `pick(lo, hi)`, and `lo` is always the simpler choice.

`random.Random(seed).randint` drives it for volume; hypothesis integers drive it where a failure should shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypeVar

from hypernodes.testing._cases import Case
from hypernodes.testing._oracle import needs
from hypernodes.testing._shapes import Built, Call, Function, Nest, Parameter, Tree, Unit, pinned
from hypernodes.testing._values import ERRORS, VALUES
from hypernodes.testing._wiring import settled

__all__ = ["Pick", "draw_case"]

T = TypeVar("T")
Pick: TypeAlias = Callable[[int, int], int]


@dataclass(frozen=True)
class _Kind:
    """What a name holds: `depth` levels of list around a value; lists of one `length` tag are equally long. `built`
    says that a resource provides it.
    """

    depth: int = 0
    length: str = ""
    built: bool = False


_Names: TypeAlias = dict[str, _Kind]
ONE, BUILT = _Kind(), _Kind(built=True)
DEMANDS: tuple[dict[str, object], ...] = ({"cpus": 1}, {"cpus": 0.5, "memory": "1MB"}, {"memory": 1000})


@dataclass
class _Scope:
    """Names that must differ from one another; a pipeline with every name mapped has a scope of its own."""

    count: int = 0


@dataclass
class _Draw:
    pick: Pick
    left: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)
    drawn: list[tuple[Tree, _Names, _Names]] = field(default_factory=list)

    def choose(self, options: Sequence[T]) -> T:
        return options[self.pick(0, len(options) - 1)]

    def chance(self, percent: int, feature: str = "") -> bool:
        happens = self.pick(0, 99) >= 100 - percent
        return self.seen(feature) if happens else False

    def seen(self, feature: str) -> bool:
        self.features.update({feature} - {""})
        return True

    def shuffled(self, values: Iterable[T]) -> list[T]:
        mixed = list(values)
        for i in range(len(mixed) - 1):
            j = self.pick(i, len(mixed) - 1)
            mixed[i], mixed[j] = mixed[j], mixed[i]
        return mixed

    def some(self, values: Iterable[T], least: int, most: int) -> list[T]:
        mixed = self.shuffled(values)
        return mixed[: self.pick(min(least, len(mixed)), min(most, len(mixed)))]

    def unique(self, prefix: str) -> str:
        self.counts[prefix] = self.counts.get(prefix, 0) + 1
        return f"{prefix}{self.counts[prefix]}"

    # values ---------------------------------------------------------------------------------------------------

    def literal(self) -> str:
        if self.pick(0, 9) < 6:
            return str(self.pick(0, 9))
        feature = self.choose(list(VALUES))
        self.seen(feature)
        return self.choose(VALUES[feature])

    def text_of(self, kind: _Kind, lengths: dict[str, int]) -> str:
        if kind.depth == 0:
            return self.literal()
        if kind.length not in lengths or not kind.length:
            lengths[kind.length] = self.pick(4, 9) if self.chance(6, "long list") else self.pick(0, 3)
        size = lengths[kind.length]
        self.seen("empty list" if size == 0 else "ragged list" if kind.depth > 1 else "list")
        return "[" + ", ".join(self.text_of(_Kind(kind.depth - 1), lengths) for _ in range(size)) + "]"

    # nodes ----------------------------------------------------------------------------------------------------

    def expression(self, names: list[str], depth: int) -> str:
        if depth > 0:
            parts = [self.expression(names, depth - 1) for _ in range(self.pick(0, 3))]
            if depth == 1 and names and self.chance(30, "list of a length that depends on a value"):
                first = names[0]
                return f"[{first}] * ({first} % 4 if type({first}) is int else 2)"
            return f"[{', '.join(parts)}]"
        if not names or self.chance(15):
            return self.literal()
        a, b = self.choose(names), self.choose(names)
        bumped = f"{a} + {b} if type({a}) is type({b}) is int else {a}"
        return self.choose([a, bumped, f"({a}, {b})", f"[{b}, {a}]", f"{{'left': {a}, 1: {b}}}", f"type({a}).__name__"])

    def function(self, scope: _Scope, known: _Names, must: list[str]) -> tuple[Function, _Names]:
        names = list(dict.fromkeys([*must, *self.some(known, 0, 3)])) if known else []
        parameters = []
        for name in names:
            default = self.literal() if self.chance(10, "default that a value replaces") else None
            parameters.append(Parameter(name, default, self.chance(15, "keyword-only parameter")))
        if self.chance(15, "parameter with a default"):
            optional = self.unique("option")
            names.append(optional)
            parameters.append(Parameter(optional, self.literal(), self.chance(30, "keyword-only parameter")))
        body, made, expressions = self.refusal(names), _Names(), list[str]()
        for _ in range(self.pick(2, 3) if self.chance(20, "several outputs") else 1):
            scope.count += 1
            depth = self.choose([0, 0, 0, 1, 2])
            made[f"v{scope.count}"] = _Kind(depth, self.unique("length") if depth else "")
            expressions.append(self.expression(names, depth))
        is_async = self.chance(20, "async node")
        body += ["await asyncio.sleep(0)"] if is_async and self.chance(60) else []
        may_yield = expressions[0].startswith("[") and len(made) == 1 and not is_async
        yields = may_yield and self.chance(25, "generator node")
        if yields and len(body) and self.chance(50, "generator node that raises after it yielded"):
            body.insert(0, "yield 0")
        body.append(f"{'yield from' if yields else 'return'} {', '.join(expressions)}")
        name = self.unique("step")
        function = Function(name, tuple(self.shuffled(parameters)), tuple(made), tuple(body), is_async, yields=yields)
        return self.bounded(function if yields else self.batched(function, known)), made

    def batched(self, function: Function, known: _Names) -> Function:
        """The function as a batch node, now and then."""
        items = [p for p in function.parameters if p.name in known and not known[p.name].built]
        if not items or not self.chance(20, "batch node"):
            return function
        function = replace(function, batch_size=self.pick(1, 5))
        free = [p.name for p in items if p.default is None]
        self.seen("async batch node" if function.is_async else "")
        if not free or self.chance(50, "batch node that names its lists"):
            return replace(function, lists=tuple(self.some([p.name for p in items], 1, 3)))
        stays = self.choose(free)
        noted = [
            replace(p, note="'Value'") if p.name != stays and self.chance(30, "single parameter by annotation") else p
            for p in function.parameters
        ]
        return replace(function, parameters=tuple(noted), said=False)

    def bounded(self, function: Function) -> Function:
        """The function with limits and demands, now and then."""
        limits = tuple(self.some(["calls", "slots"], 1, 2)) if self.chance(5, "limit") else ()
        demand = self.choose(DEMANDS) if self.chance(4, "demand") else {}
        return replace(function, limits=limits, demand=demand)

    def limits(self, least: int) -> dict[str, int | str]:
        """Limits as a pipeline declares them; the outermost declares all."""
        counts: list[int | str] = [3, 1, 2, "2000/second"]
        return {name: self.choose(counts) for name in self.some(["calls", "slots"], least, 2)}

    def resources(self) -> list[Built]:
        """Some resources, the later ones built from the earlier now and then."""
        made = list[Built]()
        for _ in range(self.pick(1, 2) if self.chance(12, "resource") else 0):
            needs_ = tuple(one.name for one in made if self.chance(50, "resource that needs a resource"))
            literal = self.literal()
            expression = f"({', '.join([*needs_, literal])})" if needs_ else literal
            made.append(Built(self.unique("model"), needs_, expression, self.chance(30, "resource that closes")))
        return made

    def refusal(self, names: list[str]) -> list[str]:
        if not self.chance(20, "node that raises"):
            return []
        feature = self.choose(list(ERRORS))
        self.seen(feature)
        error = self.choose(ERRORS[feature])
        if not names or self.chance(6):
            return [f"raise {error.format(repr('always'))}"]
        name = self.choose(names)
        test = f"type({name}) is int and {name} % {self.pick(2, 4)} == {self.pick(0, 1)}"
        test = self.choose([test, test, f"{name} is None", f"type({name}) is tuple"])
        text = f"f'{name} is refused: {{type({name}).__name__}}'"
        return [f"if {test}:", f"    raise {error.format(text)}"]

    # pipelines ------------------------------------------------------------------------------------------------

    def tree(self, name: str, inputs: _Names, scope: _Scope, depth: int) -> tuple[Tree, _Names]:
        known, pending, made = dict(inputs), list(inputs), _Names()
        own = self.resources()
        units: list[Unit] = [*own]
        known |= {one.name: BUILT for one in own}
        pending += [one.name for one in own if self.chance(80)]
        count = self.pick(1, max(1, min(6, self.left)))
        for at in range(count):
            if self.left <= 0:
                break
            if depth < 3 and known and self.chance(35, f"nested pipeline at depth {depth + 1}"):
                news = self.nests(scope, known, pending, depth)
            else:
                self.left -= 1
                news = [self.function(scope, known, pending if at == count - 1 else self.some(pending, 0, 2))]
            for unit, outputs in news:
                units.append(unit)
                known |= outputs
                made |= outputs
                pending = [name for name in pending if name not in unit.reads]
        if pending or not made:
            unit, outputs = self.function(scope, known, pending)
            units.append(unit)
            made |= outputs
        place = self.pick(0, 5) if depth else 0
        if len(units) > 1:
            self.seen("shuffled declaration")
        used = self.limited(units)
        limits = self.limits(2) if used and not depth else {}
        if used and depth and self.chance(25, "limit declared by a nested pipeline"):
            limits = self.limits(1)
        return Tree(name, tuple(self.shuffled(units)), place, limits), made

    def nests(self, scope: _Scope, known: _Names, pending: list[str], depth: int) -> list[tuple[Unit, _Names]]:
        if self.drawn and self.chance(12):
            reused = self.reuse(scope, known)
            if reused:
                return reused
        feeds = list(dict.fromkeys([*self.some(pending, 0, 2), *self.some(known, 1, 2)]))
        over, mode = self.mapping(feeds, known)
        closed = self.chance(30, "nested pipeline with every name mapped")
        inner_names = list(feeds)
        if closed:
            # on purpose the names that the outer pipeline uses too, in other roles
            inner_names = [f"v{i + 101}" if self.chance(50) else f"x{i + 1}" for i in range(len(feeds))]
        elif len(feeds) > 1 and self.chance(20, "swapped input names"):
            inner_names = inner_names[1:] + inner_names[:1]
        else:
            inner_names = [self.unique("in") if self.chance(30, "renamed input") else name for name in inner_names]
        inner: _Names = {}
        for outer, name in zip(feeds, inner_names, strict=True):
            kind = known[outer]
            shorter = _Kind(kind.depth - 1, self.unique("length") if kind.depth > 1 else "")
            inner[name] = shorter if outer in over else kind
        tree, made = self.tree(self.unique("inner"), inner, _Scope() if closed else scope, depth + 1)
        self.drawn.append((tree, inner, made))
        input_mapping = {o: i for o, i in zip(feeds, inner_names, strict=True) if o != i}
        spare = [name for name in known if known[name] == ONE and name not in feeds]
        replaceable = [name for name in tree.outputs if made[name] == ONE]
        replaceable += [name for name in tree.resources if name not in pinned(tree)]
        if spare and replaceable and self.chance(8, "inner output overridden from outside"):
            input_mapping[self.choose(spare)] = self.choose(replaceable)
        renamed = {n: self.fresh(scope) for n in tree.outputs if closed or self.chance(15, "renamed output")}
        bare = not (input_mapping or renamed or over) and self.chance(50, "bare nested pipeline")
        label = None if bare or not self.chance(25, "named nested node") else self.unique("nest")
        nest = Nest(tree, input_mapping, renamed, tuple(over), mode, label, bare)
        length = self.unique("length")
        kinds = {n: _Kind(made[n].depth + 1, length) if over else made[n] for n in tree.outputs}
        result: list[tuple[Unit, _Names]] = [(nest, {renamed.get(n, n): kind for n, kind in kinds.items()})]
        if self.chance(10, "one pipeline used twice"):
            again = {n: self.fresh(scope) for n in tree.outputs}
            twin = replace(nest, output_mapping=again, name=self.unique("nest"), bare=False)
            result.append((twin, {again[n]: kind for n, kind in kinds.items()}))
        return result

    def reuse(self, scope: _Scope, known: _Names) -> list[tuple[Unit, _Names]]:
        """A pipeline that another one holds already, fed by other values; nothing when none fits."""
        tree, inner, made = self.choose(self.drawn)
        mapping: dict[str, str] = {}
        for name, kind in inner.items():
            fits = [outer for outer, its in known.items() if (its.depth, its.built) == (kind.depth, kind.built)]
            fits = [outer for outer in fits if outer not in mapping]
            if not fits or (kind.depth and [its.length for its in inner.values()].count(kind.length) > 1):
                return []
            mapping[self.choose(fits)] = name
        self.seen("one pipeline in two parents")
        renamed = {name: self.fresh(scope) for name in tree.outputs}
        nest = Nest(tree, mapping, renamed, name=self.unique("nest"))
        return [(nest, {renamed[name]: made[name] for name in tree.outputs})]

    def mapping(self, feeds: list[str], known: _Names) -> tuple[list[str], Literal["zip", "product"]]:
        lists = [name for name in feeds if known[name].depth]
        if not lists or not self.chance(70, "map inside"):
            return [], "zip"
        if any(known[name].depth > 1 for name in lists):
            self.seen("ragged map inside")
        if len(lists) > 1 and self.chance(50, "product inside"):
            return lists[:2], "product"
        first = known[lists[0]].length
        return [name for name in lists if name == lists[0] or (first and known[name].length == first)], "zip"

    @staticmethod
    def limited(units: Iterable[Unit]) -> bool:
        """Whether anything among them counts against a limit."""
        below = [unit for unit in units if isinstance(unit, Nest)]
        inner = [one for unit in below for tree in unit.tree.walk() for one in tree.units]
        return any(isinstance(unit, Function) and unit.limits for unit in [*units, *inner])

    def fresh(self, scope: _Scope) -> str:
        scope.count += 1
        return f"v{scope.count}"

    # the call -------------------------------------------------------------------------------------------------

    def case(self) -> Case:
        kind = self.choose(["run", "rows", "columns"])
        self.left = self.pick(1, 11)
        group = "group" if self.chance(50, "lists of one length") else ""
        inputs: _Names = {}
        for index in range(self.pick(1, 3)):
            depth = self.choose([0, 0, 1, 1, 2])
            inputs[f"x{index + 1}"] = _Kind(depth, group or f"length of x{index + 1}")
        tree, kinds = self.tree("main", inputs, _Scope(), 0)
        call = self.call(kind, tree, inputs, kinds)
        return Case(settled(tree, call), call, frozenset(self.features))

    def call(self, kind: str, tree: Tree, inputs: _Names, kinds: _Names) -> Call:
        given = dict(inputs)
        given |= {name: ONE for name in tree.inputs if name not in inputs and self.chance(40, "default replaced")}
        # a list may have to be as long as others, so only single values are replaced
        replaceable = [name for name in tree.outputs if kinds[name] == ONE]
        if replaceable and self.chance(20, "overridden output"):
            given |= {name: kinds[name] for name in self.some(replaceable, 1, 2)}
        spare = [name for name in tree.resources if name not in pinned(tree)]
        if spare and self.chance(30, "overridden resource"):
            given |= dict.fromkeys(self.some(spare, 1, 2), ONE)
        output_name, output_nodes = None, tuple[str, ...]()
        if self.chance(20, "output_name"):
            output_name = self.choose(tree.outputs)
        elif self.chance(30, "output_nodes"):
            output_nodes = tuple(self.some(tree.outputs, 1, 3))
        wanted = [output_name] if output_name else output_nodes or tree.outputs
        needed = needs(tree, given, wanted)[1]
        if set(given) - needed and self.chance(60, "input left out because nothing needs it"):
            given = {name: its for name, its in given.items() if name in needed}
        call = Call("run", {}, output_name=output_name, output_nodes=output_nodes)
        if kind == "run" or not given:
            lengths: dict[str, int] = {}
            self.seen("call by run")
            return replace(call, inputs={name: self.text_of(its, lengths) for name, its in given.items()})
        self.seen(f"call by {kind}")
        call = replace(call, on_error="return" if self.chance(50, "on_error return") else "raise")
        if kind == "columns":
            return self.columns(call, given)
        return self.rows(call, given, {*tree.inputs, *tree.resources} - set(inputs))

    def size(self) -> int:
        """How many items a map goes over."""
        size = self.pick(4, 20) if self.chance(12, "map over many items") else self.pick(0, 3)
        self.seen("map over no items" if size == 0 else "")
        return size

    def columns(self, call: Call, given: _Names) -> Call:
        over = self.some(given, 1, 2)
        product = self.chance(40, "map by product")
        size = self.size()
        counts = {name: self.pick(0, 3) if product else size for name in over}
        lengths = self.lengths(given, () if product else over, max(counts.values()))
        texts = {name: self.text_of(its, lengths[0]) for name, its in given.items() if name not in over}
        for name, count in counts.items():
            column = [self.text_of(given[name], lengths[i]) for i in range(count)]
            texts[name] = f"[{', '.join(column)}]"
        mode: Literal["zip", "product"] = "product" if product else "zip"
        return replace(call, kind="columns", inputs=texts, map_over=tuple(over), map_mode=mode)

    def rows(self, call: Call, given: _Names, optional: set[str]) -> Call:
        varied = self.some(given, 1, 3)
        size = self.size()
        lengths = self.lengths(given, varied, size)
        shared = {}
        for name, its in given.items():
            if name not in varied or self.chance(15, "row that replaces a shared input"):
                shared[name] = self.text_of(its, lengths[0])
        rows = []
        for index in range(size):
            left_out = {
                name for name in varied if name in optional and self.chance(30, "row without an optional input")
            }
            rows.append({name: self.text_of(given[name], lengths[index]) for name in varied if name not in left_out})
        return replace(call, kind="rows", inputs=shared, rows=tuple(rows))

    def lengths(self, given: _Names, varied: Iterable[str], size: int) -> list[dict[str, int]]:
        """Lengths by tag for each item: every item its own where no list is shared between items."""
        own = all(its.depth == 0 or name in varied for name, its in given.items())
        common: dict[str, int] = {}
        return [{} if own else common for _ in range(max(size, 1))]


def draw_case(pick: Pick) -> Case:
    """A case drawn through `pick(lo, hi)`, which gives an integer of that closed range. Same picks, same case."""
    return _Draw(pick).case()
