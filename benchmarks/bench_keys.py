"""What a cache key costs: the digest of a value over the plainest hash of it, and the identity of a function."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from _measure import QUICK, Table, chosen, compare, fresh

from hypernodes._code import code_of
from hypernodes._digest import digest_of


@dataclasses.dataclass
class Point:
    x: int
    y: float


LIMIT = 3


def helper(x: float) -> float:
    return x + LIMIT


def simple(x: float, k: int = 2) -> float:
    return helper(x) * k


def wide(x: Any, k: int = 2) -> Any:
    found = [helper(value) for value in x if value > LIMIT]
    return np.sum(found) * k, Point(len(found), 1.0), json.dumps(found)


def of_text(value: object) -> Callable[[], Any]:
    """What a hand-written key does, and what must not be done: it takes 1 for "1"."""
    return lambda: hashlib.sha256(str(value).encode()).digest()


def anew(source: str) -> Callable[[], Any]:
    scope: dict[str, Any] = {}
    exec(source, scope)
    return lambda: code_of(scope["f"])


def main() -> None:
    table = Table("Digests of small values", "what", "digest_of", "sha256 of str", "ratio", "goal")
    values = {"int": 5, "str": "some text", "tuple of 3": (1, "a", 2.5), "dict of 3": {"a": 1, "b": "x", "c": 2.0}}
    for what, value in values.items():
        pair = compare(lambda value=value: digest_of(value), of_text(value), turns=31, calls=2000)  # type: ignore[misc]
        table.pair(what, pair, "<= 2 µs")
    for what, value in {
        "dataclass of 2": Point(1, 2.0),
        "array of 10": np.arange(10),
        "nested": [values, values],
    }.items():
        pair = compare(lambda value=value: digest_of(value), of_text(value), turns=31, calls=500)  # type: ignore[misc]
        table.pair(what, pair)

    table = Table("Digests of large values", "what", "digest_of", "counterpart", "ratio", "goal")
    array = np.random.default_rng(1).random(1_250_000 if QUICK else 12_500_000)
    pair = compare(lambda: digest_of(array), lambda: hashlib.sha256(memoryview(array)).digest(), turns=11)
    table.pair("100 MB of float64, over sha256 of its buffer", pair, "<= 1.2")
    square = array[: (array.size // 1000) * 1000].reshape(1000, -1).T
    pair = compare(lambda: digest_of(square), lambda: hashlib.sha256(square.tobytes()).digest(), turns=7)
    table.pair("the same transposed, over sha256 of a copy", pair)
    numbers = list(range(1_000_000))
    pair = compare(lambda: digest_of(numbers), lambda: hashlib.sha256(json.dumps(numbers).encode()).digest(), turns=7)
    table.pair("1,000,000 ints, over sha256 of their JSON", pair)
    rows = [{"id": at, "name": f"row {at}"} for at in range(100_000)]
    pair = compare(lambda: digest_of(rows), lambda: hashlib.sha256(json.dumps(rows).encode()).digest(), turns=7)
    table.pair("100,000 dicts, over sha256 of their JSON", pair)

    table = Table("The identity of a function", "what", "first", "again")
    for what, func in {"one helper, one global": simple, "a class, NumPy, json": wide}.items():
        again = compare(lambda func=func: code_of(func), lambda: None, turns=31, calls=100)  # type: ignore[misc]
        table.row(what, "", chosen(again.ours))
    body = "\n".join(f"    if x > {at}:\n        x = x * {at} + len(str(x))" for at in range(10))
    source = f"def g(x):\n{body}\n    return x\ndef f(x):\n{body}\n    return g(x)\n"
    table.row("two functions of 22 lines", chosen(fresh(lambda: anew(source), turns=31)), "")


if __name__ == "__main__":
    main()
